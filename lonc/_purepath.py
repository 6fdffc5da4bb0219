"""The steady path of a request in pure Python: the reference that `_fastpath` is held to.

What lives here is mechanism: buffers, ports, the poller, and the exchange that matches requests
with connections.  What to do when something leaves the ordinary is asked of a policy object
(`lonc.broker`), so nothing here dials, knows a dialect, keeps a budget, or writes a log.

The picture::

    Client --line--> Exchange.accept --> an idle Link, or the queue
                                            |
    Client <--reply-- Exchange.finish <-- Link <--line-- peer

    Client   reading -> waiting (has a transaction) -> writing (has unsent bytes) -> reading
    Link     PREPARING (policy speaks) -> IDLE <-> BUSY -> closed

Invariants, true whenever control is outside this module:

* a transaction that is not done is queued, or held by exactly one busy link, or in policy's hands;
* an idle link and a queued request exist side by side only until the next client phase, after a
  link failed and its request came back;
* `held` is the sum of all bytes kept for clients, links and transactions;
* `unread` and `unfinished` are in the order of their times, so that the oldest is always first.

No step recurses: a client whose next line is already there, and the callback of a transaction that
was submitted in process, wait in `Poller.resumed` for the client phase of a pass.

Nothing here makes a system call but through a port, a listener or the selector, and the only clock
is `Poller.now`.  That is what lets a whole broker run in a simulated network.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import sys
from collections import OrderedDict
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    # What was found ready, with its mask, by rank: peers, clients, listeners, watchers.
    _Ready = list[list[tuple[Any, int]]]

    class AnyPort(Protocol):
        """What a client or a link reads from and writes to; see `Port`."""

        def fileno(self) -> int: ...
        def recv(self, size: int) -> bytes | None: ...
        def send(self, data: bytes | memoryview) -> int: ...
        def gone(self) -> bool: ...
        def close(self) -> None: ...
        def reset(self) -> None: ...


READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE
HANGUP = 4

PREPARING = "preparing"
IDLE = "idle"
BUSY = "busy"
CLOSED = "closed"

CON_LOST = b"con_lost\n"

# Seconds, as many as the kernel takes: its milliseconds are an int. A pass too many does no harm.
LONGEST_WAIT = 2147483.0

# One read's size: a reply of 64 KiB comes in one, and a block above 128 KiB would be mapped and
# unmapped by the allocator each time.
RECEIVE = 98304
# A reply that arrives without end must let the others have their turn: 16 reads are 1.5 MiB.
READS_A_TURN = 16
# Accepting in batches nearly doubles the rate of new connections; 64 keeps a batch short.
ACCEPTS_A_TURN = 64
# Four octaves below a bucket's value are dropped: eight buckets an octave, 12 % wide at most.
BUCKETS = 320

EPOLLIN = getattr(select, "EPOLLIN", 0)
EPOLLOUT = getattr(select, "EPOLLOUT", 0)
EPOLLERR = getattr(select, "EPOLLERR", 0)
EPOLLHUP = getattr(select, "EPOLLHUP", 0)
EPOLLRDHUP = getattr(select, "EPOLLRDHUP", 0)

# Plain numbers: the enumerations of the standard library take longer to combine than a send.
_RECV_FLAGS = int(getattr(socket, "MSG_DONTWAIT", 0))
_SEND_FLAGS = _RECV_FLAGS | int(getattr(socket, "MSG_NOSIGNAL", 0))
_RESET = (1).to_bytes(4, sys.byteorder) + bytes(4)


def bucket_of(microseconds: int) -> int:
    """Return the index in `Exchange.latency` that counts a latency of so many microseconds."""
    if microseconds < 16:
        return microseconds
    shift = microseconds.bit_length() - 4
    bucket = shift * 8 + (microseconds >> shift)
    return bucket if bucket < BUCKETS else BUCKETS - 1


def bucket_floor(index: int) -> int:
    """Return the smallest latency, in microseconds, that bucket `index` counts."""
    if index < 16:
        return index
    shift = index // 8 - 1
    return (index - shift * 8) << shift


class Buffer:
    """Bytes that arrived and wait to be taken, with a memory of how far they were searched.

    ::

        taken and gone | searched, no LF in it | not searched yet |
                       0                       _searched          len(buffer)

    Every operation costs time in proportion to the bytes that it moves, however they arrived.
    """

    __slots__ = ("_data", "_searched")

    def __init__(self) -> None:
        self._data = bytearray()
        self._searched = 0

    def __len__(self) -> int:
        return len(self._data)

    def append(self, data: bytes) -> None:
        """Put `data` (any bytes-like object) behind what is there."""
        self._data += data

    def line_end(self) -> int:
        """Return the length of the first line with its LF, or 0 while there is no whole line."""
        end = self._data.find(b"\n", self._searched) + 1
        self._searched = end - 1 if end else len(self._data)
        return end

    def peek(self, size: int) -> bytes:
        """Return a copy of the first `size` bytes, fewer if there are fewer; nothing is removed."""
        if size < 0:
            raise ValueError("a size cannot be negative")
        return bytes(self._data[:size])

    def advance(self, size: int) -> None:
        """Remove the first `size` bytes; ValueError, and nothing removed, if there are fewer."""
        if not 0 <= size <= len(self._data):
            raise ValueError(f"cannot remove {size} of {len(self._data)} bytes")
        del self._data[:size]
        self._searched = max(0, self._searched - size)

    def take(self, size: int) -> bytes:
        """Remove the first `size` bytes and return them; ValueError if there are fewer."""
        taken = self.peek(size)
        self.advance(size)
        return taken

    def clear(self) -> None:
        """Remove everything and give the memory back."""
        self._data = bytearray()
        self._searched = 0


class Port:
    """A connected stream socket: the only place that receives and sends.

    `fd` is a descriptor that the port takes over.  An object with the same methods can stand in its
    place everywhere: a stream in memory, or TLS.
    """

    __slots__ = ("_socket",)

    def __init__(self, fd: int) -> None:
        # Family, type and protocol are given so that nothing is asked of the kernel.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
        if socket.getdefaulttimeout() is not None:
            self._socket.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor, -1 after `close`."""
        return self._socket.fileno()

    def recv(self, size: int) -> bytes | None:
        """Return up to `size` bytes, b"" at end of file, None if nothing is there now; OSError."""
        try:
            return self._socket.recv(size, _RECV_FLAGS)
        except BlockingIOError:
            return None

    def send(self, data: bytes | memoryview) -> int:
        """Return how many bytes the kernel took, 0 when it takes none now; OSError."""
        try:
            return self._socket.send(data, _SEND_FLAGS)
        except BlockingIOError:
            return 0

    def gone(self) -> bool:
        """Say whether the other side of a Unix socket has closed it altogether.

        A side that has only shut down its writing still takes bytes.
        """
        try:
            self._socket.send(b"", _SEND_FLAGS)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False

    def close(self) -> None:
        """Close the descriptor; what the kernel took is still delivered."""
        self._socket.close()

    def reset(self) -> None:
        """Close so that the other side sees an error, never a clean end of file."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            pass
        self._socket.close()


class _Epoll:
    """What a poller waits on where there is epoll.

    It sees hang-ups behind a mask of 0 too, and of a peer already that it has ended its side while
    there still is something to read.
    """

    __slots__ = ("_data", "_epoll")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._data: dict[int, tuple[int, Any]] = {}

    def set(self, fd: int, old: int | None, mask: int, data: Any) -> None:
        """Watch `fd`, which was watched for `old` (None: not at all), for `mask`."""
        events = EPOLLRDHUP if data[0] == 0 else 0
        events |= (EPOLLIN if mask & READ else 0) | (EPOLLOUT if mask & WRITE else 0)
        if old is None:
            self._epoll.register(fd, events)
        else:
            self._epoll.modify(fd, events)
        self._data[fd] = (mask, data)

    def unset(self, fd: int, mask: int) -> None:
        """Watch `fd` no more."""
        del self._data[fd]
        with contextlib.suppress(OSError):
            self._epoll.unregister(fd)

    def wait(self, timeout: float | None, ready: _Ready) -> None:
        """Put what is ready under its rank; a hang-up counts as all that was asked for."""
        try:
            events = self._epoll.poll(timeout, len(self._data) or 1)
        except InterruptedError:
            return
        data = self._data
        for fd, event in events:
            mask, (rank, handler) = data[fd]
            if event == EPOLLIN:
                found = READ
            else:
                found = READ if event & EPOLLIN else 0
                if event & EPOLLOUT:
                    found |= WRITE
                if event & EPOLLRDHUP:
                    found |= HANGUP
                if event & (EPOLLHUP | EPOLLERR):
                    found |= mask | HANGUP
            ready[rank].append((handler, found))

    def fileno(self) -> int:
        return self._epoll.fileno()

    def close(self) -> None:
        self._epoll.close()


class _Selector:
    """What a poller waits on elsewhere, or when it is given one: a standard selector."""

    __slots__ = ("_selector",)

    def __init__(self, selector: Any) -> None:
        self._selector = selector

    def set(self, fd: int, old: int | None, mask: int, data: Any) -> None:
        """Watch `fd`, which was watched for `old` (None: not at all), for `mask`."""
        if old and mask:
            self._selector.modify(fd, mask, data)
        elif mask:
            self._selector.register(fd, mask, data)
        elif old:
            self._selector.unregister(fd)

    def unset(self, fd: int, mask: int) -> None:
        """Watch `fd` no more."""
        if mask:
            self._selector.unregister(fd)

    def wait(self, timeout: float | None, ready: _Ready) -> None:
        """Put what is ready under its rank."""
        for key, mask in self._selector.select(timeout):
            rank, handler = key.data
            ready[rank].append((handler, mask))

    def fileno(self) -> int:
        try:
            return int(self._selector.fileno())
        except AttributeError:
            raise ValueError(f"{type(self._selector).__name__} has no descriptor") from None

    def close(self) -> None:
        self._selector.close()


def _own_waiter() -> _Epoll | _Selector:
    if hasattr(select, "epoll"):
        return _Epoll()
    return _Selector(selectors.DefaultSelector())


class Poller:
    """Waits for descriptors, and dispatches those that belong to clients, links and listeners.

    `selector` has the interface of `selectors.BaseSelector`; by default the system's best one.
    `clock` returns seconds as a float and never goes back; by default `time.monotonic`.

    A descriptor with a mask of 0 stays known but is not watched.
    """

    def __init__(
        self,
        selector: Any = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._waiter = _own_waiter() if selector is None else _Selector(selector)
        self._owns_waiter = selector is None
        self._clock = monotonic if clock is None else clock
        self._entries: dict[int, tuple[int, tuple[int, Any]]] = {}
        self._ready: _Ready = [[], [], [], []]
        self.resumed: list[Any] = []
        self.died: Callable[[Any, BaseException], None] | None = None
        self.now = self._clock()

    def update(self) -> float:
        """Read the clock, and return `now`."""
        self.now = self._clock()
        return self.now

    def watch(self, fd: int, mask: int, handler: Any) -> None:
        """Have `wait` return `handler` when `fd` is ready for `mask`; KeyError if it is watched."""
        self._add(fd, mask, (3, handler))

    def modify(self, fd: int, mask: int) -> None:
        """Watch `fd` for `mask` from now on; KeyError if it is not watched."""
        old, data = self._entries[fd]
        if mask != old:
            self._waiter.set(fd, old, mask, data)
            self._entries[fd] = (mask, data)

    def discard(self, fd: int) -> None:
        """Forget `fd`, which is still open; KeyError if it is not watched."""
        mask, _ = self._entries.pop(fd)
        self._waiter.unset(fd, mask)

    def wait(self, timeout: float | None) -> list[tuple[Any, int]]:
        """Wait until something is ready, at most `timeout` seconds (None: without end).

        Sets `now`.  Returns the watchers' handlers that are ready, each with its mask; clients,
        links and listeners that are ready are kept for `serve`.
        """
        if self.resumed:
            timeout = 0
        elif timeout is not None and timeout > LONGEST_WAIT:
            timeout = LONGEST_WAIT
        self._waiter.wait(timeout, self._ready)
        self.now = self._clock()
        watchers = self._ready[3]
        if not watchers:
            return []
        self._ready[3] = []
        return [(handler, mask & (READ | WRITE)) for handler, mask in watchers if mask != HANGUP]

    def serve(self) -> bool:
        """Handle what `wait` kept: everything from peers, then from clients, then new clients.

        In this order, so that a link that was closed, or spoke out of turn, is never given a
        request that arrived in the same moment.  An exception goes to `died`, if that is set, and
        the others have their turn.  Returns whether there was anything to handle.
        """
        links, clients, listeners, _ = ready = self._ready
        if not (links or clients or listeners or self.resumed):
            return False
        # Replaced before anything is called, and only where needed: most passes have one kind.
        if links:
            ready[0] = []
        if clients:
            ready[1] = []
        if listeners:
            ready[2] = []
        if links:
            self._dispatch(links)
        if clients:
            self._dispatch(clients)
        if self.resumed:
            self._resume()
        if listeners:
            self._dispatch(listeners)
        return True

    def fileno(self) -> int:
        """Return a descriptor that is readable while something is ready; ValueError if none."""
        return self._waiter.fileno()

    def renew(self) -> None:
        """Replace the kernel's object, which a fork made common property, by a new one."""
        if self._owns_waiter:
            self._waiter.close()
            self._waiter = _own_waiter()
            for fd, (mask, data) in self._entries.items():
                self._waiter.set(fd, None, mask, data)

    def close(self) -> None:
        """Forget all descriptors, without closing them, and close a selector of our own."""
        for fd in list(self._entries):
            self.discard(fd)
        if self._owns_waiter:
            self._waiter.close()

    def _add(self, fd: int, mask: int, data: tuple[int, Any]) -> None:
        if fd in self._entries:
            raise KeyError(f"descriptor {fd} is watched already")
        self._waiter.set(fd, None, mask, data)
        self._entries[fd] = (mask, data)

    def _dispatch(self, ready: list[tuple[Any, int]]) -> None:
        for handler, mask in ready:
            try:
                handler.ready(mask)
            except Exception as error:
                self._fail(handler, error)

    def _resume(self) -> None:
        batch = self.resumed
        self.resumed = []
        done = 0
        try:
            for each in batch:
                done += 1
                try:
                    each.resume()
                except Exception as error:
                    self._fail(each, error)
        finally:
            # What ends the loop must not take along what others wait for.
            self.resumed[:0] = batch[done:]

    def _fail(self, handler: Any, error: Exception) -> None:
        if self.died is None:
            raise error
        self.died(handler, error)


