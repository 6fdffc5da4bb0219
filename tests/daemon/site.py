"""A real daemon on a directory of its own, with all the files that it may write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import lonc
from tests.conftest import wait_until

COMMAND = (sys.executable, "-m", "lonc")
DEADLINE = 60.0


class Site:
    """A directory with `lonc.toml` and what it names; `start` runs a daemon on it.

    home     the directory; the sockets are in it
    delayed  the delayed directory
    stderr   the file that the standard error stream of all its daemons goes to
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="lonc-")
        self.home = Path(self._temporary.name)
        self.environment = {
            name: value for name, value in os.environ.items() if name not in ("HOME", *environment)
        }
        self.environment |= {"PYTHONPATH": str(Path(lonc.__file__).parents[1]), **environment}
        self.delayed = self.home / "delayed"
        self.delayed.mkdir(0o700)
        self.stderr = self.home / "stderr"
        self.pid_file = self.home / "lonc.pid"
        self.perm_log = self.home / "perm.log"
        self.config = self.home / "lonc.toml"
        self.started: list[subprocess.Popen[bytes]] = []
        self.orphans: set[int] = set()

    def configure(self, hosts: dict[str, object], **settings: object) -> None:
        """Write the configuration; `hosts` are built-in peers, or (address, port)."""
        values = {
            "own_id": "msul2",
            "socket_dir": str(self.home),
            "pid_file": str(self.pid_file),
            "status_file": str(self.home / "status.txt"),
            "perm_log": str(self.perm_log),
            "delayed_dir": str(self.delayed),
            "delayed_settle": 0,
        }
        lines = [f"{name} = {_toml(value)}" for name, value in (values | settings).items()]
        for name, peer in hosts.items():
            address, port = getattr(peer, "address", peer)
            lines += [f"[hosts.{name}]", f'address = "{address}"', f"port = {port}"]
        self.config.write_text("\n".join(lines) + "\n")

    def command(self, *arguments: str) -> list[str]:
        """The command line of `lonc`."""
        return [*COMMAND, *arguments]

    def start(self, *arguments: str, ready: bool = True, **options: object) -> subprocess.Popen:
        """Start a daemon, in a process group of its own, and wait until it is ready."""
        options.setdefault("args", self.command("serve", "--config", str(self.config), *arguments))
        seen = self.log().count("ready in ")
        with open(self.stderr, "ab") as stderr:
            process = subprocess.Popen(
                env=self.environment | options.pop("env", {}),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
                **options,
            )
        self.started.append(process)
        if ready:
            wait_until(
                lambda: self.log().count("ready in ") > seen or process.poll() is not None,
                DEADLINE,
            )
            assert process.poll() is None, self.log()
        return process

    def run(self, *arguments: str, **options: object) -> subprocess.CompletedProcess:
        """Run a command of `lonc` with this configuration to its end."""
        return subprocess.run(
            self.command(*arguments, "--config", str(self.config)),
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            **options,
        )

    def log(self) -> str:
        """What all daemons wrote to the standard error stream."""
        return self.stderr.read_text() if self.stderr.exists() else ""

    def logged(self, text: str, times: int = 1) -> str:
        """Wait until the log holds a text so often; return all of it."""
        wait_until(lambda: self.log().count(text) >= times, DEADLINE)
        return self.log()

    def delay(self, host: str, command: bytes, number: int = 0) -> Path:
        """Write a delayed message, as a client would have done at a time of that number."""
        word = command.removeprefix(b"encrypt:").partition(b":")[0].decode()
        path = self.delayed / f"{1_000_000_000 + number}.0.77.{word}.{host}"
        path.write_bytes(command + b"\n")
        return path

    def messages(self) -> list[str]:
        """The names of the messages that wait."""
        return sorted(name for name in os.listdir(self.delayed) if name[0].isdigit())

    def records(self) -> list[str]:
        """The kind, host and command of the permanent log's records."""
        if not self.perm_log.exists():
            return []
        lines = self.perm_log.read_text().splitlines()
        # Time is colons, too.
        return [line.split(":", 1)[1].rsplit(":", 3)[0] for line in lines if line]

    def close(self) -> None:
        """Kill everything that it started, and remove the directory."""
        for pid in [process.pid for process in self.started] + list(self.orphans):
            self.orphans |= children_of(pid)
        for process in self.started:
            process.kill()
            process.wait()
        for pid in self.orphans:
            kill(pid)
        wait_until(lambda: not any(is_running(pid) for pid in self.orphans), DEADLINE)
        self._temporary.cleanup()


@pytest.fixture
def site():
    """A directory for a real daemon; all that was started there is killed at the end."""
    site = Site({})
    yield site
    site.close()


@pytest.fixture
def site_of_part(part_env):
    """The same over both parts."""
    site = Site(part_env)
    yield site
    site.close()


def children_of(pid: int) -> set[int]:
    """The processes that a process has made, and that it has not seen the end of."""
    try:
        return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except OSError:
        return set()


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(pid: int, signum: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may have gone."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
