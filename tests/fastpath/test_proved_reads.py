"""Sides that are always faster than lonc: they have all to say at once, and take all they get."""

from __future__ import annotations

import socket

import pytest


class FullPort:
    """A port of Python with something to read as long as there is any of it."""

    def __init__(self):
        self.near, self.far = socket.socketpair()
        self.waiting = b""
        self.taken = 0

    def put(self, data):
        self.waiting = data
        self.far.send(b"!")

    def fileno(self):
        return self.near.fileno()

    def recv(self, size):
        data, self.waiting = self.waiting[:size], self.waiting[size:]
        return data or None

    def send(self, data):
        self.taken += len(data)
        return len(data)

    def close(self):
        self.near.close()
        self.far.close()

    reset = close


class Policy:
    """Lets all take its course."""

    def arm(self):
        pass

    def dial(self):
        pass

    def lost(self, link, reason, state, transaction):
        pass


@pytest.fixture
def exchange(parts):
    poller = parts.Poller()
    yield parts.Exchange(poller, Policy())
    poller.close()


@pytest.fixture
def ask(exchange):
    """Sends a request over a new link on which `answer` arrives, and returns how it ended."""

    def ask(answer):
        port, ended = FullPort(), []
        exchange.dialling()
        link = exchange.add_link(port)
        exchange.release(link)
        exchange.submit(b"ping\n", ended.append)
        exchange.poller.serve()
        port.put(answer)
        for _ in range(5):
            exchange.poller.wait(0)
            exchange.poller.serve()
        exchange.lose(link, "the end")
        [transaction] = ended
        return transaction.reply

    return ask


@pytest.mark.parametrize("reads", [1, 2, 16, 17])
def test_a_reply_that_fills_its_reads(parts, ask, reads):
    reply = b"x" * (reads * parts.RECEIVE - 1)
    assert ask(reply + b"\n") == reply
    assert ask(reply + b"\ny") is None
    assert ask(reply + b"\nstray\n") is None


def test_lines_that_need_no_peer_do_not_recurse(exchange):
    """Not even where each reply is taken at once, so that nothing ever has to wait."""
    count = 50_000
    exchange.empty_is_request = False
    port = FullPort()
    client = exchange.add_client(port)
    port.put(b"\n" * count)
    for _ in range(count):
        exchange.poller.wait(0)
        exchange.poller.serve()
    assert port.taken == count * len(b"con_lost\n")
    assert exchange.con_lost == count
    client.close()
