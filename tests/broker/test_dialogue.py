"""The dialogue as the broker leads it: what is said, who may refuse, and how long it may take."""

from __future__ import annotations

import pytest

from lonc.net.connector import Connector
from lonc.net.resolver import Resolver
from tests.broker.world import CHALLENGE, dialogue


@pytest.mark.parametrize("dialect", ["classic", "versioned"])
def test_the_bytes_of_the_whole_dialogue(world, dialect):
    peer = world.peer()
    broker = world.start(peer, dialect)
    client = world.client(b"ping\n")
    link = peer.accept()
    for expected, answer in dialogue(dialect=dialect):
        assert link.line() == expected
        assert broker.stats()["preparing"] == 1
        link.send(answer)
    assert link.line() == b"ping\n"
    link.send(b"msul1\n")
    assert client.line() == b"msul1\n"
    [(severity, text)] = world.log.lines
    assert severity == "SUCCESS"
    assert "connection to msul1 ready" in text and "insecure" in text


@pytest.mark.parametrize("step", [2, 3])
def test_an_older_peer_may_not_know_a_step(world, step):
    peer = world.peer()
    world.start(peer, "versioned")
    client = world.client(b"ping\n")
    link = peer.accept()
    for i, (expected, answer) in enumerate(dialogue()):
        assert link.line() == expected
        link.send(b"unknown_cmd\n" if i == step else answer)
    assert link.line() == b"ping\n"
    link.send(b"msul1\n")
    assert client.line() == b"msul1\n"


@pytest.mark.parametrize(
    ("step", "answer"),
    [
        (0, b"refused\n"),
        (0, b"\n"),
        (1, b"refused\n"),
        (1, b"no\n"),
        (1, b"ok \n"),
        (1, b"ok\r\n"),
        (2, b"ok\n"),
        (3, b"unable_to_set\n"),
        (4, b"refused\n"),
        (4, b"unknown_cmd\n"),
    ],
)
def test_a_wrong_answer_ends_the_connection(world, step, answer):
    peer = world.peer()
    world.start(peer, "versioned")
    client = world.client(b"ping\n")
    link = peer.accept()
    for expected, right in dialogue()[:step]:
        assert link.line() == expected
        link.send(right)
    assert link.line() == dialogue()[step][0]
    link.send(answer)
    assert client.line() == b"con_lost\n"
    # `refused` is never echoed; nothing more is said, no farewell either.
    assert link.rest() == b""
    assert world.log.only("cannot be reached") == "WARNING"


def test_a_peer_that_refuses_counts_as_that_address_failing(world):
    """The name has two addresses; behind the first sits a lond that does not know this machine."""
    port = world.free_port()
    world.wires.pop().close()
    wrong, right = (world.peer(address=f"127.0.0.{i}", port=port) for i in (2, 3))

    def getaddrinfo(name, port, **options):
        return [(2, 1, 6, "", (f"127.0.0.{i}", port)) for i in (2, 3)]

    resolver = Resolver(world.reactor, getaddrinfo)
    broker = world.start(right, "classic", address="msul1.test", port=port)
    broker.connector.close()
    broker.connector = Connector(world.reactor, "msul1.test", port, broker.settings, resolver)
    client = world.client(b"ping\n")
    link = wrong.accept()
    assert link.line() == b"init\n"
    link.send(b"refused\n")
    assert link.rest() == b""
    # The same attempt goes on with the next address.
    link = right.greet(dialect="classic")
    assert link.line() == b"ping\n"
    assert broker.health.retries == broker.settings.connection_retries
    link.send(b"pong\n")
    assert client.line() == b"pong\n"
    # From now on that one is tried first.
    link.close()
    world.settle()
    client.send(b"again\n")
    link = right.greet(dialect="classic")
    assert link.line() == b"again\n"
    assert wrong.take() is None


def test_all_addresses_refuse(world):
    peer = world.peer()
    broker = world.start(peer, "classic")
    client = world.client(b"ping\n")
    link = peer.accept()
    assert link.line() == b"init\n"
    link.send(b"refused\n")
    assert client.line() == b"con_lost\n"
    assert broker.health.retries == broker.settings.connection_retries - 1
    [(_, text)] = world.log.having("cannot be reached")
    assert "refused" in text


@pytest.mark.parametrize("step", range(5))
def test_each_step_has_its_time(timed, step):
    world = timed
    peer = world.peer()
    world.start(peer, "versioned", dialogue_timeout=30, queue_timeout=1000, connection_retries=9)
    client = world.client(b"ping\n")
    link = peer.accept()
    for expected, answer in dialogue()[:step]:
        assert link.line() == expected
        # Every step starts anew, so that all of them may take longer than one.
        world.pass_time(29)
        link.send(answer)
    assert link.line() == dialogue()[step][0]
    world.pass_time(29.5)
    assert client.silent()
    assert world.exchange.attempts == 1
    world.pass_time(0.6)
    assert client.line() == b"con_lost\n"
    assert link.rest() == b""
    assert world.exchange.attempts == 0, "it must not keep its place"
    [(_, text)] = world.log.having("dialogue_timeout")
    assert CHALLENGE.decode().strip() not in text


def test_a_timeout_of_the_dialogue_is_over_with_it(timed):
    world = timed
    peer = world.peer()
    world.start(peer, "classic", dialogue_timeout=30, reply_timeout=500)
    client = world.client(b"ping\n")
    link = peer.greet(dialect="classic")
    assert link.line() == b"ping\n"
    world.pass_time(100)
    assert client.silent()
    link.send(b"pong\n")
    assert client.line() == b"pong\n"


def test_a_peer_that_takes_nothing_of_the_dialogue_and_says_nothing(timed):
    world = timed
    peer = world.peer()
    world.start(peer, "classic")
    client = world.client(b"ping\n")
    # In the kernel's backlog: TCP is up, and nobody is there.
    world.until(lambda: world.broker.stats()["preparing"] == 1)
    world.pass_time(31)
    assert client.line() == b"con_lost\n"


def test_a_farewell_is_said_only_by_an_idle_connection(world):
    peer = world.peer()
    broker = world.start(peer, "classic")
    _, idle = world.acquainted(peer, "classic")
    world.client(b"one\n"), world.client(b"two\n")
    busy = peer.greet(dialect="classic")
    assert {busy.line(), idle.line()} == {b"one\n", b"two\n"}
    world.client(b"three\n")
    preparing = peer.accept()
    assert preparing.line() == b"init\n"
    idle.send(b"1\n")
    assert idle.line() == b"three\n"
    idle.send(b"3\n")
    world.settle()
    assert broker.stats()["idle"] == 1
    broker.stop()
    assert idle.rest() == b"exit\n"
    assert busy.rest() == b""
    assert preparing.rest() == b""
