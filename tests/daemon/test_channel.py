"""Messages between parent and child over a socket pair."""

from __future__ import annotations

import marshal
import os
import socket

import pytest

from lonc.daemon.channel import Channel
from lonc.reactor import Reactor
from tests.conftest import wait_until

MESSAGES = [
    ("ping", 1),
    ("settings", {"a": 1.5, "b": (1, 2), "c": None}, {}),
    ("report", "status", "a line", ("up", 5, 0, 12.25), {"latency": [0] * 1000}),
    ("drain",),
]


class End:
    """A channel, and what it told."""

    def __init__(self, reactor, sock):
        self.received = []
        self.closed = 0
        self.channel = Channel(reactor, sock, self._received, self._closed)

    def _received(self, *message):
        self.received.append(message)

    def _closed(self):
        self.closed += 1


@pytest.fixture
def reactor(parts):
    reactor = Reactor(parts)
    yield reactor
    reactor.close()


@pytest.fixture
def ends(reactor):
    """Both ends, on one reactor."""
    ends = [End(reactor, sock) for sock in socket.socketpair()]
    yield ends
    for end in ends:
        end.channel.close()


def arrives(reactor, condition):
    wait_until(condition, step=lambda: reactor.run_once(0.01))


def test_messages_come_whole_and_in_order_both_ways(reactor, ends):
    one, other = ends
    for message in MESSAGES:
        one.channel.send(*message)
        other.channel.send(*message[::-1])
    arrives(reactor, lambda: len(one.received) == len(other.received) == len(MESSAGES))
    assert other.received == MESSAGES
    assert one.received == [message[::-1] for message in MESSAGES]


def test_a_message_in_pieces(reactor):
    raw, sock = socket.socketpair()
    end = End(reactor, sock)
    body = marshal.dumps(("word", "x" * 300))
    stream = (len(body).to_bytes(4, "big") + body) * 3
    with raw:
        for number in range(0, len(stream), 7):
            raw.sendall(stream[number : number + 7])
            reactor.run_once(0)
        arrives(reactor, lambda: len(end.received) == 3)
    assert end.received == [("word", "x" * 300)] * 3
    arrives(reactor, lambda: end.closed)
    assert end.closed == 1


def test_more_than_the_socket_takes_at_once(reactor, ends):
    one, other = ends
    text = "x" * 400_000
    for number in range(2):
        one.channel.send(number, text)
    arrives(reactor, lambda: len(other.received) == 2)
    assert other.received == [(0, text), (1, text)]
    one.channel.send("after")
    arrives(reactor, lambda: other.received[2:] == [("after",)])


def test_an_end_that_does_not_read_costs_bounded_memory(reactor, ends):
    one, other = ends
    for _ in range(100):
        one.channel.send("x" * 100_000)
    arrives(reactor, lambda: len(other.received) >= 10)
    assert len(other.received) < 100
    # What arrived is whole, and what is sent later arrives again.
    assert set(other.received) == {("x" * 100_000,)}
    one.channel.send("after")
    arrives(reactor, lambda: other.received[-1] == ("after",))


def test_the_other_end_goes(reactor, ends):
    one, other = ends
    one.channel.send("last")
    one.channel.close()
    arrives(reactor, lambda: other.closed)
    assert (other.received, other.closed, one.closed) == ([("last",)], 1, 0)
    other.channel.send("into the void")
    reactor.run_once(0)
    other.channel.close()


def test_sending_to_one_that_has_gone_is_no_error(reactor, ends):
    one, other = ends
    other.channel.close()
    for _ in range(3):
        one.channel.send("into the void")
    arrives(reactor, lambda: one.closed)
    assert one.closed == 1


def test_what_a_dead_process_has_sent_is_read(reactor, ends):
    one, other = ends
    for number in range(100):
        one.channel.send(number)
    one.channel.close()
    other.channel.read_rest()
    assert other.received == [(number,) for number in range(100)]
    assert other.closed == 1


def test_a_message_comes_before_the_clients_of_the_same_pass(reactor, tmp_path):
    """One that is told to drain leaves them to its successor."""
    exchange = reactor.parts.Exchange(reactor.poller, None)
    near, far = socket.socketpair()
    path = os.path.relpath(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        door = exchange.listen(listener)
        channel = Channel(reactor, near, lambda word: door.close(), lambda: None)
        sender = End(reactor, far).channel
        client.connect(path)
        sender.send("drain")
        assert reactor.run_once(1)
        assert exchange.accepted == 0
        channel.close()
        sender.close()
