"""The other machine: a connector that leads to it, and peers that speak the dialects, and fail.

A peer is strict: what a broker must not send is a failure of the schedule.  Each has a plan of one
thing that it will do wrong, made when it is connected to: what, and in which state of the
connection.  So the faults are spread over all states, however short a connection stays in them.
"""

from __future__ import annotations

from lonc.wire.cipher import CipherUnavailable, new_cipher
from lonc.wire.dialects import (
    CHALLENGE_REPLIED,
    IDLE,
    INITIALIZED,
    READING_VERSION,
    RECEIVING_KEY,
    SETTING_HOST,
)
from lonc.wire.envelope import seal, session_key, unseal

from .network import TICKS

HOST = "msul1"
OTHER_HOST = "msul3"
OWN = "msul2"

# Further states, as the peer sees them.
UNSENT = "no byte taken"
PARTLY_SENT = "request cut"
SENT = "request whole"
PARTLY_ANSWERED = "reply cut"
SELECTING = "sethost"
RESTORING = "sethost back"

# What a peer does wrong.
CLOSES = "closes"
RESETS = "resets"
SILENT = "silent"
GARBAGE = "wrong line"
SURPLUS = "surplus"
LATE = "late"
ENDLESS = "endless"
TRICKLES = "trickles"

# What is counted beside faults.
SEALED = "encrypted request"

STEPS = {
    "classic": (INITIALIZED, CHALLENGE_REPLIED, RECEIVING_KEY),
    "versioned": (INITIALIZED, CHALLENGE_REPLIED, READING_VERSION, SETTING_HOST, RECEIVING_KEY),
    "line": (),
}

_ANSWERING = (CLOSES, RESETS, SILENT, GARBAGE, SURPLUS, LATE)
_TAKING = (CLOSES, RESETS, SILENT, GARBAGE, LATE)
FAULTS = {
    **dict.fromkeys(STEPS["versioned"], _ANSWERING),
    IDLE: (CLOSES, RESETS, GARBAGE, SURPLUS),
    UNSENT: _TAKING,
    PARTLY_SENT: _TAKING,
    SENT: _ANSWERING,
    PARTLY_ANSWERED: (CLOSES, RESETS, SILENT, SURPLUS, LATE, ENDLESS, TRICKLES),
    SELECTING: _ANSWERING,
    RESTORING: _ANSWERING,
}
# Where the sealed answer that cannot be opened is an ordinary reply.
_LINE_FAULTS = {**FAULTS, SENT: (CLOSES, RESETS, SILENT, SURPLUS, LATE)}


def states_of(dialect, uses_hosts):
    """Return the states in which a peer of a dialect can fail, the rarer ones more than once."""
    ready = (IDLE, UNSENT, PARTLY_SENT, SENT, PARTLY_ANSWERED)
    if dialect == "line":
        return ready
    more = (READING_VERSION, SETTING_HOST) * 3 if dialect == "versioned" else ()
    hosts = (SELECTING, RESTORING) * 25 if uses_hosts else ()
    return 5 * STEPS[dialect] + more + ready + (PARTLY_SENT, PARTLY_ANSWERED) + 5 * (SENT,) + hosts


