"""A broker between clients and peers that a test holds by their sockets, byte for byte.

Everything is in one process and one thread: whatever waits for a byte lets the reactor make passes
meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct

from lonc.broker.broker import Broker
from lonc.broker.host import Host
from lonc.broker.settings import Settings
from lonc.reactor import Reactor
from tests.conftest import wait_until

CHALLENGE = b"123451061234567\n"
BUILDKEY = b"48213A0C9F07712345\n"
# Passes in a row that find nothing: whatever was on its way over loopback has arrived by then.
QUIET = 3
# More passes than anything here takes that does not spin.
MANY = 20_000


class RecordingLog:
    """Keeps what is logged."""

    def __init__(self):
        self.lines = []
        self.debugged = []

    def debug(self, text):
        self.debugged.append(text)

    def log(self, severity, text):
        assert severity in ("INFO", "SUCCESS", "WARNING", "CRITICAL")
        assert isinstance(text, str) and "\n" not in text
        self.lines.append((severity, text))

    def having(self, text):
        """The lines with `text` in them."""
        return [line for line in self.lines if text in line[1]]

    def only(self, text):
        """The severity of the one line with `text` in it."""
        [(severity, _)] = self.having(text)
        return severity


class SlowSelector(selectors.DefaultSelector):
    """Looks at real descriptors, and never waits for a clock that only the test moves."""

    def select(self, timeout=None):
        return super().select(0.001 if timeout is None or timeout > 0 else 0)


class Wire:
    """One end of a connection, held by the test."""

    def __init__(self, world, sock):
        sock.setblocking(False)
        self.world = world
        self.sock = sock
        self.kept = b""
        self.unsent = memoryview(b"")

    def send(self, data):
        """Send all of it."""
        left = memoryview(data)
        while left:
            with contextlib.suppress(BlockingIOError):
                left = left[self.sock.send(left) :]
            if left:
                self.world.step()

    def post(self, data):
        """Send it bit by bit, as `pump` is called."""
        self.unsent = memoryview(data)

    def pump(self):
        """Send as much of what was posted as goes now."""
        with contextlib.suppress(BlockingIOError):
            while self.unsent:
                self.unsent = self.unsent[self.sock.send(self.unsent) :]

    def fill(self, data):
        """Send all of it in one go, before the broker can look; the buffers must be made for it."""
        assert self.sock.send(data) == len(data)

    def line(self):
        """Wait for a line, and return it with its LF; there must be nothing behind it."""
        self.world.until(lambda: self._receive() or b"\n" in self.kept)
        line, self.kept = self.kept, b""
        assert line.endswith(b"\n") and line.count(b"\n") == 1, line[:100]
        return line

    def bytes(self, size):
        """Wait for so many bytes."""
        self.world.until(lambda: self._receive(size - len(self.kept)) or len(self.kept) >= size)
        taken, self.kept = self.kept[:size], self.kept[size:]
        return taken

    def rest(self):
        """Wait for the end of the stream; return what came before it.

        Raises ConnectionResetError where the stream does not end in good order.
        """
        self.world.until(lambda: self._receive() == "end")
        taken, self.kept = self.kept, b""
        return taken

    def silent(self):
        """Tell whether nothing comes, not even the end, when all has come to rest."""
        self.world.settle()
        return self._receive() is None and not self.kept

    def finish(self):
        """Send the end of the stream."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self):
        self.sock.close()

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _receive(self, size=1 << 30):
        """Keep what is there now, `size` bytes at most; return "end" at the end of the stream."""
        while size > 0:
            try:
                data = self.sock.recv(min(size, 1 << 20))
            except BlockingIOError:
                break
            if not data:
                return "end"
            self.kept += data
            size -= len(data)
        return None


class Peer:
    """A listening TCP socket; what is said on its connections is the test's affair."""

    def __init__(self, world, address="127.0.0.1", port=0, room=None):
        """`room` is how many bytes it takes before it reads; by default as the system likes."""
        self.world = world
        self.sock = socket.create_server((address, port))
        if room is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        self.sock.setblocking(False)
        self.address, self.port = self.sock.getsockname()
        self.wires = []

    def take(self):
        """Take a connection if one is there now, else return None."""
        try:
            sock, _ = self.sock.accept()
        except BlockingIOError:
            return None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = Wire(self.world, sock)
        self.wires.append(wire)
        return wire

    def accept(self):
        """Wait for a connection."""
        return self.world.until(self.take)

    def accept_after(self, client, data):
        """Wait for a connection while a client posts `data`."""
        client.post(data)
        return self.world.until(lambda: client.pump() or self.take())

    def greet(self, version="1.489", dialect="versioned"):
        """Wait for a connection, and hold a dialogue with it to the end."""
        wire = self.accept()
        for expected, answer in dialogue(version, dialect):
            assert wire.line() == expected
            wire.send(answer)
        return wire

    def close(self):
        self.sock.close()
        for wire in self.wires:
            wire.close()


