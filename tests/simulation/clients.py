"""Local clients: orderly ones, and all kinds of others."""

from __future__ import annotations

from collections import deque

from .network import TICKS, WRITE

CON_LOST = b"con_lost\n"
LOCAL = (b"reset_retries\n", b"close_connection_exit\n")

# What a client is like.
KEPT = "kept"
RECONNECTING = "reconnecting"
PIPELINING = "pipelining"
HALF_CLOSING = "half-closing"
CUTTING = "sends in pieces"
STALLING = "never ends its line"
DEAF = "never reads"
SLOW = "reads slowly"
EMPTY = "empty line"
OVERSIZED = "oversized line"
FAILING = "fails"
HABITS = (
    KEPT,
    RECONNECTING,
    PIPELINING,
    HALF_CLOSING,
    CUTTING,
    STALLING,
    DEAF,
    SLOW,
    EMPTY,
    OVERSIZED,
    FAILING,
)

# How one fails, and where its connection is then.
HANGS_UP = "hangs up"
RESETS = "is reset"
SHUTS = "half-closes"
FAULTS = (HANGS_UP, RESETS, SHUTS)
BETWEEN = "between requests"
IN_LINE = "line cut"
UNREAD = "line not read yet"
QUEUED = "queued"
GIVEN = "on a connection"
AHEAD = "more sent ahead"
READING = "reply cut"
STATES = (BETWEEN, IN_LINE, UNREAD, QUEUED, GIVEN, AHEAD, READING)
# What it does so that it gets there; the broker decides about the rest.
_PLANS = (BETWEEN, IN_LINE, UNREAD, QUEUED, GIVEN, GIVEN, AHEAD, READING)