class Peer:
    """One connection, at its far end."""

    __slots__ = (
        "challenge",
        "cipher",
        "countdown",
        "dead",
        "fault",
        "fault_at",
        "host",
        "inline",
        "key",
        "out_of_step",
        "kept",
        "left",
        "owes",
        "port",
        "reading",
        "spoiled",
        "stalled",
        "step",
        "steps",
        "world",
    )

    def __init__(self, world):
        self.world = world
        self.steps = STEPS[world.weather.dialect]
        self.step = 0
        self.kept = b""
        self.owes = False
        self.dead = False
        self.reading = self.stalled = False
        self.left = False
        self.spoiled = False
        self.out_of_step = False
        self.host = None
        self.inline = False
        self.key = self.cipher = None
        self.challenge = b""
        self.port = world.network.connect(self)
        world.connector.open += 1
        if self.steps:
            world.connector.talking += 1
        self._plan()
        if not self.steps:
            self._watch_out()

    # What the broker does, as its port tells it.

    def received(self, data):
        if self.out_of_step:
            self.world.fail("a connection was used that was closed, or held a stray line")
        if self.dead:
            return
        world = self.world
        if data in world.requests.background and world.exchange.queue and not self.stalled:
            world.fail("a request in the background went before one that waited")
        if self.left:
            world.fail("more was sent after the farewell")
        if self.kept:
            data = self.kept + data
        end = data.find(b"\n") + 1
        if not end:
            self.kept = data
            return
        if end < len(data):
            world.fail("two lines on a connection that carries one request at a time")
        self.kept = b""
        self.stalled = False
        if self.owes:
            world.fail("a line was sent before the last one was answered")
        if self.step < len(self.steps):
            self._dialogue(data)
        elif data[:4] == b"put:":
            if self.host not in (None, HOST):
                world.fail("a request was executed as another request's host")
            self._answer(SENT, world.requests.execute(data))
        else:
            self._special(data)

    def stuck(self, left):
        """The kernel took not all of a line, because this peer does not read."""
        if self.dead or self.reading:
            return
        self.stalled = True
        world = self.world
        port = self.port
        fault = self.fault
        world.count("peer", fault, PARTLY_SENT if self.kept else UNSENT)
        self.spoiled = fault != LATE
        ticks = 1 + int(world.random() * 8)
        if fault == CLOSES:
            self._die(port.shut, ticks)
        elif fault == RESETS:
            self._die(port.fail, ticks)
        elif fault == GARBAGE:
            world.network.after(ticks, port.deliver, b"too early\n")
        elif fault == LATE:
            self.reading = True
            world.network.after(ticks, port.take, int(world.random() * left))
            world.network.after(2 * ticks, self._read_on)

    def _read_on(self, _):
        self.reading = False
        self.port.take(None)
        self._plan()

    def closed(self, reset):
        world = self.world
        connector = world.connector
        connector.open -= 1
        if self.step < len(self.steps):
            connector.talking -= 1
        if self.kept and not reset and not self.port.error and not b"exit\n".startswith(self.kept):
            world.fail("a line that was cut must be reset, and was closed")
        orderly = world.ending or self.owes or self.spoiled or self.left or self.port.room == 0
        if self.steps and self.step == len(self.steps) and not orderly and not world.weather.tight:
            world.fail("an idle connection was closed without a farewell")
        self.dead = True

    # The dialogue.

    def _dialogue(self, line):
        world = self.world
        state = self.steps[self.step]
        if state == INITIALIZED:
            expected = b"init\n"
            answer = self.challenge = b"%d\n" % int(world.random() * 1e12)
        elif state == CHALLENGE_REPLIED:
            expected, answer = self.challenge, b"ok\n"
        elif state == READING_VERSION:
            expected = b"version\n"
            self.inline = world.weather.inline
            answer = b"version:$Revision: 1.%d $\n" % (322 if world.weather.inline else 178)
            if world.random() < 0.1:
                self.inline, answer = False, b"unknown_cmd\n"
        elif state == SETTING_HOST:
            expected, answer = b"sethost:%b\n" % HOST.encode(), b"ok\n"
            if world.random() < 0.1:
                answer = b"unknown_cmd\n"
        else:
            expected = b"ekey\n"
            answer = b"%018X\n" % int(world.random() * 1e18)
            self.key = session_key(HOST, OWN, answer[:-1])
        if line != expected:
            world.fail(f"{line!r} was sent in state {state}, not {expected!r}")
        self._answer(state, answer)

    # Requests.

    def _special(self, line):
        """Take a request that is more than a plain command."""
        world = self.world
        if line == b"exit\n" and self.steps:
            self.left = True
            return
        host, sealed, command = self.host, False, line
        if command.startswith(b"sethost:"):
            name, _, command = command[8:].partition(b":")
            if not command:
                self.host = host = name[:-1].decode()
                self._answer(RESTORING if host == HOST else SELECTING, b"ok\n")
                return
            host = name.decode()
            world.count("broker", "sethost in one line")
            if not self.inline:
                world.fail("sethost was sent in one line with a command to a peer that is too old")
        if command.startswith(b"enc:"):
            sealed = True
            command = unseal(self._cipher(), command) + b"\n"
        if command == b"\n" and not self.steps:
            self._answer(SENT, b"empty:%d\n" % int(world.random() * 1e9))
            return
        word = command.partition(b":")[0]
        if word not in (b"put", b"at", b"secret"):
            world.fail(f"{line!r} was sent, and nobody asked for it")
        if word == b"secret" and not sealed:
            world.fail("a request to be encrypted was sent in clear")
        wanted = (OTHER_HOST,) if command.startswith((b"at:", b"secret:at:")) else (None, HOST)
        if host not in wanted:
            world.fail(f"{command!r} was executed as {host}")
        reply = world.requests.execute(command)
        if sealed:
            world.count("broker", SEALED)
            reply = seal(self._cipher(), reply[:-1]) + b"\n"
        self._answer(SENT, reply)

    def _cipher(self):
        if self.cipher is None:
            try:
                self.cipher = new_cipher(self.key)
            except CipherUnavailable:
                self.world.fail("something encrypted was sent, and there is no cipher")
        return self.cipher

    # Answers.

    def _answer(self, state, line):
        """Answer in some time, unless the plan is to do something else now."""
        world = self.world
        self.owes = True
        if len(line) > world.settings.max_reply:
            self.spoiled = True
        if self.fault is not None and (
            self.fault_at == state or (state == SENT and self.fault_at == PARTLY_ANSWERED)
        ):
            if self.countdown:
                self.countdown -= 1
            else:
                self._fail(self.fault, self.fault_at, line)
                return
        roll = world.random() * 64
        ticks = int(roll) & 7
        if roll % 1 < 0.1:
            ticks = self._in_pieces(ticks, line)
            line = line[-1:]
        world.network.after(ticks, self._say, line)

    def _in_pieces(self, ticks, line):
        """Send all but the last byte in up to three pieces; return when the last one is due."""
        world = self.world
        self.port.short = int(world.random() * 10)
        start = 0
        while start < len(line) - 1:
            end = start + 1 + int(world.random() * (len(line) - 1 - start))
            if ticks > 40:
                end = len(line) - 1
            world.network.after(ticks, self.port.deliver, line[start:end])
            ticks += 1 + int(world.random() ** 4 * 30)
            start = end
        return ticks

    def _say(self, line):
        """Send an answer to its end; from now on another request may come."""
        self.owes = False
        if self.port.closed:
            return
        self.port.deliver(line)
        if self.step < len(self.steps):
            self.step += 1
            if self.step == len(self.steps):
                self.world.connector.talking -= 1
            else:
                return
        if self.fault_at in (IDLE, UNSENT, PARTLY_SENT):
            self._watch_out()

    # Faults.

    def _plan(self):
        """Choose what to do wrong next, or nothing for this connection's life."""
        world = self.world
        random = world.random
        self.fault = self.fault_at = None
        self.countdown = 0
        if random() < world.weather.doom:
            states = world.weather.states
            self.fault_at = states[int(random() * len(states))]
            faults = (FAULTS if self.steps else _LINE_FAULTS)[self.fault_at]
            self.fault = faults[int(random() * len(faults))]
            if self.fault_at in (IDLE, UNSENT, PARTLY_SENT, SENT, PARTLY_ANSWERED):
                self.countdown = int(random() * 5)

    def _watch_out(self):
        """The connection is ready for a request: prepare what is to go wrong with it, or now."""
        if self.fault_at not in (IDLE, UNSENT, PARTLY_SENT) or self.spoiled:
            return
        if self.countdown:
            self.countdown -= 1
            return
        port = self.port
        if self.fault_at == IDLE:
            self.world.network.after(int(self.world.random() * 6), self._fail_idle)
        elif port.room is None:
            port.room = 0 if self.fault_at == UNSENT else 1 + int(self.world.random() * 10)
            if not port.room:
                port.state &= ~2

    def _fail_idle(self, _):
        # Not for a broker that has sent meanwhile: it could not tell a surplus from an answer.
        if self.owes or self.kept or self.port.closed or self.left or self.spoiled:
            return
        self.world.count("peer", self.fault, IDLE)
        # With an answer that was not read yet the broker gets both together.
        self.out_of_step = not self.port.inbox
        self.spoiled = True
        if self.fault == CLOSES:
            self._die(self.port.shut, 0)
        elif self.fault == RESETS:
            self._die(self.port.fail, 0)
        else:
            self.port.deliver(b"stray\n" if self.fault == SURPLUS else b"str")

    def _fail(self, fault, state, line):
        """Do something wrong in place of answering with `line`."""
        world = self.world
        after, port, random = world.network.after, self.port, world.random
        world.count("peer", fault, state)
        self.spoiled = True
        ticks = int(random() * 8)
        rest = line
        if state == PARTLY_ANSWERED or (fault in (CLOSES, RESETS) and random() < 0.3):
            cut = 1 + int(random() * (len(line) - 1))
            after(ticks, port.deliver, line[:cut])
            rest = line[cut:]
            ticks += int(random() * 4)
        if fault == CLOSES:
            self._die(port.shut, ticks)
        elif fault == RESETS:
            self._die(port.fail, ticks)
        elif fault == GARBAGE:
            after(ticks, port.deliver, self._garbage(state))
        elif fault == SURPLUS:
            after(ticks, port.deliver, rest + (line if random() < 0.5 else b"surplus\n"))
        elif fault == LATE:
            settings = world.settings
            wait = settings.reply_timeout
            if state in STEPS["versioned"] or state == RESTORING:
                wait = settings.dialogue_timeout
            after(int((wait * (0.9 + random() * 0.3)) * TICKS), self._say, rest)
        elif fault == TRICKLES:
            after(ticks, self._trickle, rest)
        elif fault == ENDLESS:
            self._never_end(0)

    def _garbage(self, state):
        if state == SENT:
            return b"enc:4:nonsense\n"
        if state in (SELECTING, RESTORING):
            return b"unable_to_set\n"
        return b"refused\n" if self.world.random() < 0.5 else b"\n"

    def _trickle(self, rest):
        """Send a little in time, again and again; the request takes too long all the same."""
        if self.port.closed:
            return
        pause = int(self.world.settings.reply_timeout * 0.6 * TICKS)
        if len(rest) > 1:
            self.port.deliver(rest[:1])
            self.world.network.after(pause, self._trickle, rest[1:])
        else:
            self.world.network.after(pause, self._say, rest)

    def _never_end(self, sent):
        """Send more than max_reply, if that is not too much for a simulation, without a LF."""
        size = min(900, 1 + self.world.settings.max_reply // 2)
        if not self.port.closed and sent < 8 * size:
            self.port.deliver(b"." * size)
            self.world.network.after(1, self._never_end, sent + size)

    def _die(self, how, ticks):
        self.world.network.after(ticks, self._gone, how)

    def lose_power(self):
        """The whole machine fails, or its network."""
        if not self.dead:
            ready = self.step == len(self.steps) and not (self.owes or self.kept)
            self.out_of_step = ready and not self.port.inbox
            self.spoiled = True
            self._gone(self.port.fail if self.world.random() < 0.5 else self.port.shut)

    def _gone(self, how):
        self.dead = True
        how()
