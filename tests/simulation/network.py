"""Time, events, and connections in memory: what the broker takes for the kernel.

Nothing here has a thread or a real descriptor, and nothing is at random: all that happens was put
into the heap of events by the clients and the peers of a schedule.
"""

from __future__ import annotations

import errno
from heapq import heappop, heappush
from math import ceil, inf

READ, WRITE, HANGUP = 1, 2, 4

# All times are multiples of a tick, so that things often happen in the same moment.  A power of
# two, so that no sum of them is ever rounded.
TICKS = 1024
TICK = 1 / TICKS

# Passes of the loop in one moment.  A burst of pipelined lines takes some dozens.
SPINNING = 3000


class Stuck(Exception):
    """The loop spins, or waits for something that can never come."""


class Network:
    """The clock, the selector, and the events that make something happen on the ports.

    It has the part of the interface of `selectors.BaseSelector` that a poller uses.  `note` takes
    events of the trace, and `inspect()` is called before each wait.  With `hangups` it reports them
    as an epoll does: always, and as what they are; otherwise as the `selectors` of the standard
    library do, only where something is watched for, and as that.
    """

    def __init__(self, note, hangups, inspect):
        self.now = 4096.0
        self.note = note
        self.hangups = hangups
        self.ports = {}
        self.largest = 0
        self._inspect = inspect
        self._events = []
        self._number = 0
        # Ports that may be ready, in the order in which they became so.
        self._active = {}
        self._free = []
        self._passes = 0

    def clock(self):
        return self.now

    def after(self, ticks, call, argument=None):
        """Have `call(argument)` called so many ticks from now."""
        self._number += 1
        heappush(self._events, (self.now + ticks * TICK, self._number, call, argument))

    def connect(self, far):
        """Return the broker's end of a new connection; the lowest free descriptor, as a kernel."""
        fd = heappop(self._free) if self._free else 3 + len(self.ports)
        self.ports[fd] = port = Port(self, fd, far)
        return port

    # The selector.

    def register(self, fd, mask, data=None):
        port = self.ports[fd]
        port.mask = mask
        port.data = data
        self._active[port] = None

    modify = register

    def unregister(self, fd):
        self.ports[fd].mask = 0

    def select(self, timeout):
        """Let time pass until something is ready, or for `timeout` seconds; return the ready."""
        self._inspect()
        events = self._events
        # As an epoll does it: rounded up, so that a deadline has passed when the wait is over.
        limit = inf if timeout is None else ceil((self.now + timeout) * TICKS) * TICK
        while True:
            while events and events[0][0] <= self.now:
                _, _, call, argument = heappop(events)
                call(argument)
            if self._active:
                found = self._ready()
                if found:
                    self._passes += 1
                    if self._passes > SPINNING:
                        raise Stuck(f"the loop spins; ready: {found[:3]}")
                    return found
            if events and events[0][0] <= limit:
                self.now = events[0][0]
            elif limit == inf:
                raise Stuck("nothing can ever happen any more")
            elif self.now < limit:
                self.now = limit
            else:
                self._passes += not timeout
                if self._passes > SPINNING:
                    raise Stuck("the loop spins, and nothing is ready")
                return []
            self._passes = 0

    def _ready(self):
        found = []
        for port in list(self._active):
            mask = port.state & port.mask
            if port.state & HANGUP:
                mask = port.mask | HANGUP if self.hangups else port.mask
            if mask:
                found.append((port, mask))
            else:
                del self._active[port]
        return found

    def _changed(self, port):
        self._active[port] = None

    def _close(self, port):
        del self.ports[port.fd]
        self._active.pop(port, None)
        heappush(self._free, port.fd)


class Port:
    """The broker's end of a connection, as `Port` of the parts; `far` is who is at the other end.

    `far.received(data)` is called for each send, `far.stuck(left)` where not all was taken, and
    `far.closed(reset)` when the broker closes.  `room` is what the kernel still takes before
    somebody at the far end reads, None without end; `latest` is how much the last read gave,
    and `short`, unless 0, how much the next one gives at most.
    """

    __slots__ = (
        "closed",
        "data",
        "error",
        "eof",
        "far",
        "fd",
        "hung",
        "inbox",
        "latest",
        "mask",
        "network",
        "room",
        "short",
        "state",
    )

    def __init__(self, network, fd, far):
        self.network = network
        self.fd = fd
        self.far = far
        self.mask = 0
        self.data = None
        self.state = WRITE
        self.inbox = b""
        self.short = 0
        self.latest = 0
        self.room = None
        self.eof = self.error = self.hung = self.closed = False

    def __repr__(self):
        return f"<port {self.fd} mask {self.mask} state {self.state} of {self.far}>"

    # What the broker calls.

    def fileno(self):
        return self.fd

    def recv(self, size):
        network = self.network
        data = self.inbox
        if not data:
            if self.error:
                network.note((network.now, self.fd, b"recv failed"))
                raise OSError(errno.ECONNRESET, "")
            data = data if self.eof else None
        elif self.short or len(data) > size:
            cut = min(self.short or size, size)
            self.short = 0
            data, self.inbox = data[:cut], data[cut:]
        else:
            self.inbox = b""
        if not (self.inbox or self.eof or self.error):
            self.state &= ~READ
        if data:
            self.latest = len(data)
            if self.latest > network.largest:
                network.largest = self.latest
        network.note((network.now, self.fd, b"recv", data))
        return data

    def send(self, data):
        network = self.network
        if self.hung or self.error:
            network.note((network.now, self.fd, b"send failed"))
            raise OSError(errno.EPIPE, "")
        size = taken = len(data)
        if self.room is not None:
            taken = min(size, self.room)
            self.room -= taken
            if not self.room:
                self.state &= ~WRITE
            data = data[:taken]
        data = bytes(data)
        network.note((network.now, self.fd, b"send", data))
        if taken:
            self.far.received(data)
        if taken < size:
            self.far.stuck(size - taken)
        return taken

    def gone(self):
        return self.hung

    def close(self):
        self._end(False)

    def reset(self):
        self._end(True)

    def _end(self, reset):
        network = self.network
        network.note((network.now, self.fd, b"reset" if reset else b"close"))
        if self.closed:
            raise AssertionError("a descriptor was closed twice")
        self.closed = True
        network._close(self)
        self.far.closed(reset)

    # What the far end does.

    def deliver(self, data):
        """Let data arrive."""
        if not self.closed:
            self.inbox += data
            self.state |= READ
            self.network._changed(self)

    def shut(self, _=None):
        """The far end sends no more, and may still read."""
        if not self.closed:
            self.eof = True
            self.state |= READ
            self.network._changed(self)

    def hang_up(self, _=None):
        """The far end has closed altogether; what it sent before can still be read."""
        if not self.closed:
            self.hung = self.eof = True
            self.state |= READ | WRITE | HANGUP
            self.network._changed(self)

    def fail(self, _=None):
        """The connection is reset, and what was not read yet is lost."""
        if not self.closed:
            self.inbox = b""
            self.error = self.hung = True
            self.state |= READ | WRITE | HANGUP
            self.network._changed(self)

    def take(self, room):
        """Somebody read at the far end: let the kernel take `room` more bytes, None: all."""
        if not self.closed:
            self.room = None if room is None or self.room is None else self.room + room
            if self.room != 0:
                self.state |= WRITE
            self.network._changed(self)