class Transaction:
    """One request, from the moment it was taken until it ends, which it does exactly once.

    `line` is the request with its LF, `client` the client that waits for it or None, `callback`
    what is called with the transaction when it has ended.  When it has: `reply` is the peer's line
    without its LF, or None; then `lost` says why.  `sent` counts the bytes that were handed to the
    kernel on its behalf: after 0 the request was certainly not executed.

    `queued` says that it waits for a link, `since` when it was taken.  `plan` belongs to policy: a
    transaction that has one is not written and answered as it is, but handed to policy when it
    gets a link, and again with its reply.
    """

    __slots__ = (
        "background",
        "callback",
        "client",
        "done",
        "line",
        "lost",
        "plan",
        "queued",
        "reply",
        "sent",
        "since",
    )

    def __init__(
        self,
        line: bytes,
        client: Client | None = None,
        callback: Callable[[Transaction], object] | None = None,
        background: bool = False,
    ) -> None:
        self.line = line
        self.client = client
        self.callback = callback
        self.background = background
        self.plan: Any = None
        self.queued = False
        self.since = 0.0
        self.sent = 0
        self.reply: bytes | None = None
        self.lost: str | None = None
        self.done = False

    def resume(self) -> None:
        """Tell the one who submitted it that it has ended."""
        if self.callback is not None:
            self.callback(self)


