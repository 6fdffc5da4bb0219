"""The requests of a schedule, no two alike, and what the peer makes of them."""

from __future__ import annotations

from . import clients, peers

# How often something is tried that costs more than the rest.
SEALED = 0.02
LOCAL = 0.004
ELSEWHERE = 0.15

# Replies and requests hold every byte but LF.
_FILLER = bytes(range(10)) + bytes(range(11, 256))
_FILLER *= 900


class Requests:
    """Makes requests, executes them in place of a lond, and remembers what each was answered.

    A command is known by its line, which holds a number of its own.  `executed` has the reply to
    each that was executed, b"" for one that is too long for anybody to hear it; `background` has
    those that are to give way to others.
    """

    def __init__(self, world):
        self.world = world
        self.executed = {}
        self.background = set()
        self._number = 0

    def new(self, waiting):
        """Return a new request; append the command that the peer is to execute to `waiting`."""
        world = self.world
        weather = world.weather
        world.spend()
        self._number += 1
        roll = world.random()
        line = b"put:%d:\n" % self._number
        if roll < 0.06:
            line = b"put:%d:%b\n" % (self._number, _FILLER[: int(roll * 8000)])
        elif weather.uses_hosts and roll > 1 - ELSEWHERE:
            host = peers.HOST
            if roll < 1 - ELSEWHERE / 3:
                host = peers.OTHER_HOST
                line = b"at:%d:\n" % self._number
            waiting.append(line)
            return b"sethost:%b:%b" % (host.encode(), line)
        elif weather.uses_cipher and 0.5 < roll < 0.5 + SEALED:
            if weather.uses_hosts and roll < 0.5 + SEALED / 3:
                line = b"secret:at:%d:\n" % self._number
                waiting.append(line)
                return b"sethost:%b:encrypt:%b" % (peers.OTHER_HOST.encode(), line)
            line = b"secret:%d:\n" % self._number
            waiting.append(line)
            return b"encrypt:" + line
        elif weather.dialect != "line" and 0.4 < roll < 0.4 + LOCAL:
            line = clients.LOCAL[self._number % 2]
            world.count("client", line[:-1].decode())
        waiting.append(line)
        return line

    def execute(self, line):
        """Execute a request at the peer: return the reply, which is like no other."""
        world = self.world
        executed = self.executed
        if line in executed:
            world.fail(f"{line!r} was executed twice")
        weather = world.weather
        roll = world.random()
        if roll < weather.long:
            size = int(roll / weather.long * 600)
            if roll < weather.long * weather.large:
                size = 65536 + int(roll * 1e8) % 140000
                world.count("broker", "reply in several reads")
            reply = b"%d:%b:%b" % (len(executed), _FILLER[:size], line)
        else:
            reply = b"%d:%b" % (len(executed), line)
        executed[line] = reply if len(reply) - 1 <= world.settings.max_reply else b""
        return reply
