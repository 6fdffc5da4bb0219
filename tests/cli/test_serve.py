"""`lonc serve` as a real process, between real sockets."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from lonc.client import Client
from lonc.lond import Peer
from tests.cli.conftest import COMMAND, DEADLINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Run, Start


class Daemon:
    """A running `lonc serve`; `lines` is what it has logged until now."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def wait_for(self, text: str) -> str:
        """Read the log until a line with this text, and return the line."""
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"ended without {text!r} in its log: {self.lines}")

    def end(self) -> int:
        """Wait for its end; return the exit status."""
        assert self.process.stderr
        self.lines += self.process.stderr.readlines()
        return self.process.wait(DEADLINE)


@pytest.fixture
def serve(start: Start) -> Callable[..., Daemon]:
    """Start a daemon and wait until it is ready: serve(*arguments) -> Daemon."""

    def serve(*arguments: str) -> Daemon:
        daemon = Daemon(start("serve", "--own-id", "msul2", "--socket-dir", ".", *arguments))
        daemon.wait_for("ready")
        return daemon

    return serve


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as peer:
        yield peer
    assert peer.complaints == []


def host(peer: Peer, name: str = "msul1") -> list[str]:
    address, port = peer.address
    return ["--host", f"{name}={address}:{port}"]


class Stubborn:
    """A line server that answers only when told to."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.answer = threading.Event()
        self.peer = Peer(dialect="line", handler=self._handle)

    def _handle(self, command: bytes) -> bytes:
        self.asked.set()
        self.answer.wait(DEADLINE)
        return command


@pytest.fixture
def stubborn() -> Iterator[Stubborn]:
    server = Stubborn()
    try:
        with server.peer:
            yield server
            server.answer.set()
    finally:
        server.answer.set()


@contextlib.contextmanager
def asking(path: Path, request: bytes) -> Iterator[socket.socket]:
    """A client that has sent a request."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(path))
        client.sendall(request)
        yield client


def all_of(client: socket.socket) -> bytes:
    """What comes until the end of the stream."""
    received = b""
    while data := client.recv(65536):
        received += data
    return received


@pytest.mark.parametrize("dialect", ["classic", "versioned"])
def test_requests_reach_the_peer_and_replies_their_client(
    part: str, serve: Callable[..., Daemon], directory: Path, dialect: str
) -> None:
    with Peer(dialect=dialect) as peer:
        daemon = serve(*host(peer), "--set", f"dialect={dialect}")
        with Client(directory / "msul1", DEADLINE) as first:
            with Client(directory / "msul1", DEADLINE) as second:
                for number in range(100):
                    assert first.request(b"echo:first %d" % number) == b"first %d" % number
                    assert second.request(b"echo:second %d" % number) == b"second %d" % number
        daemon.process.terminate()
        assert daemon.end() == 0
        assert peer.complaints == []
        assert peer.served == 200


def test_each_host_has_its_own_socket_and_settings(
    part: str, start: Start, run: Run, directory: Path
) -> None:
    with Peer(id="msul1", dialect="classic") as one, Peer(dialect="line") as other:
        (directory / "lonc.toml").write_text(
            'own_id = "msul2"\n'
            f'socket_dir = "{directory}"\n'
            "[hosts.msul1]\n"
            'address = "127.0.0.1"\n'
            f"port = {one.address[1]}\n"
            'dialect = "classic"\n'
            "[hosts.liner]\n"
            'address = "127.0.0.1"\n'
            f"port = {other.address[1]}\n"
            'dialect = "line"\n'
        )
        daemon = Daemon(start("serve", "--config", "lonc.toml"))
        assert daemon.wait_for("ready").endswith(f"INFO: ready in {directory}: msul1, liner\n")
        assert sum("ready in" in line for line in daemon.lines) == 1
        for name in ("msul1", "liner"):
            done = run("send", "--config", "lonc.toml", name, f"echo:to {name}")
            assert (done.returncode, done.stdout) == (0, f"to {name}\n")
        assert (one.served, other.served) == (1, 1)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_an_orderly_end_finishes_what_is_in_flight(
    part: str,
    serve: Callable[..., Daemon],
    stubborn: Stubborn,
    directory: Path,
    signum: signal.Signals,
) -> None:
    daemon = serve(*host(stubborn.peer), "--set", "dialect=line")
    with asking(directory / "msul1", b"slow\n") as client:
        assert stubborn.asked.wait(DEADLINE)
        daemon.process.send_signal(signum)
        daemon.wait_for("ending")
        # A second signal changes nothing.
        daemon.process.send_signal(signum)
        stubborn.answer.set()
        assert all_of(client) == b"slow\n"
    assert daemon.end() == 0
    assert not (directory / "msul1").exists()
    assert daemon.lines[-1].endswith("INFO: ended\n")