class Client:
    """One connection, at its far end.

    `waiting` has the requests that were sent whole and not answered yet; `since` is when it began
    to wait for the answer to the first of them.
    """

    __slots__ = (
        "closing",
        "fault",
        "gone",
        "habit",
        "left",
        "partial",
        "plan",
        "port",
        "shut",
        "side",
        "since",
        "unended",
        "waiting",
        "world",
    )

    def __init__(self, world, habit):
        self.world = world
        self.habit = habit
        self.waiting = deque()
        self.partial = b""
        self.unended = False
        self.since = 0.0
        # It went away itself; it sends no more; the broker has reason to close.
        self.gone = False
        self.shut = False
        self.closing = False
        self.plan = self.fault = None
        random = world.random
        self.left = 1 if habit in (RECONNECTING, DEAF) else 1 + int(random() * 24)
        if habit == FAILING:
            self.plan = _PLANS[int(random() * len(_PLANS))]
            self.fault = FAULTS[int(random() * len(FAULTS))]
            self.left = 1 + int(random() * 3)
        self.port = world.network.connect(self)
        self.side = world.exchange.add_client(self.port)
        world.clients[self] = None
        self.say()

    # What the broker does, as its port tells it.

    def received(self, data):
        if self.partial:
            data = self.partial + data
            self.partial = b""
        if data[-1:] != b"\n":
            self.partial = data
            return
        world = self.world
        if not self.waiting:
            if world.weather.tight and self.unended and data == CON_LOST:
                return
            world.fail(f"a client heard {data!r} and had not asked")
        world.check_wait(self)
        request = self.waiting.popleft()
        if data != world.requests.executed.get(request):
            self._heard_other(request, data)
        self.since = world.network.now
        if not self.waiting:
            self._go_on(data == CON_LOST)

    def stuck(self, left):
        """A reply was not taken whole: from now on the broker waits for the client."""
        world = self.world
        random = world.random
        self.since = world.network.now
        if self.habit == SLOW:
            # Well within the shortest client_timeout of a schedule.
            pause = int(random() * TICKS)
            world.network.after(pause, self.port.take, 1 + int(random() * left))
        elif self.habit == DEAF:
            self.closing = True
            world.count("client", DEAF)
            self._must_be_closed()
        elif self.plan == READING:
            self.plan = None
            world.network.after(int(random() * 6), self.fail)

    def closed(self, reset):
        world = self.world
        if not (self.gone or world.ending):
            if not self.closing:
                world.check_wait(self)
            if not (self.closing or self.shut or world.weather.tight):
                world.fail(f"a client that {self.habit!r} was closed without a reason")
            if self.waiting and not self.closing and not world.weather.tight:
                world.fail("a client was closed without an answer")
        self.gone = True
        world.client_left(self)

    # What it does.

    def say(self, _=None):
        """Send the next request, or whatever it sends."""
        world = self.world
        if self.gone or self.shut or self.closing:
            return
        if not self.left or not world.left:
            self.leave()
            return
        self.left -= 1
        habit = self.habit
        if habit == KEPT or habit == RECONNECTING:
            self._send(world.requests.new(self.waiting))
            return
        getattr(self, _WAYS[habit])()

    def leave(self, _=None):
        """Close, all answers having been heard."""
        if not self.gone:
            self.gone = True
            self.world.network.after(0, self.port.hang_up)

    def fail(self, _=None):
        """Do what it is there for: fail, wherever its request is now."""
        if self.gone or self.shut:
            return
        self.world.count("client", self.fault, self._place())
        if self.fault == SHUTS:
            self._shut()
            self.port.take(None)
        else:
            self.gone = True
            self.waiting.clear()
            (self.port.hang_up if self.fault == HANGS_UP else self.port.fail)()

    def _place(self):
        side = self.side
        if side.unsent is not None:
            return READING
        transaction = side.transaction
        if len(self.waiting) > 1:
            return AHEAD
        if transaction is not None:
            return QUEUED if transaction.queued else GIVEN
        if self.waiting:
            return UNREAD
        return IN_LINE if self.unended else BETWEEN

    def _send(self, data):
        self.since = self.world.network.now
        self.port.deliver(data)

    def _requests(self, number):
        """Return some requests in one piece; the client waits for all of them from now on."""
        world = self.world
        self.since = world.network.now
        return b"".join([world.requests.new(self.waiting) for _ in range(number)])

    def _pipeline(self):
        world = self.world
        number = 2 + int(world.random() ** 3 * 20)
        world.count("client", PIPELINING)
        text = self._requests(number)
        self.port.short = int(world.random() * 60)
        cut = int(world.random() * len(text))
        self.port.deliver(text[:cut])
        world.network.after(int(world.random() * 3), self._send_ahead, text[cut:])

    def _send_ahead(self, data):
        """Send more while the answer to the first line is out; see whether it is read too early."""
        port = self.port
        if not port.closed:
            self.world.network.after(1, self._look_ahead)
            port.deliver(data)

    def _look_ahead(self, _):
        side = self.side
        if side.closed or side.transaction is None or side.buffer is None:
            return
        if len(side.buffer) >= self.world.settings.max_early + self.port.latest:
            self.world.fail("more than max_early was read from a client that waits")

    def _half_close(self):
        """Send a line or two and shut; the answers are due all the same."""
        world = self.world
        world.count("client", HALF_CLOSING)
        self.port.deliver(self._requests(1 + int(world.random() * 2.5)))
        if world.random() < 0.3:
            world.network.after(1 + int(world.random() * 6), self._shut)
        else:
            self._shut()

    def _shut(self, _=None):
        self.shut = True
        self.port.shut()

    def _cut(self):
        """Send a request in pieces, cut anywhere."""
        world = self.world
        world.count("client", CUTTING)
        text = self._requests(1)
        cut = 1 + int(world.random() * (len(text) - 1))
        self.unended = True
        self.port.deliver(text[:cut])
        world.network.after(int(world.random() * 60), self._send_rest, text[cut:])

    def _send_rest(self, data):
        if not self.port.closed:
            self.unended = False
            self.since = self.world.network.now
            self.port.deliver(data)

    def _stall(self):
        """Begin a line, and never end it; sometimes behind a whole one."""
        world = self.world
        world.count("client", STALLING)
        self.closing = True
        self.unended = True
        first = self._requests(1) if world.random() < 0.2 else b""
        self.port.deliver(first + b"put:"[: 1 + int(world.random() * 4)])
        if not first:
            self._must_be_closed()

    def _read_little(self):
        """Ask, and take less than the answer, or take it bit by bit."""
        world = self.world
        if self.habit == SLOW:
            world.count("client", SLOW)
        self._keep_room(int(world.random() * (8 if self.habit == DEAF else 30)))
        self._send(world.requests.new(self.waiting))

    def _keep_room(self, room):
        port = self.port
        port.room = room
        if not room:
            port.state &= ~WRITE

    def _be_empty(self):
        self.world.count("client", EMPTY)
        self.world.spend()
        self.waiting.append(b"\n")
        self._send(b"\n")

    def _be_oversized(self):
        """Send more than max_request in pieces, with or without an end."""
        world = self.world
        size = world.settings.max_request + 1 + int(world.random() * 40)
        if size > 20000:
            self._send(world.requests.new(self.waiting))
            return
        world.count("client", OVERSIZED)
        world.spend()
        self.closing = True
        # Nothing executes it, so only con_lost can be its answer.
        self.waiting.append(b"oversized")
        self.since = world.network.now
        cut = int(world.random() * size)
        self.port.deliver(b"o" * cut)
        end = b"\n" if world.random() < 0.5 else b""
        world.network.after(int(world.random() * 3), self.port.deliver, b"o" * (size - cut) + end)

    def _prepare_to_fail(self):
        world = self.world
        random = world.random
        after = world.network.after
        plan = self.plan
        if plan == READING:
            self._keep_room(int(random() * 8))
            self._send(world.requests.new(self.waiting))
        elif plan == IN_LINE:
            self.unended = self.closing = True
            self.port.deliver(b"put:7:some"[: 1 + int(random() * 10)])
            after(int(random() * 6), self.fail)
            self._must_be_closed()
        elif plan == BETWEEN:
            self._send(world.requests.new(self.waiting))
        elif plan == UNREAD:
            self._send(world.requests.new(self.waiting))
            self.fail()
        else:
            self.port.deliver(self._requests(2 + int(random() * 2) if plan == AHEAD else 1))
            after(1 + int(random() * (40 if plan == QUEUED else 6)), self.fail)

    def _go_on(self, lost):
        """All answers are there: think, then send the next request, or leave."""
        world = self.world
        if self.plan == BETWEEN:
            self.plan = None
            world.network.after(int(world.random() * 6), self.fail)
        roll = world.random() * 64
        ticks = int(roll) & 15
        if lost:
            # Whoever asks a host that is down again at once only hears con_lost again.
            ticks *= 200
        elif roll % 1 < 0.02:
            ticks *= 200
        world.network.after(ticks, self.say)

    def _heard_other(self, request, data):
        """The answer is not what the peer said to this very request."""
        world = self.world
        if data == CON_LOST and (request not in LOCAL or world.weather.tight):
            return
        if data == b"ok\n" and request in LOCAL:
            return
        if request == b"\n" and world.weather.dialect == "line" and data.startswith(b"empty:"):
            return
        world.fail(f"the answer to {request!r} was {data!r}")

    def _must_be_closed(self):
        """Fail unless the broker closes within client_timeout."""
        self._is_closed(self.world.network.now)

    def _is_closed(self, began):
        """Look again when client_timeout, which may be another by now, has passed."""
        if self.port.closed or self.shut:
            return
        world = self.world
        left = began + world.client_timeout + 1 - world.network.now
        if left <= 0:
            world.fail(f"a client that {self.habit!r} was not closed in time")
        world.network.after(int(left * TICKS) + 1, self._is_closed, began)


_WAYS = {
    PIPELINING: "_pipeline",
    HALF_CLOSING: "_half_close",
    CUTTING: "_cut",
    STALLING: "_stall",
    DEAF: "_read_little",
    SLOW: "_read_little",
    EMPTY: "_be_empty",
    OVERSIZED: "_be_oversized",
    FAILING: "_prepare_to_fail",
}