class Client:
    """A local connection: takes one line, waits for its reply, writes it, takes the next."""

    rank = 1

    __slots__ = (
        "buffer",
        "closed",
        "eof",
        "exchange",
        "fd",
        "last",
        "mask",
        "port",
        "transaction",
        "unsent",
    )

    def __init__(self, exchange: Exchange, port: AnyPort) -> None:
        self.exchange = exchange
        self.port = port
        self.fd = port.fileno()
        self.buffer: Buffer | None = None
        self.transaction: Transaction | None = None
        self.unsent: memoryview | None = None
        self.eof = False
        self.last = False
        self.closed = False
        self.mask = READ
        exchange.poller._add(self.fd, READ, (1, self))

    def ready(self, mask: int) -> None:
        """Handle what the poller saw on the connection."""
        if self.closed:
            return
        if mask & WRITE and self.unsent is not None:
            self._flush()
            if self.closed:
                return
        if mask & READ and self.mask & READ:
            self._receive()
        elif mask & HANGUP:
            self.hang_up()

    def resume(self) -> None:
        """Take the next line, if the last one was answered meanwhile."""
        if not self.closed and self.transaction is None and self.unsent is None:
            self._next_line()

    def reply(self, data: bytes) -> None:
        """Send the reply to the transaction, which has ended."""
        self.transaction = None
        try:
            sent = self.port.send(data)
        except OSError:
            self.hang_up()
            return
        if sent == len(data):
            self._written()
            return
        exchange = self.exchange
        self.unsent = memoryview(data)[sent:]
        exchange.held += len(self.unsent)
        exchange.unread[self] = exchange.poller.now
        exchange._arm()
        self._watch(self.mask | WRITE)

    def refuse(self) -> None:
        """Answer `con_lost` in place of what was kept of a line, and close."""
        self._drop_buffer()
        self.last = True
        self._watch(self.mask & ~READ)
        if self.transaction is None and self.unsent is None:
            self.exchange.requests += 1
            self.exchange.con_lost += 1
            self.reply(CON_LOST)

    def hang_up(self) -> None:
        """Close after the other side has gone.

        Its request goes on, unless it still waits for a link and `drop_abandoned` is set.
        """
        transaction = self.transaction
        self.close()
        if transaction is not None:
            exchange = self.exchange
            exchange.abandoned += 1
            if exchange.drop_abandoned and transaction.queued:
                exchange.finish(transaction, None, "the client has gone")

    def close(self) -> None:
        """Close the connection; a reply for it is thrown away."""
        if self.closed:
            return
        self.closed = True
        exchange = self.exchange
        if self.transaction is not None:
            self.transaction.client = None
            self.transaction = None
        if self.unsent is not None:
            exchange.held -= len(self.unsent)
            del exchange.unread[self]
            self.unsent = None
        self._drop_buffer()
        exchange.poller.discard(self.fd)
        self.port.close()
        exchange._client_left(self)

    def _receive(self) -> None:
        try:
            data = self.port.recv(RECEIVE)
        except OSError:
            self.hang_up()
            return
        if data is None:
            return
        if not data:
            self._end_of_file()
        elif self.transaction is not None or self.unsent is not None:
            self._keep_early(data)
        elif self.buffer is not None:
            self._keep(data)
            self._next_line()
        else:
            end = data.find(b"\n") + 1
            if not end or end - 1 > self.exchange.max_request:
                self._keep(data)
                self._next_line()
            else:
                if end < len(data):
                    self._keep_early(data[end:])
                    data = data[:end]
                if not self.last:
                    self.exchange.accept(self, data)

    def _keep(self, data: bytes) -> None:
        exchange = self.exchange
        if self.last:
            return
        if exchange.held + len(data) > exchange.max_buffered:
            exchange.policy.trouble("max_buffered", len(data))
            self.refuse()
            return
        if self.buffer is None:
            self.buffer = Buffer()
        self.buffer.append(data)
        exchange.held += len(data)

    def _keep_early(self, data: bytes) -> None:
        """Keep what was sent before the reply; when that is much, read no more for now."""
        self._keep(data)
        if self.buffer is not None and len(self.buffer) >= self.exchange.max_early:
            self._watch(self.mask & ~READ)

    def _drop_buffer(self) -> None:
        if self.buffer is not None:
            self.exchange.held -= len(self.buffer)
            self.exchange.unfinished.pop(self, None)
            self.buffer = None

    def _next_line(self) -> None:
        """Take the next line off the buffer and submit it, or go on reading."""
        exchange = self.exchange
        buffer = self.buffer
        if self.last or self.closed:
            return
        end = 0 if buffer is None else buffer.line_end()
        if buffer is not None and (end - 1 if end else len(buffer)) > exchange.max_request:
            exchange.policy.trouble("max_request", len(buffer))
            self.refuse()
        elif buffer is not None and end:
            line = buffer.take(end)
            exchange.held -= end
            exchange.unfinished.pop(self, None)
            if not len(buffer):
                self.buffer = None
            if self.eof or len(buffer) >= exchange.max_early:
                self._watch(self.mask & ~READ)
            else:
                self._watch(self.mask | READ)
            exchange.accept(self, line)
        elif self.eof:
            if buffer is not None:
                exchange.policy.trouble("cut_line", len(buffer))
            self.close()
        else:
            self._watch(self.mask | READ)
            if buffer is not None and self not in exchange.unfinished:
                exchange.unfinished[self] = exchange.poller.now
                exchange._arm()

    def _end_of_file(self) -> None:
        self.eof = True
        if self.transaction is None and self.unsent is None:
            self._next_line()
        elif self.port.gone():
            self.hang_up()
        else:
            self._watch(self.mask & ~READ)

    def _flush(self) -> None:
        assert self.unsent is not None
        try:
            sent = self.port.send(self.unsent)
        except OSError:
            self.hang_up()
            return
        if not sent:
            return
        exchange = self.exchange
        exchange.held -= sent
        del exchange.unread[self]
        if sent < len(self.unsent):
            self.unsent = self.unsent[sent:]
            exchange.unread[self] = exchange.poller.now
        else:
            self.unsent = None
            self._watch(self.mask & ~WRITE)
            self._written()

    def _written(self) -> None:
        """Go on after a whole reply: take the next line in the client phase, read, or close."""
        if self.last or self.exchange.draining or (self.eof and self.buffer is None):
            self.close()
        elif self.buffer is not None:
            self.exchange.poller.resumed.append(self)

    def _watch(self, mask: int) -> None:
        if mask != self.mask and not self.closed:
            self.mask = mask
            self.exchange.poller.modify(self.fd, mask)