def test_an_orderly_end_waits_no_longer_than_it_may(
    part: str, serve: Callable[..., Daemon], stubborn: Stubborn, directory: Path
) -> None:
    arguments = ["--set", "dialect=line", "--set", "drain_timeout=0.1"]
    daemon = serve(*host(stubborn.peer), *arguments)
    with asking(directory / "msul1", b"slow secret\n") as client:
        assert stubborn.asked.wait(DEADLINE)
        daemon.process.terminate()
        assert all_of(client) == b"con_lost\n"
    assert daemon.end() == 0
    log = "".join(daemon.lines)
    assert "[msul1] WARNING: 1 requests" in log
    assert "secret" not in log


def test_an_end_at_once(
    part: str, serve: Callable[..., Daemon], stubborn: Stubborn, directory: Path
) -> None:
    daemon = serve(*host(stubborn.peer), "--set", "dialect=line", "--set", "drain_timeout=1000")
    with asking(directory / "msul1", b"slow\n") as client:
        assert stubborn.asked.wait(DEADLINE)
        daemon.process.send_signal(signal.SIGQUIT)
        assert all_of(client) == b"con_lost\n"
    assert daemon.end() == 0
    assert not (directory / "msul1").exists()


def test_an_end_at_once_in_the_middle_of_an_orderly_one(
    serve: Callable[..., Daemon], stubborn: Stubborn, directory: Path
) -> None:
    daemon = serve(*host(stubborn.peer), "--set", "dialect=line", "--set", "drain_timeout=1000")
    with asking(directory / "msul1", b"slow\n") as client:
        assert stubborn.asked.wait(DEADLINE)
        daemon.process.terminate()
        daemon.wait_for("ending")
        daemon.process.send_signal(signal.SIGQUIT)
        assert all_of(client) == b"con_lost\n"
    assert daemon.end() == 0


