"""Where a read ends, and where a line does: a peer that is always faster than the reader."""

from __future__ import annotations

import socket

import pytest


class FullPort:
    """A port of Python with something to read as long as there is any of it."""

    def __init__(self):
        self.near, self.far = socket.socketpair()
        self.waiting = b""

    def put(self, data):
        self.waiting = data
        self.far.send(b"!")

    def fileno(self):
        return self.near.fileno()

    def recv(self, size):
        data, self.waiting = self.waiting[:size], self.waiting[size:]
        return data or None

    def send(self, data):
        return len(data)

    def close(self):
        self.near.close()
        self.far.close()

    reset = close


class Policy:
    """Has nothing to add."""

    def arm(self):
        pass

    def dial(self):
        pass

    def lost(self, link, reason, state, transaction):
        pass


@pytest.fixture
def ask(parts):
    """Sends a request over a new link on which `answer` arrives, and returns how it ended."""
    poller = parts.Poller()
    exchange = parts.Exchange(poller, Policy())

    def ask(answer):
        port, ended = FullPort(), []
        exchange.dialling()
        link = exchange.add_link(port)
        exchange.release(link)
        exchange.submit(b"ping\n", ended.append)
        port.put(answer)
        for _ in range(5):
            poller.wait(0)
            poller.serve()
        exchange.lose(link, "the end")
        [transaction] = ended
        return transaction.reply

    yield ask
    poller.close()


@pytest.mark.parametrize("reads", [1, 2, 16, 17])
def test_a_reply_that_fills_its_reads(parts, ask, reads):
    reply = b"x" * (reads * parts.RECEIVE - 1)
    assert ask(reply + b"\n") == reply
    assert ask(reply + b"\ny") is None
    assert ask(reply + b"\nstray\n") is None