class Link:
    """A connection to the peer.  It carries one request at a time.

    `state` is PREPARING while policy leads the dialogue, IDLE on the stack, BUSY with a
    transaction, CLOSED.  `data` belongs to policy.  `answered` counts its replies, `started` is
    when it got its transaction, `progress` when it last sent or received a byte, and `idle_since`
    when it last became idle.  `last` is set for a link that is to be retired after its reply, and
    `late` by policy for one whose peer did not reply in time.  `_kept` is how much of its buffer is
    counted in `Exchange.held`.  `_ended` is set when the peer has ended its side, where that is
    seen before the last of what it said is read: a request written now would be lost.
    """

    rank = 0

    __slots__ = (
        "_ended",
        "_kept",
        "answered",
        "buffer",
        "cut",
        "data",
        "exchange",
        "fd",
        "idle_since",
        "last",
        "late",
        "out",
        "port",
        "progress",
        "started",
        "state",
        "transaction",
    )

    def __init__(self, exchange: Exchange, port: AnyPort, data: Any) -> None:
        self.exchange = exchange
        self.port = port
        self.fd = port.fileno()
        self.data = data
        self.buffer = Buffer()
        self._kept = 0
        self._ended = False
        self.out: memoryview | None = None
        self.cut = False
        self.last = False
        self.late = False
        self.transaction: Transaction | None = None
        self.state = PREPARING
        self.answered = 0
        self.started = self.progress = self.idle_since = exchange.poller.now
        exchange.poller._add(self.fd, READ, (0, self))

    def ready(self, mask: int) -> None:
        """Handle what the poller saw on the connection."""
        if mask & WRITE and self.out is not None:
            self._flush()
        if mask & HANGUP:
            self._ended = True
        if mask & (READ | HANGUP) and self.state != CLOSED:
            self._receive()

    def write(self, data: bytes) -> None:
        """Send one line; what the kernel does not take now follows when it does.

        If the connection fails the link is lost.
        """
        try:
            sent = self.port.send(data)
        except OSError as error:
            self.exchange.lose(self, _reason("sending", error))
            return
        if self.transaction is not None:
            self.transaction.sent += sent
        if sent < len(data):
            self.out = memoryview(data)[sent:]
            self.cut = sent > 0
            self.exchange.poller.modify(self.fd, READ | WRITE)

    def _flush(self) -> None:
        assert self.out is not None
        try:
            sent = self.port.send(self.out)
        except OSError as error:
            self.exchange.lose(self, _reason("sending", error))
            return
        if not sent:
            return
        self.progress = self.exchange.poller.now
        if self.transaction is not None:
            self.transaction.sent += sent
        if sent < len(self.out):
            self.out = self.out[sent:]
            self.cut = True
        else:
            self.out = None
            self.cut = False
            self.exchange.poller.modify(self.fd, READ)

    def _receive(self) -> None:
        """Read until a read comes back short, so that a surplus behind the line is seen."""
        exchange = self.exchange
        buffer = self.buffer
        turn = 0
        while True:
            turn += 1
            try:
                data = self.port.recv(RECEIVE)
            except OSError as error:
                exchange.lose(self, _reason("receiving", error))
                return
            if data is None:
                break
            if not data:
                exchange.lose(self, "the peer closed the connection")
                return
            if self.state == IDLE:
                exchange.lose(self, "the peer spoke on an idle connection")
                return
            self.progress = exchange.poller.now
            size = self._kept + len(data)
            if size - 1 > exchange.max_reply:
                exchange.policy.trouble("max_reply", size)
                exchange.lose(self, "the reply is longer than max_reply")
                return
            whole = len(data) < RECEIVE
            if (
                whole
                and not self._kept
                # It counts although it is not kept here: its client may not take it.
                and (self.state != BUSY or exchange.held + len(data) <= exchange.max_buffered)
                and data.find(b"\n") == len(data) - 1
            ):
                self._line(data)
                return
            buffer.append(data)
            self._kept = size
            exchange.held += len(data)
            if exchange.held > exchange.max_buffered:
                exchange.policy.trouble("max_buffered", size)
                exchange.lose(self, "max_buffered is used up")
                return
            if whole:
                break
            if turn >= READS_A_TURN and not data.endswith(b"\n"):
                return
        end = buffer.line_end()
        if not end:
            return
        if end < self._kept:
            exchange.lose(self, "the peer sent more than one line")
            return
        exchange.held -= end
        self._kept = 0
        line = buffer.take(end)
        self._line(line)

    def _line(self, line: bytes) -> None:
        exchange = self.exchange
        if self.out is not None:
            exchange.lose(self, "the peer answered before the request was written")
            return
        transaction = self.transaction
        if transaction is None:
            exchange.policy.heard(self, line)
        elif transaction.plan is not None or (exchange.sealed and line.startswith(b"enc:")):
            exchange.policy.answered(self, transaction, line)
        else:
            exchange.answer(self, line)