def test_a_peer_that_is_away_is_no_reason_not_to_start(
    serve: Callable[..., Daemon], run: Run
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve("--host", f"msul1=127.0.0.1:{port}")
    done = run("send", "--socket-dir", ".", "msul1", "ping")
    assert (done.returncode, done.stdout) == (3, "con_lost\n")


def test_the_socket_has_the_mode_that_it_should(
    serve: Callable[..., Daemon], peer: Peer, directory: Path
) -> None:
    serve(*host(peer), "--set", "socket_mode=0600")
    assert (directory / "msul1").stat().st_mode & 0o777 == 0o600


def test_a_socket_that_a_crash_left_is_replaced(
    serve: Callable[..., Daemon], run: Run, peer: Peer, directory: Path
) -> None:
    daemon = serve(*host(peer))
    daemon.process.kill()
    daemon.end()
    assert (directory / "msul1").is_socket()
    serve(*host(peer))
    assert run("send", "--socket-dir", ".", "msul1", "ping").stdout == "msul1\n"


def test_a_second_instance_is_refused_and_the_first_goes_on(
    serve: Callable[..., Daemon],
    run: Run,
    peer: Peer,
    directory: Path,
) -> None:
    serve(*host(peer, "msul1"))
    done = run(
        "serve", "--own-id", "a", "--socket-dir", ".", *host(peer, "new"), *host(peer, "msul1")
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "another instance runs (pid " in done.stderr
    assert sorted(path.name for path in directory.iterdir()) == [".lonc.pid", "msul1"]
    assert run("send", "--socket-dir", ".", "msul1", "ping").stdout == "msul1\n"


def wide_open(directory: Path) -> None:
    directory.chmod(0o777)


def occupied(directory: Path) -> None:
    (directory / "msul1").write_text("somebody's")


@pytest.mark.parametrize(
    ("prepare", "socket_dir", "words"),
    [
        (None, "missing", "does not exist"),
        (wide_open, ".", "may be written by every user"),
        (occupied, ".", "is not a socket"),
        (None, "/" + 120 * "d", "the system allows 107"),
    ],
)
def test_a_socket_that_cannot_be_opened(
    usage_error: Callable[..., str],
    directory: Path,
    prepare: Callable[[Path], None] | None,
    socket_dir: str,
    words: str,
) -> None:
    if prepare:
        prepare(directory)
    arguments = ["serve", "--own-id", "a", "--socket-dir", socket_dir, "--host", "msul1=::1"]
    assert words in usage_error(*arguments)


def test_a_broken_configuration(run: Run, directory: Path) -> None:
    (directory / "lonc.toml").write_text("max_queue = 0\n[hosts.a]\nprot = 1\n")
    done = run("serve", "--config", "lonc.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "lonc: lonc.toml:1: max_queue = 0: must be a whole number from 1 to 2147483647\n"
        "lonc: lonc.toml:3: hosts.a.prot: there is no such setting; did you mean port?\n"
        "lonc: lonc.toml: own_id is missing: the id of this host in the cluster\n"
        "lonc: lonc.toml:2: hosts.a: address is missing: a host name or an IP address\n"
    )


def test_a_signal_before_it_is_ready_leaves_nothing(
    part: str, start: Start, peer: Peer, directory: Path
) -> None:
    process = start("serve", "--own-id", "a", "--socket-dir", ".", *host(peer))
    deadline = time.monotonic() + DEADLINE
    # The handlers are there before the socket is.
    while not (directory / "msul1").exists():
        assert time.monotonic() < deadline
    process.terminate()
    assert Daemon(process).end() == 0
    assert list(directory.iterdir()) == []


def test_a_socket_that_is_another_s_by_now_stays(
    serve: Callable[..., Daemon], peer: Peer, directory: Path
) -> None:
    daemon = serve(*host(peer))
    (directory / "msul1").unlink()
    with socket.socket(socket.AF_UNIX) as another:
        another.bind(str(directory / "msul1"))
        daemon.process.terminate()
        assert daemon.end() == 0
        assert (directory / "msul1").is_socket()


def test_its_directory_may_have_gone(
    serve: Callable[..., Daemon], peer: Peer, directory: Path
) -> None:
    daemon = serve(*host(peer))
    shutil.rmtree(directory)
    daemon.process.terminate()
    assert daemon.end() == 0
    directory.mkdir()


def test_nobody_reads_the_log(serve: Callable[..., Daemon], run: Run, peer: Peer) -> None:
    daemon = serve(*host(peer))
    assert daemon.process.stderr
    daemon.process.stderr.close()
    assert run("send", "--socket-dir", ".", "msul1", "ping").stdout == "msul1\n"
    daemon.process.terminate()
    assert daemon.process.wait(DEADLINE) == 0


def test_the_limit_of_descriptors_is_raised_and_peers_always_find_one(
    environment: dict[str, str], directory: Path
) -> None:
    limits = 'ulimit -Sn 64 && ulimit -Hn 128 && exec "$@"'
    arguments = ["serve", "--own-id", "a", "--socket-dir", "."]
    arguments += ["--set", "dialect=line", "--set", "max_connections=2"]
    arguments += ["--set", "processes=single"]
    with contextlib.ExitStack() as stack:
        peer = stack.enter_context(Peer(dialect="line"))
        process = stack.enter_context(
            subprocess.Popen(
                ["sh", "-c", limits, "sh", *COMMAND, *arguments]
                + [*host(peer, "one"), *host(peer, "two")],
                env=environment,
                cwd=directory,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(process.kill)
        Daemon(process).wait_for("ready")
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (128, 128)
        # More clients than the process can have. Those that are in are served.
        first = {}
        for name in ("one", "two"):
            clients = []
            for _ in range(70):
                clients.append(stack.enter_context(asking(directory / name, b"")))
            first[name] = clients[0]
        deadline = time.monotonic() + DEADLINE
        while len(os.listdir(f"/proc/{process.pid}/fd")) < 90:
            assert time.monotonic() < deadline
        for client in first.values():
            client.sendall(b"ping\n")
            assert client.recv(100) == b"msul1\n"
