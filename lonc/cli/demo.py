"""`lonc demo`: a peer, a broker and some load on this machine, with a failure in the middle.

this process      the broker, and the story that is told
a child process   the clients (lonc.cli.load)
another command   the peer, `lonc lond`: something that can really be killed
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time

from lonc import fastpath
from lonc.broker.broker import Broker
from lonc.broker.host import Host
from lonc.broker.settings import Settings
from lonc.broker.table import Count, Seconds
from lonc.cli import load
from lonc.cli.options import checked
from lonc.cli.table import table
from lonc.errors import LoncError
from lonc.net.connector import Connector
from lonc.net.listening import open_unix_listener
from lonc.reactor import Reactor
from lonc.wire.cipher import CipherUnavailable, new_cipher

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    import socket
    from collections.abc import Callable

    from lonc.net.connector import Attempt
    from lonc.reactor import Event

HELP = "try everything out on this machine: a peer, a broker, load, and a failure"

PEER_ID = "msul1"
OWN_ID = "msul2"

# When the peer is killed and when it comes back, as parts of the time that the load takes.
KILLED = 3 / 8
BACK = 4 / 8

PROGRESS = 0.5

# A demo is short: the broker is to notice soon that the peer is back.
RETRY_LONGEST = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes."""
    parser.add_argument(
        "--seconds",
        metavar="S",
        type=float,
        default=8.0,
        help="how long the clients send (default: %(default)g)",
    )
    parser.add_argument(
        "--clients",
        metavar="N",
        type=int,
        default=50,
        help="how many there are at once (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Tell the story, end with a table, and return 0 if nothing was wrong, 1 otherwise."""
    checked("--seconds", Seconds(), args.seconds)
    checked("--clients", Count(1), args.clients)
    encrypt = _can_encrypt()
    # TERM ends it as INT does: no process is to be left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="lonc-demo-") as directory:
        peer = PeerProcess(directory)
        try:
            demo = Demo(directory, peer, args.clients, args.seconds, encrypt)
            seen = demo.run()
        finally:
            peer.kill()
        problems = judge(seen, demo.killed, demo.back) + peer.complaints()
    print()
    for line in table(summary(seen, args.seconds, demo.connections)):
        print(line)
    print()
    for problem in problems:
        print(f"WRONG: {problem}")
    print("Something was wrong." if problems else "Nothing was wrong.")
    return 1 if problems else 0


def _can_encrypt() -> bool:
    try:
        new_cipher(bytes(16))
    except CipherUnavailable as error:
        print(f"No request will be encrypted: {error}")
        return False
    return True


class PeerProcess:
    """The built-in peer as a process of its own, which keeps its port when it comes back."""

    def __init__(self, directory: str) -> None:
        self._stderr = os.path.join(directory, "peer.err")
        self.address = "127.0.0.1:0"
        self._process = self._started(subprocess.PIPE)
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            words = stdout.readline().split()
        try:
            # "lond msul1 listens on 127.0.0.1:40001 (versioned)"
            self.address = words[4]
        except IndexError:
            self.kill()
            raise LoncError("; ".join(["the peer did not start", *self.complaints()])) from None

    def port(self) -> int:
        """Return the TCP port that it listens on."""
        return int(self.address.rpartition(":")[2])

    def kill(self) -> None:
        """Kill it, as a crash would."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Start it again, without waiting until it listens."""
        self._process = self._started(subprocess.DEVNULL)

    def complaints(self) -> list[str]:
        """Return the lines that it wrote about what its clients did wrong."""
        with open(self._stderr, errors="backslashreplace") as file:
            return file.read().splitlines()

    def _started(self, stdout: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "lonc", "lond"]
        command += ["--listen", self.address, "--id", PEER_ID, "--caller", OWN_ID]
        with open(self._stderr, "a") as stderr:
            return subprocess.Popen(command, stdout=stdout, stderr=stderr, text=True)


class LoadProcess:
    """The clients, in a child of this process; `fd` gives what they saw, and then ends."""

    def __init__(
        self, listener: socket.socket, path: str, clients: int, seconds: float, encrypt: bool
    ) -> None:
        self.fd, write_end = os.pipe()
        sys.stdout.flush()
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                listener.close()
                os.close(self.fd)
                seen = load.run(path, clients=clients, seconds=seconds, encrypt=encrypt)
                with open(write_end, "wb") as pipe:
                    pickle.dump(seen, pipe)
                status = 0
            finally:
                os._exit(status)
        os.close(write_end)

    def wait(self) -> bool:
        """Wait until it has ended, and return whether in good order."""
        os.close(self.fd)
        return os.waitpid(self._pid, 0)[1] == 0

    def kill(self) -> None:
        """End it now."""
        os.kill(self._pid, signal.SIGKILL)
        self.wait()


class CountingConnector(Connector):
    """Counts the connections that it makes."""

    made = 0

    def attempt(
        self, connected: Callable[[socket.socket], None], failed: Callable[[str], None]
    ) -> Attempt:
        """Start to connect, as every connector does."""

        def counted(sock: socket.socket) -> None:
            self.made += 1
            connected(sock)

        return super().attempt(counted, failed)


class Demo:
    """The story: load on a broker, whose peer is killed and comes back."""

    def __init__(
        self, directory: str, peer: PeerProcess, clients: int, seconds: float, encrypt: bool
    ) -> None:
        self._peer = peer
        self._seconds = seconds
        self._received = bytearray()
        path = os.path.join(directory, PEER_ID)
        self._listener = open_unix_listener(path)
        print(f"The peer listens on {peer.address}, the broker on {path}.")
        print(
            f"{clients} clients send requests for {seconds:g} s. In use: {fastpath.describe()}.\n"
        )
        # The clients wait in the socket's backlog until the broker serves it.
        self._load = LoadProcess(self._listener, path, clients, seconds, encrypt)
        self._reactor = Reactor()
        host = Host(PEER_ID, "127.0.0.1", peer.port(), own_id=OWN_ID)
        settings = Settings(retry_longest=RETRY_LONGEST)
        self._connector = CountingConnector(self._reactor, host.address, host.port, settings)
        self._broker = Broker(self._reactor, host, settings, connector=self._connector)
        self._began = time.monotonic()
        self.killed = self.back = 0.0

    @property
    def connections(self) -> int:
        """How many connections to the peer were made altogether."""
        return self._connector.made

    def run(self) -> load.Seen:
        """Run until the clients have ended, and return what they saw."""
        try:
            self._serve()
        except BaseException:
            self._load.kill()
            raise
        if not self._load.wait():
            raise LoncError("the clients of the demo ended before their time")
        seen: load.Seen = pickle.loads(self._received)
        return seen

    def _serve(self) -> None:
        reactor = self._reactor
        try:
            self._broker.listen(self._listener)
            reactor.io(self._load.fd, "r", self._receive)
            reactor.timer(self._tell, interval=PROGRESS)
            reactor.timer(self._kill, after=self._seconds * KILLED)
            reactor.timer(self._restart, after=self._seconds * BACK)
            reactor.run()
        finally:
            self._broker.close()
            reactor.close()
            self._listener.close()

    def _receive(self, event: Event) -> None:
        data = os.read(self._load.fd, 1 << 20)
        self._received += data
        if not data:
            event.watcher.cancel()
            self._broker.drain(self._reactor.unloop)

    def _kill(self, event: Event) -> None:
        self._say("The peer is killed.")
        self.killed = time.monotonic()
        self._peer.kill()

    def _restart(self, event: Event) -> None:
        self._say("The peer is started again.")
        self._peer.restart()
        self.back = time.monotonic()

    def _tell(self, event: Event) -> None:
        stats = self._broker.stats()
        self._say(
            f"{stats['requests']:7} requests  {stats['replies']:7} replies"
            f"  {stats['con_lost']:5} con_lost  {stats['connections']:2} connections"
        )

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {text}", flush=True)


def judge(seen: load.Seen, killed: float, back: float) -> list[str]:
    """Return a line for each thing that was wrong.

    `killed` and `back` are when the peer was killed and when it was started again; con_lost is
    right from the first on, and there must be replies after the second.
    """
    replies, lost = len(seen.latencies), len(seen.lost)
    problems = []
    if seen.wrong:
        problems.append(f"{seen.wrong} replies were not those of the request")
    if seen.forgotten or seen.requests != replies + lost + seen.wrong:
        problems.append(f"{seen.requests - replies - lost - seen.wrong} requests were forgotten")
    early = sum(when < killed for when in seen.lost)
    if early:
        problems.append(f"{early} con_lost before the peer was killed")
    if seen.last < back:
        problems.append("no reply after the peer came back")
    return problems


def summary(seen: load.Seen, seconds: float, connections: int) -> list[list[str]]:
    """Return the rows of the last table; `connections` is how many were used altogether."""
    replies = len(seen.latencies)
    rows = [
        ["what happened", "how much"],
        ["requests", f"{seen.requests}"],
        ["  of them encrypted", f"{seen.encrypted}"],
        ["replies", f"{replies}"],
        ["con_lost", f"{len(seen.lost)}"],
        ["wrong replies", f"{seen.wrong}"],
        ["connections used", f"{connections}"],
        ["requests a second", f"{replies / seconds:.0f}"],
    ]
    for percent in (50, 99):
        rows.append([f"p{percent} of a reply", f"{_percentile(seen.latencies, percent):.1f} ms"])
    rows.append(["in use", fastpath.describe().partition(":")[0]])
    return rows


def _percentile(latencies: list[float], percent: int) -> float:
    """Return the latency, in milliseconds, that so many percent of the replies stayed within."""
    if not latencies:
        return 0.0
    return sorted(latencies)[(len(latencies) - 1) * percent // 100] * 1000
