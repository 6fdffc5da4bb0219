"""A real daemon: `lonc serve` in processes of its own, and what a test asks of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

import lonc
from lonc.client import Client
from lonc.lond import Peer
from tests.conftest import wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Far beyond what anything takes here; a test that hangs ends with this.
DEADLINE = 30.0

COMMAND = (sys.executable, "-m", "lonc")


class Running:
    """A daemon that serves `hosts`: by id, a Peer, or a Peer and settings of the host.

    `directory` holds its sockets, `lonc.toml`, `pid` and `status`. `settings` are the daemon's.
    `arguments` are further words of the command line.
    """

    def __init__(
        self,
        directory: Path,
        hosts: dict[str, Peer | tuple[Peer, dict[str, object]]],
        settings: dict[str, object],
        *,
        env: dict[str, str],
        command: tuple[str, ...] = COMMAND,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.directory = directory
        self.hosts = dict(hosts)
        self.settings = dict(settings)
        self.write()
        self.process = subprocess.Popen(
            [*command, "serve", "--config", str(directory / "lonc.toml"), *arguments],
            env=environment() | env,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def write(self) -> None:
        """Write the configuration that `hosts` and `settings` say now."""
        lines = [
            'own_id = "msul2"',
            f'socket_dir = "{self.directory}"',
            f'pid_file = "{self.directory}/pid"',
            f'status_file = "{self.directory}/status"',
            *rows(self.settings),
        ]
        for host_id, host in self.hosts.items():
            peer, settings = host if isinstance(host, tuple) else (host, {})
            address, port = peer.address
            lines += [f"[hosts.{host_id}]", f'address = "{address}"', f"port = {port}"]
            lines += rows(settings)
        (self.directory / "lonc.toml").write_text("\n".join(lines) + "\n")

    def send(self, signum: int) -> None:
        """Send the parent a signal."""
        self.process.send_signal(signum)

    def reload(self, signum: int = signal.SIGHUP) -> str:
        """Have what `hosts` and `settings` say now read; return what the log says of it."""
        self.write()
        return self.reread(signum)

    def reread(self, signum: int = signal.SIGHUP) -> str:
        """Have the configuration file read again, as it is; return what the log says of it."""
        mark = len(self.log)
        self.send(signum)
        return self.wait_for("configuration", since=mark)

    def wait_for(self, text: str, *, count: int = 1, since: int = 0) -> str:
        """Wait for the log's `count`th line with this text from line `since` on; return it."""

        def found() -> str | None:
            goes_on = self._reader.is_alive()
            lines = [line for line in self.log[since:] if text in line]
            assert goes_on or len(lines) >= count, "it has ended"
            return lines[count - 1] if len(lines) >= count else None

        try:
            return wait_until(found, DEADLINE)
        except AssertionError:
            raise AssertionError(f"no {text!r} in the log: {''.join(self.log[-40:])}") from None

    def children(self) -> list[int]:
        """The processes of the parent."""
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def serving(self, host_id: str) -> list[int]:
        """The processes of a host: those that have its listening socket, and no other one."""
        sockets = self.listeners()
        own = f"socket:[{sockets.get(host_id)}]"
        all_of_them = {f"socket:[{inode}]" for inode in sockets.values()}
        return [pid for pid in self.children() if all_of_them & set(descriptors(pid)) == {own}]

    def process_of(self, host_id: str, *, other_than: int = 0) -> int:
        """Wait until there is one process of a host, and not that one; return its number."""

        def found() -> int | None:
            pids = self.serving(host_id)
            return pids[0] if len(pids) == 1 and pids[0] != other_than else None

        return wait_until(found, DEADLINE)

    def listeners(self) -> dict[str, int]:
        """The inodes of the listening sockets by host; each was bound under a temporary name."""
        start = f"{self.directory}/~"
        rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
        inodes = {
            row[7].removeprefix(start): int(row[6])
            for row in rows
            if row[3] == "00010000" and row[7:] and row[7].startswith(start)
        }
        return {host_id: inodes[host_id[1:]] for host_id in self.hosts if host_id[1:] in inodes}

    def client(self, host_id: str) -> Client:
        """A client of a host."""
        return Client(self.directory / host_id, DEADLINE)

    def ask(self, host_id: str, request: bytes = b"ping") -> bytes:
        """One request by a client of its own."""
        with self.client(host_id) as client:
            return client.request(request)

    def end(self, signum: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit status."""
        self.send(signum)
        return self.ended()

    def ended(self) -> int:
        """Wait for the end; return the exit status."""
        status = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        assert not self._reader.is_alive(), "a child is left, and holds the log open"
        return status

    def kill(self) -> None:
        """Leave no process behind, whatever the test did."""
        if self.process.poll() is None:
            for pid in self.children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.kill()
        self.process.wait()
        self._reader.join(DEADLINE)
        assert self.process.stderr
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr
        self.log.extend(self.process.stderr)


def environment() -> dict[str, str]:
    """The environment of a command: no HOME, and this lonc wherever it is started."""
    kept = {name: value for name, value in os.environ.items() if name != "HOME"}
    return kept | {"PYTHONPATH": str(Path(lonc.__file__).parents[1])}


def without_titles(directory: Path) -> dict[str, str]:
    """The environment of a command that finds no `setproctitle`, which imports megabytes."""
    (directory / "setproctitle.py").write_text("raise ImportError\n")
    environ = environment()
    return environ | {"PYTHONPATH": f"{environ['PYTHONPATH']}:{directory}"}


def rows(settings: dict[str, object]) -> list[str]:
    """Settings as lines of a configuration file."""
    return [
        f"{name} = " + (f'"{value}"' if isinstance(value, str) else f"{value}".lower())
        for name, value in settings.items()
    ]


def descriptors(pid: int) -> list[str]:
    """What the descriptors of a process lead to; nothing if it has ended."""
    found = []
    # PermissionError: it is just ending, and its user no longer has a say.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is more than what a dead one leaves."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_gone(pid: int) -> None:
    """Wait until a process has ended."""
    wait_until(lambda: not is_alive(pid), DEADLINE)


class Stubborn(Peer):
    """A line server that answers `slow` when told to, and all else at once, with the same line."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.answer = threading.Event()
        super().__init__(dialect="line", handler=self._handle_line)

    def _handle_line(self, command: bytes) -> bytes:
        if command == b"slow":
            self.asked.set()
            self.answer.wait(DEADLINE)
        return command


@pytest.fixture
def directory() -> Iterator[Path]:
    """The daemon's; its path is short, because a socket's may have 107 bytes only."""
    with tempfile.TemporaryDirectory(prefix="lonc-") as directory:
        yield Path(directory)


# The hosts that tests have; the built-in peer answers as any of them.
HOSTS = ("one", "two", "three", "four")


@pytest.fixture
def lond() -> Iterator[Peer]:
    """A peer that acts as any of the hosts, and must have nothing to complain of."""
    with Peer(also=HOSTS) as peer:
        yield peer
    assert peer.complaints == []


@pytest.fixture
def stubborn() -> Iterator[Stubborn]:
    """A peer of the dialect `line` that answers `slow` when told to."""
    with Stubborn() as peer:
        try:
            yield peer
        finally:
            peer.answer.set()


@pytest.fixture
def gone() -> Iterator[Peer]:
    """A peer that is not there: nobody listens on its port."""
    with Peer() as peer:
        peer.stop()
        yield peer


@pytest.fixture(params=["per-host", "single"])
def mode(request: pytest.FixtureRequest) -> str:
    """Both values of the setting `processes`, which clients cannot tell apart."""
    return str(request.param)


@pytest.fixture
def serve(directory: Path) -> Iterator[Callable[..., Running]]:
    """Start a daemon: serve({id: peer, ...}, env={}, arguments=(), ready=True, **settings)."""
    with contextlib.ExitStack() as stack:

        def serve(
            hosts: dict[str, Peer | tuple[Peer, dict[str, object]]],
            *,
            env: dict[str, str] | None = None,
            command: tuple[str, ...] = COMMAND,
            arguments: tuple[str, ...] = (),
            ready: bool = True,
            **settings: object,
        ) -> Running:
            running = Running(
                directory, hosts, settings, env=env or {}, command=command, arguments=arguments
            )
            stack.callback(running.kill)
            if ready:
                running.wait_for("ready in")
            return running

        yield serve
