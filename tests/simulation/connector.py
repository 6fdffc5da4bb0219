"""The way to the peers: attempts to connect, that may be refused or not be answered."""

from __future__ import annotations

from .network import TICKS
from .peers import RESETS, SILENT, Peer


class Connector:
    """What the broker is given in place of TCP; `addresses` are tried within one attempt."""

    def __init__(self, world):
        self.world = world
        self.settings = None
        self.addresses = 1 + int(world.random() * 2.5)
        self.attempts = set()
        # Connections that are open, and those of them whose dialogue is not over.
        self.open = 0
        self.talking = 0

    def attempt(self, connected, failed):
        return Attempt(self, connected, failed)

    def close(self):
        for attempt in list(self.attempts):
            attempt.cancel()


class Attempt:
    """One attempt to connect: it may be refused, or not be answered, at any of the addresses."""

    def __init__(self, connector, connected, failed):
        self.connector = connector
        self.connected = connected
        self.failed = failed
        self.left = connector.addresses
        world = connector.world
        under_way = len(connector.attempts) + 1
        if under_way + connector.open > world.settings.max_connections:
            world.fail("more than max_connections connections and attempts")
        if under_way + connector.talking > world.settings.max_dialling:
            world.fail("more than max_dialling attempts")
        self._begin(int(world.random() * 6))

    def accepted(self):
        pass

    def rejected(self, reason):
        self._next(reason)

    def cancel(self):
        self.connector.attempts.discard(self)
        self.timer.cancel()

    def _begin(self, ticks):
        connector = self.connector
        world = connector.world
        connector.attempts.add(self)
        roll = world.random()
        self.fault = None
        if world.outage or roll < world.weather.refusals:
            self.fault = RESETS if (roll * 1000) % 1 < 0.7 else SILENT
        if self.fault == SILENT:
            ticks = world.settings.connect_timeout * TICKS
        self.timer = world.reactor.timer(self._settled, after=ticks / TICKS, desc="connecting")

    def _next(self, reason):
        self.connector.attempts.discard(self)
        self.left -= 1
        if self.left:
            self._begin(0)
        else:
            self.failed(f"no connection: {reason}")

    def _settled(self, event):
        connector = self.connector
        world = connector.world
        if self.fault:
            world.count("peer", self.fault, f"connecting, {world.broker.health.state}")
            self._next("refused" if self.fault == RESETS else "no answer")
            return
        connector.attempts.discard(self)
        self.connected(Peer(world).port)