class Listener:
    """A listening Unix socket, whose clients go to the exchange.  `sock` is non-blocking."""

    rank = 2

    __slots__ = ("closed", "exchange", "fd", "sock")

    def __init__(self, exchange: Exchange, sock: socket.socket) -> None:
        self.exchange = exchange
        self.sock = sock
        self.fd = sock.fileno()
        self.closed = False
        exchange.poller._add(self.fd, READ if exchange.accepting else 0, (2, self))

    def ready(self, mask: int) -> None:
        """Accept a batch of clients."""
        exchange = self.exchange
        for _ in range(ACCEPTS_A_TURN):
            if self.closed:
                return
            if len(exchange.clients) >= exchange.max_clients:
                exchange.accept_clients(False)
                return
            try:
                sock, _ = self.sock.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._pause(error)
                return
            port = Port(sock.detach())
            try:
                if exchange.admits is None or self._admit(port):
                    exchange.add_client(port)
                else:
                    port.close()
            except OSError as error:
                port.close()
                self._pause(error)
                return

    def close(self) -> None:
        """Stop accepting here; the socket itself is left open."""
        if not self.closed:
            self.closed = True
            self.exchange.poller.discard(self.fd)

    def _pause(self, error: OSError) -> None:
        self.exchange.accept_clients(False)
        self.exchange.policy.trouble("accept", error.errno or 0)

    def _admit(self, port: Port) -> bool:
        raw = port._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        uid = int.from_bytes(raw[4:8], sys.byteorder)
        gid = int.from_bytes(raw[8:12], sys.byteorder)
        assert self.exchange.admits is not None
        return self.exchange.admits(uid, gid)


