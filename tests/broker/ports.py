"""Connections to the peer whose system calls are the test's, one by one."""

from __future__ import annotations

import socket


class ScriptedPort:
    """A port of Python that sends and receives as the test says, and then like any other.

    sends     for each `send`: how many bytes it takes, or an exception that it raises
    receives  what each `recv` returns; they are called when something real arrives
    how       "closed" or "reset", when it has been
    """

    def __init__(self, parts, sock, sends):
        self.port = parts.Port(sock.detach())
        self.sends = sends
        self.receives = []
        self.how = None

    def send(self, data):
        if self.sends:
            step = self.sends.pop(0)
            if isinstance(step, Exception):
                raise step
            data = bytes(data[:step])
        return self.port.send(data) if len(data) else 0

    def recv(self, size):
        if self.receives:
            data = self.receives.pop(0)
            assert data is None or len(data) <= size
            return data
        return self.port.recv(size)

    def close(self):
        self.how = self.how or "closed"
        self.port.close()

    def reset(self):
        self.how = "reset"
        self.port.reset()

    def __getattr__(self, name):
        return getattr(self.port, name)


class Attempt:
    def __init__(self, world, port, connected):
        self.timer = world.reactor.timer(lambda event: connected(port), after=0)

    def accepted(self):
        pass

    def cancel(self):
        self.timer.cancel()


class Connector:
    """Hands out ports made of socket pairs, whose other ends the test gets."""

    def __init__(self, world):
        self.world = world
        self.scripts = []
        self.ports = []
        self.far = []

    def attempt(self, connected, failed):
        near, far = socket.socketpair()
        near.setblocking(False)
        self.far.append(far)
        port = ScriptedPort(self.world.parts, near, self.scripts.pop(0) if self.scripts else [])
        self.ports.append(port)
        return Attempt(self.world, port, connected)

    def close(self):
        for sock in self.far:
            sock.close()