def dialogue(version="1.489", dialect="versioned"):
    """The lines of a dialogue: (what lonc says, what the peer answers)."""
    steps = [(b"init\n", CHALLENGE), (CHALLENGE, b"ok\n")]
    if dialect == "versioned":
        steps += [(b"version\n", b"version:%b\n" % version.encode()), (b"sethost:msul1\n", b"ok\n")]
    return [*steps, (b"ekey\n", BUILDKEY)]


class World:
    """A reactor, a broker on it with a Unix socket in front, and everything around them.

    With `simulated` the clock moves only when the test says so: `pass_time`.
    """

    def __init__(self, parts, directory, simulated=False):
        self.parts = parts
        self.time = 1000.0
        self._selector = SlowSelector() if simulated else None
        self.reactor = Reactor(
            parts, selector=self._selector, clock=(lambda: self.time) if simulated else None
        )
        self.raised = []
        # How many requests lonc itself answers in this test.
        self.answered_here = 0
        self.reactor.died = lambda event, error: self.raised.append(error)
        self.log = RecordingLog()
        self.path = os.path.join(directory, "s")
        self.wires = []
        self.peers = []
        self.brokers = []
        self.socks = []

    # What there is

    def peer(self, **options):
        peer = Peer(self, **options)
        self.peers.append(peer)
        return peer

    def start(self, peer=None, dialect="line", *, address=None, port=None, **options):
        """Make the broker, for `peer` or for a port where nobody listens, and let clients in."""
        settings = {name: options.pop(name) for name in list(options) if name in Settings.rows()}
        host = Host(
            "msul1",
            address or (peer.address if peer else "127.0.0.1"),
            port or (peer.port if peer else self.free_port()),
            dialect,
            "msul2",
        )
        options = {"log": self.log, "random": lambda: 0.5} | options
        broker = Broker(self.reactor, host, Settings(**settings), **options)
        self.brokers.append(broker)
        sock = socket.socket(socket.AF_UNIX)
        self.socks.append(sock)
        sock.setblocking(False)
        sock.bind(self.path)
        sock.listen(4096)
        broker.listen(sock)
        return broker

    @property
    def broker(self):
        return self.brokers[0]

    @property
    def exchange(self):
        return self.broker.exchange

    def free_port(self):
        """A port where nobody listens, kept so until the end."""
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        self.wires.append(Wire(self, sock))
        return sock.getsockname()[1]

    def client(self, line=None):
        """A new client, which sends `line` at once, if that is given."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)
        wire = Wire(self, sock)
        self.wires.append(wire)
        if line is not None:
            wire.send(line)
        return wire

    def ask(self, line):
        """A new client's reply to one line."""
        client = self.client(line)
        reply = client.line()
        client.close()
        return reply

    def acquainted(self, peer, dialect="line"):
        """A client and a connection of the peer that have had one answer: the host is sound."""
        client = self.client(b"ping\n")
        link = peer.accept() if dialect == "line" else peer.greet(dialect=dialect)
        assert link.line() == b"ping\n"
        link.send(b"pong\n")
        assert client.line() == b"pong\n"
        self.settle()
        return client, link

    # What goes on

    def step(self):
        self.reactor.run_once(0.001)

    def until(self, condition):
        return wait_until(condition, step=self.step)

    def settle(self):
        """Make passes until all has come to rest."""
        quiet = passes = 0
        while quiet < QUIET:
            quiet = 0 if self.reactor.run_once(0.001) else quiet + 1
            passes += 1
            assert passes < MANY, "the loop does not come to rest"

    def pass_time(self, seconds):
        """Let all come to rest, then let the time pass, and let what is due be done."""
        self.settle()
        self.time += seconds
        self.settle()

    def close(self):
        """Close all, and see that nothing is left behind."""
        for broker in self.brokers:
            broker.close()
        self.settle()
        for wire in self.wires:
            wire.close()
        for peer in self.peers:
            peer.close()
        for sock in self.socks:
            sock.close()
        self.reactor.close()
        if self._selector is not None:
            self._selector.close()
        for error in self.raised:
            raise error
        for broker in self.brokers:
            exchange = broker.exchange
            left = {
                "held": exchange.held,
                "outstanding": exchange.outstanding,
                "attempts": exchange.attempts,
                "usable": exchange.usable,
                "clients": len(exchange.clients),
                "links": len(exchange.links),
                "idle": len(exchange.idle),
                "queue": len(exchange.queue) + len(exchange.background),
                "unread": len(exchange.unread),
                "unfinished": len(exchange.unfinished),
                "sessions": len(broker.sessions),
            }
            assert not any(left.values()), left
            assert exchange.requests == exchange.replies + exchange.con_lost + self.answered_here