class Exchange:
    """Matches requests with links, for one host.

    `policy` has these methods, all called from here and never needed on the steady path:

    ``dial()``
        a link is wanted: call `dialling` and see to it
    ``arm()``
        from now on there is a deadline: ask `overdue` in time, until it says that there is none
    ``special(transaction)``
        a line that begins with one of `special`: `finish` it, or give it a plan and `enqueue` it
    ``begin(link, transaction)``
        a transaction with a plan has got a link: write what is to be written
    ``answered(link, transaction, line)``
        the reply to one with a plan, or an encrypted one: `answer`, `lose`, or write on
    ``heard(link, line)``
        a line on a link that is being prepared: write on, `release`, or `lose`
    ``lost(link, reason, state, transaction)``
        a link was lost in that state; its transaction, if it had one, is done or waits again
    ``retire(link)``
        an idle link that has `last` set: `dismiss` it
    ``recovered()``
        a request was answered while `recovering` was set, which it no longer is
    ``trouble(kind, number)``
        `max_request`, `max_reply`, `max_buffered`, `max_queue` or `cut_line` with a size in bytes
        (requests waiting for `max_queue`), or `accept` with an errno
    ``drained()``
        `draining`, and no client and no transaction is left

    The limits and timeouts (bytes, numbers, seconds) are plain attributes that policy sets at any
    time.  `dial_at` is the time before which no link is to be opened, and `refusing` is set while
    no request is to wait for one.
    """

    __slots__ = (
        "_matching",
        "abandoned",
        "accepted",
        "accepting",
        "admits",
        "asked",
        "attempts",
        "background",
        "client_timeout",
        "clients",
        "con_lost",
        "dial_at",
        "draining",
        "drop_abandoned",
        "empty_is_request",
        "held",
        "idle",
        "latency",
        "links",
        "listeners",
        "max_buffered",
        "max_clients",
        "max_connections",
        "max_dialling",
        "max_early",
        "max_queue",
        "max_reply",
        "max_request",
        "outstanding",
        "policy",
        "poller",
        "queue",
        "queue_timeout",
        "recovering",
        "refusing",
        "replies",
        "reply_timeout",
        "requests",
        "sealed",
        "special",
        "timed",
        "transaction_timeout",
        "unfinished",
        "unread",
        "usable",
    )

    def __init__(self, poller: Poller, policy: Any) -> None:
        self.poller = poller
        self.policy = policy

        self.max_connections = 10
        self.max_dialling = 3
        self.max_queue = 10000
        self.max_clients = 1 << 30
        self.max_request = 8 << 20
        self.max_reply = 64 << 20
        self.max_early = 64 << 10
        self.max_buffered = 256 << 20
        self.queue_timeout = 60.0
        self.reply_timeout = 130.0
        self.transaction_timeout = 600.0
        self.client_timeout = 60.0
        self.drop_abandoned = False
        self.special: tuple[bytes, ...] = ()
        self.sealed = False
        self.empty_is_request = True
        self.admits: Callable[[int, int], bool] | None = None

        self.dial_at = 0.0
        self.refusing = False
        self.recovering = False
        self.draining = False
        self.timed = False
        self.accepting = True

        self.clients: dict[Client, None] = {}
        self.links: dict[Link, None] = {}
        self.listeners: list[Listener] = []
        self.idle: list[Link] = []
        # Ordered dictionaries, because one may leave from the middle in constant time.
        self.queue: OrderedDict[Transaction, None] = OrderedDict()
        self.background: OrderedDict[Transaction, None] = OrderedDict()
        self.unread: dict[Client, float] = {}
        self.unfinished: dict[Client, float] = {}

        self.attempts = 0
        self.usable = 0
        self.outstanding = 0
        self.held = 0
        self.asked = float("-inf")
        self._matching = False

        self.accepted = 0
        self.requests = 0
        self.replies = 0
        self.con_lost = 0
        self.abandoned = 0
        self.latency = [0] * BUCKETS

    # -- clients ---------------------------------------------------------------------------------

    def listen(self, sock: socket.socket) -> Listener:
        """Accept clients from `sock`, a non-blocking listening Unix socket."""
        listener = Listener(self, sock)
        self.listeners.append(listener)
        return listener

    def accept_clients(self, accepting: bool) -> None:
        """Go on accepting, or leave new clients in the kernel's backlog."""
        self.accepting = accepting
        for listener in self.listeners:
            if not listener.closed:
                self.poller.modify(listener.fd, READ if accepting else 0)

    def add_client(self, port: AnyPort) -> Client:
        """Serve a client on `port`, which the exchange closes."""
        client = Client(self, port)
        self.clients[client] = None
        self.accepted += 1
        return client

    def _client_left(self, client: Client) -> None:
        del self.clients[client]
        if not self.accepting and len(self.clients) == self.max_clients - 1:
            self.accept_clients(True)
        self._maybe_drained()

    # -- requests --------------------------------------------------------------------------------

    def accept(self, client: Client, line: bytes) -> None:
        """Make a transaction of a client's line (with its LF), and see to it."""
        transaction = Transaction(line, client)
        client.transaction = transaction
        self._take(transaction)

    def submit(
        self,
        line: bytes,
        callback: Callable[[Transaction], object],
        background: bool = False,
    ) -> Transaction:
        """Make a transaction of `line` (with its LF) that ends with `callback(transaction)`.

        The callback is never called from here, but in a later client phase.  A `background` one
        gets a link only when no other request waits.
        """
        transaction = Transaction(line, None, callback, background)
        self._take(transaction)
        return transaction

    def _take(self, transaction: Transaction) -> None:
        line = transaction.line
        self.requests += 1
        self.outstanding += 1
        self.held += len(line)
        transaction.since = self.poller.now
        if self.held > self.max_buffered:
            self.policy.trouble("max_buffered", len(line))
            if transaction.client is not None:
                transaction.client.last = True
            self.finish(transaction, None, "max_buffered is used up")
        elif line == b"\n" and not self.empty_is_request:
            self.finish(transaction, None, "the request is empty")
        elif self.special and line.startswith(self.special):
            self.policy.special(transaction)
        else:
            self.enqueue(transaction)

    def enqueue(self, transaction: Transaction) -> None:
        """Give a new transaction to an idle link, or let it wait for one, or fail it at once."""
        self.asked = self.poller.now
        # One that has no client may come before what the peers say was looked at.
        if self.idle and not self._matching and transaction.client is not None:
            self._give(self.idle.pop(), transaction)
            return
        waiting = len(self.queue) + len(self.background)
        if waiting >= self.max_queue + len(self.idle):
            self.policy.trouble("max_queue", waiting)
            self.finish(transaction, None, "max_queue requests are waiting")
        elif not self.usable and (
            self.refusing or (not self.attempts and self.poller.now < self.dial_at)
        ):
            self.finish(transaction, None, "the host is down")
        else:
            transaction.queued = True
            (self.background if transaction.background else self.queue)[transaction] = None
            self._arm()
            self._match_soon()

    def answer(self, link: Link, reply: bytes, keep: bool = False) -> None:
        """End a busy link's transaction with `reply` (with its LF); the link takes the next one.

        With `keep` it goes back into policy's hands instead, as if it were being prepared.
        """
        transaction = link.transaction
        assert transaction is not None
        link.transaction = None
        link.answered += 1
        self.replies += 1
        self.latency[bucket_of(int((self.poller.now - transaction.since) * 1e6))] += 1
        self.finish(transaction, reply, None)
        if self.recovering:
            self.recovering = False
            self.policy.recovered()
        if link.state != BUSY:
            return
        if keep:
            link.state = PREPARING
            self.usable -= 1
            self.attempts += 1
        else:
            self._next(link)

    def finish(self, transaction: Transaction, reply: bytes | None, lost: str | None) -> None:
        """End a transaction: with `reply` (a line with its LF), or, if that is None, as `lost`.

        This is the only place where one ends.  It must not be held by a link.
        """
        assert not transaction.done, "a transaction ends only once"
        transaction.done = True
        if transaction.queued:
            transaction.queued = False
            del (self.background if transaction.background else self.queue)[transaction]
        self.outstanding -= 1
        self.held -= len(transaction.line)
        if reply is None:
            self.con_lost += 1
            transaction.lost = lost
        client = transaction.client
        if client is not None:
            client.reply(CON_LOST if reply is None else reply)
        elif transaction.callback is not None:
            if reply is not None:
                transaction.reply = reply[:-1]
            self.poller.resumed.append(transaction)
        if self.draining:
            self._maybe_drained()

    def fail_queue(self, lost: str) -> int:
        """End everything that waits for a link; return how many requests that were."""
        failed = [*self.queue, *self.background]
        for transaction in failed:
            self.finish(transaction, None, lost)
        return len(failed)

    # -- links -----------------------------------------------------------------------------------

    def want(self) -> None:
        """Ask for one more link, where requests wait that no idle one takes, within the limits."""
        if (
            self.attempts + self.usable < self.max_connections
            and self.attempts < self.max_dialling
            and self.attempts + len(self.idle) < len(self.queue) + len(self.background)
            and self.poller.now >= self.dial_at
        ):
            self.policy.dial()

    def dialling(self) -> None:
        """Count an attempt to open a link, until `dial_failed`, `release`, or the link's loss."""
        self.attempts += 1

    def dial_failed(self) -> None:
        """Count an attempt as ended without a link."""
        self.attempts -= 1

    def add_link(self, port: AnyPort, data: Any = None) -> Link:
        """Take over a connection that an attempt has opened; policy leads the dialogue on it."""
        link = Link(self, port, data)
        self.links[link] = None
        return link

    def release(self, link: Link) -> None:
        """The dialogue is over: the link takes a request, or becomes idle."""
        assert link.state == PREPARING
        self.attempts -= 1
        self.usable += 1
        self._next(link)
        self._arm()
        self.want()

    def lose(self, link: Link, reason: str, retry: bool = True) -> None:
        """Close a link that failed.

        A request of which no byte was handed to the kernel waits again, before all others, unless
        `retry` is False; one that was written, in part or whole, ends as `con_lost`.  A line that
        was begun and is not whole must not look whole to the peer: then the connection is reset.
        """
        state = link.state
        if state == CLOSED:
            return
        transaction = link.transaction
        self._close(link, reset=link.cut)
        if transaction is not None:
            if transaction.sent or not retry:
                self.finish(transaction, None, reason)
            else:
                transaction.queued = True
                queue = self.background if transaction.background else self.queue
                queue[transaction] = None
                queue.move_to_end(transaction, last=False)
        self.policy.lost(link, reason, state, transaction)
        self._match_soon()

    def decline(self, link: Link, reason: str) -> None:
        """End a busy link's transaction, of which nothing was written, as lost; keep the link."""
        transaction = link.transaction
        assert transaction is not None
        link.transaction = None
        self.finish(transaction, None, reason)
        link.state = IDLE
        link.idle_since = self.poller.now
        self.idle.append(link)
        self._match_soon()

    def dismiss(self, link: Link, farewell: bytes) -> None:
        """Close an idle link in good order; `farewell` is written without waiting."""
        assert link.state == IDLE
        if farewell:
            try:
                link.port.send(farewell)
            except OSError:
                pass
        self._close(link, reset=False)

    def _close(self, link: Link, reset: bool) -> None:
        if link.state == PREPARING:
            self.attempts -= 1
        else:
            self.usable -= 1
            if link.state == IDLE:
                self.idle.remove(link)
        link.state = CLOSED
        link.transaction = None
        link.out = None
        self.held -= link._kept
        link._kept = 0
        link.buffer.clear()
        del self.links[link]
        self.poller.discard(link.fd)
        if reset:
            link.port.reset()
        else:
            link.port.close()

    def _give(self, link: Link, transaction: Transaction) -> None:
        link.state = BUSY
        link.transaction = transaction
        link.started = link.progress = self.poller.now
        if transaction.plan is None:
            link.write(transaction.line)
        else:
            self.policy.begin(link, transaction)

    def _next(self, link: Link) -> None:
        """Give a link the next request that waits, or put it on the idle stack, or end it."""
        transaction = None if link.last or link._ended else self._dequeue()
        if transaction is not None:
            self._give(link, transaction)
            return
        link.state = IDLE
        link.idle_since = self.poller.now
        self.idle.append(link)
        if link._ended:
            self.lose(link, "the peer closed the connection")
        elif link.last:
            self.policy.retire(link)
            self.want()

    def _dequeue(self) -> Transaction | None:
        while self.queue or self.background:
            transaction = next(iter(self.queue or self.background))
            client = transaction.client
            # One that is read from would have been noticed.
            if client is not None and not client.mask & READ and client.port.gone():
                client.hang_up()
                if transaction.done:
                    continue
            del (self.background if transaction.background else self.queue)[transaction]
            transaction.queued = False
            return transaction
        return None

    def _match_soon(self) -> None:
        """Have `resume` give idle links what waits; without any, ask for one.

        Not at once: an idle link may be ready in this very pass, because it was closed or holds a
        stray line, and be handled only after this.
        """
        if not self.idle:
            self.want()
        elif (self.queue or self.background) and not self._matching:
            self._matching = True
            self.poller.resumed.append(self)

    def resume(self) -> None:
        """Give idle links what waits.  A link that fails meanwhile is seen by the same loop."""
        self._matching = False
        while self.idle:
            transaction = self._dequeue()
            if transaction is None:
                break
            self._give(self.idle.pop(), transaction)
        self.want()

    # -- time ------------------------------------------------------------------------------------

    def overdue(self) -> tuple[list[Transaction], list[Client], list[tuple[Link, str]], float]:
        """Return what has passed its deadline, and when to ask again; nothing is changed.

        That is: requests that have waited too long; clients whose line, or whose reading of a
        reply, stands still; busy links, each with the name of the timeout that passed; and a time,
        infinity while there is nothing that could pass a deadline.
        """
        now = self.poller.now
        requests: list[Transaction] = []
        clients: list[Client] = []
        links: list[tuple[Link, str]] = []
        if not (self.usable or self.queue or self.background or self.unfinished or self.unread):
            return requests, clients, links, float("inf")
        # What begins to wait after this moment cannot be due before the shortest timeout.
        later = now + min(
            self.queue_timeout, self.client_timeout, self.reply_timeout, self.transaction_timeout
        )
        for queue in (self.queue, self.background):
            for transaction in queue:
                deadline = transaction.since + self.queue_timeout
                if deadline > now:
                    later = min(later, deadline)
                    break
                requests.append(transaction)
        for waiting in (self.unfinished, self.unread):
            for client, since in waiting.items():
                deadline = since + self.client_timeout
                if deadline > now:
                    later = min(later, deadline)
                    break
                clients.append(client)
        for link in self.links:
            if link.state == BUSY:
                silent = link.progress + self.reply_timeout
                total = link.started + self.transaction_timeout
                if silent <= now:
                    links.append((link, "reply_timeout"))
                elif total <= now:
                    links.append((link, "transaction_timeout"))
                else:
                    later = min(later, silent, total)
        return requests, clients, links, later

    def _arm(self) -> None:
        if not self.timed:
            self.timed = True
            self.policy.arm()

    # -- the end ---------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take no new clients and no new lines; clients that wait for nothing are closed."""
        self.draining = True
        for listener in self.listeners:
            listener.close()
        for client in list(self.clients):
            if client.transaction is None and client.unsent is None:
                client.close()
        self._maybe_drained()

    def _maybe_drained(self) -> None:
        if self.draining and not self.clients and not self.outstanding:
            self.policy.drained()


def _reason(doing: str, error: OSError) -> str:
    return f"{doing} failed: {os.strerror(error.errno) if error.errno else error}"
