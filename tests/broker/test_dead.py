"""A host that cannot be reached: who is told at once, when it is tried again, when it is DEAD."""

from __future__ import annotations

import socket

import pytest

from lonc.broker.health import DEAD, UP, WAITING
from lonc.net.connector import Connector
from lonc.net.resolver import Resolver


class Away:
    """A host that refuses connections, by the real system, until `listen` is called."""

    def __init__(self, world):
        self.world = world
        self.port = world.free_port()
        self.held = world.wires.pop()

    def listen(self):
        self.held.close()
        return self.world.peer(port=self.port)

    def close(self):
        self.held.close()


@pytest.fixture
def away(timed):
    away = Away(timed)
    yield away
    away.close()


class CountingConnector:
    """Counts attempts, and lets them fail when the test says so."""

    def __init__(self):
        self.failing = []
        self.attempts = 0

    def attempt(self, connected, failed):
        self.attempts += 1
        self.failing.append(failed)
        return self

    def fail(self, reason="no way"):
        self.failing.pop(0)(reason)

    def cancel(self):
        pass

    close = accepted = cancel


@pytest.fixture
def counting(timed):
    return CountingConnector()


def test_everything_queued_is_told_at_once_when_an_attempt_fails(timed, away):
    world = timed
    broker = world.start(port=away.port)
    clients = [world.client(b"ping\n") for _ in range(5)]
    assert [client.line() for client in clients] == [b"con_lost\n"] * 5
    assert broker.health.state == WAITING
    [(severity, text)] = world.log.having("cannot be reached")
    assert severity == "WARNING"
    assert f"127.0.0.1:{away.port}" in text and "refused" in text.lower()


def test_until_the_next_attempt_is_due_requests_are_turned_away(timed, counting):
    world = timed
    world.start(connector=counting, retry_first=10)
    client = world.client(b"ping\n")
    world.settle()
    counting.fail()
    assert client.line() == b"con_lost\n"
    world.pass_time(9.9)
    client.send(b"ping\n")
    assert client.line() == b"con_lost\n"
    assert counting.attempts == 1
    world.pass_time(0.2)
    # Nobody asks: nothing is tried.
    assert counting.attempts == 1
    client.send(b"ping\n")
    assert client.silent()
    assert counting.attempts == 2
    counting.fail()
    assert client.line() == b"con_lost\n"
    world.pass_time(19)
    assert world.ask(b"ping\n") == b"con_lost\n"
    assert counting.attempts == 2, "twice as long as the last time"
    world.pass_time(1.1)
    client.send(b"ping\n")
    world.settle()
    assert counting.attempts == 3


def test_a_failed_extra_attempt_hurts_nobody_while_another_is_under_way(timed, counting):
    world = timed
    broker = world.start(connector=counting)
    clients = [world.client(b"ping\n") for _ in range(2)]
    world.settle()
    assert counting.attempts == 2
    counting.fail()
    assert [client.silent() for client in clients] == [True, True]
    assert broker.health.retries == 4
    counting.fail()
    assert [client.line() for client in clients] == [b"con_lost\n"] * 2
    assert broker.health.retries == 3


def test_a_failed_extra_attempt_hurts_nobody_while_a_connection_is_alive(timed):
    world = timed
    peer = world.peer()
    broker = world.start(peer, "classic", max_dialling=1, retry_first=5)
    client, link = world.acquainted(peer, "classic")
    client.send(b"one\n")
    assert link.line() == b"one\n"
    waiting = world.client(b"two\n")
    extra = peer.accept()
    extra.close()
    assert waiting.silent()
    assert broker.health.state == UP
    assert world.log.only("another connection to msul1 cannot be opened") == "WARNING"
    # The next extra one is tried when it is due, though nobody asks again.
    world.pass_time(4.9)
    assert peer.take() is None
    world.pass_time(0.2)
    second = peer.greet(dialect="classic")
    assert second.line() == b"two\n"
    second.send(b"2\n")
    assert waiting.line() == b"2\n"


@pytest.mark.parametrize("how", ["answers", "revived"])
def test_who_waited_for_the_pause_to_end_waits_no_longer_than_it_lasts(timed, how):
    """A host that is sound again has no pause: connections are opened as if there had been none."""
    world = timed
    peer = world.peer()
    broker = world.start(peer, "classic", max_dialling=1, retry_first=5)
    client, link = world.acquainted(peer, "classic")
    client.send(b"one\n")
    assert link.line() == b"one\n"
    waiting = [world.client(b"two\n"), world.client(b"three\n")]
    peer.accept().close()
    world.settle()
    assert peer.take() is None
    if how == "answers":
        link.send(b"1\n")
        assert link.line() == b"two\n"
        expected = waiting[1], b"three\n"
    else:
        broker.revive()
        expected = waiting[0], b"two\n"
    second = peer.greet(dialect="classic")
    assert second.line() == expected[1]
    second.send(b"y\n")
    assert expected[0].line() == b"y\n"


def test_the_budget_empties_and_the_host_is_dead(timed, counting):
    world = timed
    broker = world.start(connector=counting, connection_retries=3, probe_while_asked=0)
    for left in (2, 1, 0):
        client = world.client(b"ping\n")
        world.settle()
        counting.fail("nobody there")
        assert client.line() == b"con_lost\n"
        assert broker.health.retries == left
        world.pass_time(100)
    assert broker.health.state == DEAD
    [(severity, text)] = world.log.having("DEAD")
    assert severity == "CRITICAL"
    assert "msul1" in text and "nobody there" in text
    # Told at once, and nothing is tried for it.
    assert world.ask(b"ping\n") == b"con_lost\n"
    assert counting.attempts == 3
    for _ in range(5):
        world.pass_time(1000)
    assert counting.attempts == 3


@pytest.mark.parametrize("how", ["line", "method"])
def test_a_fresh_budget(timed, counting, how):
    world = timed
    broker = world.start(
        connector=counting, dialect="classic", connection_retries=1, probe_while_asked=0
    )
    client = world.client(b"ping\n")
    world.settle()
    counting.fail()
    assert client.line() == b"con_lost\n"
    assert broker.health.state == DEAD
    if how == "line":
        client.send(b"reset_retries\n")
        assert client.line() == b"ok\n"
        world.answered_here = 1
    else:
        broker.revive()
    assert (broker.health.state, broker.health.retries) == (UP, 1)
    # At once, however long the pause was.
    client.send(b"ping\n")
    assert client.silent()
    assert counting.attempts == 2
    counting.fail()


def test_a_dead_host_is_tried_as_long_as_somebody_asked(timed, counting):
    world = timed
    broker = world.start(connector=counting, connection_retries=1, probe_while_asked=600)
    client = world.client(b"ping\n")
    world.settle()
    counting.fail()
    assert client.line() == b"con_lost\n"
    assert broker.health.state == DEAD
    for probes, pause in ((1, 0.11), (2, 0.21), (3, 0.41), (4, 0.81)):
        world.pass_time(pause)
        assert counting.attempts == 1 + probes
        # A request does not wait for a probe.
        assert world.ask(b"ping\n") == b"con_lost\n"
        counting.fail()
    for _ in range(30):
        world.pass_time(61)
        if counting.failing:
            counting.fail()
    tried = counting.attempts
    world.pass_time(600)
    assert counting.attempts == tried, "nobody has asked for ten minutes"
    assert world.ask(b"ping\n") == b"con_lost\n"
    world.pass_time(61)
    assert counting.attempts == tried + 1
    assert len(world.log.having("DEAD")) == 1, "said once, not at each probe"


def test_who_asked_last_by_way_of_an_idle_connection_did_ask(timed):
    """A host that was busy until the end is looked for as much as one that was called anew."""
    world = timed
    peer = world.peer()
    broker = world.start(
        peer, connection_retries=1, probe_while_asked=600, idle_timeout=10000, reply_timeout=10
    )
    client, link = world.acquainted(peer)
    world.pass_time(5000)
    client.send(b"ping\n")
    assert link.line() == b"ping\n"
    world.pass_time(11)
    assert client.line() == b"con_lost\n"
    assert broker.health.state == DEAD
    world.pass_time(1)
    peer.accept()


def test_a_dead_host_is_tried_while_a_delayed_message_waits(timed, counting):
    world = timed
    broker = world.start(connector=counting, connection_retries=1, probe_while_asked=0)
    client = world.client(b"ping\n")
    world.settle()
    counting.fail()
    assert client.line() == b"con_lost\n"
    broker.waiting_elsewhere = 1
    world.pass_time(61)
    assert counting.attempts == 2


def test_a_dead_host_comes_back_by_itself(timed, away):
    world = timed
    broker = world.start(port=away.port, dialect="classic", connection_retries=2)
    while broker.health.state != DEAD:
        assert world.ask(b"ping\n") == b"con_lost\n"
        world.pass_time(0.5)
    peer = away.listen()
    world.pass_time(61)
    link = peer.greet(dialect="classic")
    world.settle()
    assert broker.stats()["idle"] == 1
    assert (broker.health.state, broker.health.retries) == (UP, 1)
    assert world.log.only("not DEAD any more") == "SUCCESS"
    client = world.client(b"ping\n")
    assert link.line() == b"ping\n"
    link.send(b"pong\n")
    assert client.line() == b"pong\n"
    assert broker.health.retries == 2


def test_a_connection_that_nobody_asked_for_is_closed_when_it_was_idle_too_long(timed, away):
    world = timed
    broker = world.start(port=away.port, dialect="classic", connection_retries=1, idle_timeout=300)
    assert world.ask(b"ping\n") == b"con_lost\n"
    peer = away.listen()
    world.pass_time(61)
    link = peer.greet(dialect="classic")
    # Whatever was due before has been looked at by now.
    world.pass_time(200)
    assert broker.stats()["idle"] == 1
    world.pass_time(101)
    assert link.rest() == b"exit\n"


def test_a_host_that_came_back_and_answers_nothing_is_dead_again(timed, away):
    world = timed
    broker = world.start(port=away.port, dialect="classic", connection_retries=2)
    while broker.health.state != DEAD:
        assert world.ask(b"ping\n") == b"con_lost\n"
        world.pass_time(0.5)
    peer = away.listen()
    world.pass_time(61)
    link = peer.greet(dialect="classic")
    world.settle()
    assert broker.health.state == UP
    link.close()
    world.settle()
    assert broker.health.state == DEAD


def test_a_lost_connection_that_never_answered_takes_one(timed):
    world = timed
    peer = world.peer()
    broker = world.start(peer, "classic")
    client = world.client(b"ping\n")
    link = peer.greet(dialect="classic")
    assert link.line() == b"ping\n"
    link.close()
    assert client.line() == b"con_lost\n"
    assert broker.health.retries == 4


def test_a_lost_connection_that_has_answered_takes_none(timed):
    world = timed
    peer = world.peer()
    broker = world.start(peer, "classic")
    client, link = world.acquainted(peer, "classic")
    client.send(b"ping\n")
    assert link.line() == b"ping\n"
    link.close()
    assert client.line() == b"con_lost\n"
    assert (broker.health.retries, broker.health.state) == (5, UP)
    client.send(b"ping\n")
    assert client.silent()
    peer.accept()


def test_a_host_that_does_not_answer(timed):
    """Its backlog is full, so that the system drops what would connect."""
    world = timed
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(full.getsockname())
        fillers.append(filler)
    try:
        broker = world.start(port=full.getsockname()[1], connect_timeout=5)
        client = world.client(b"ping\n")
        world.pass_time(4.9)
        assert client.silent()
        world.pass_time(0.2)
        assert client.line() == b"con_lost\n"
        assert broker.health.state == WAITING
        assert "no answer within 5 s" in world.log.having("cannot be reached")[0][1]
    finally:
        for sock in (*fillers, full):
            sock.close()


def test_a_name_that_does_not_resolve_then_does(timed):
    world = timed
    answers = []

    def getaddrinfo(name, port, **options):
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return answers

    peer = world.peer()
    broker = world.start(peer, address="no.such.host")
    broker.connector.close()
    broker.connector = Connector(
        world.reactor,
        "no.such.host",
        peer.port,
        broker.settings,
        Resolver(world.reactor, getaddrinfo),
    )
    client = world.client(b"ping\n")
    assert client.line() == b"con_lost\n"
    [(_, text)] = world.log.having("cannot be reached")
    assert "no.such.host" in text and "Name or service not known" in text
    answers.append((socket.AF_INET, socket.SOCK_STREAM, 6, "", (peer.address, peer.port)))
    world.pass_time(1)
    client.send(b"ping\n")
    assert peer.accept().line() == b"ping\n"


def test_all_severities_of_a_host_that_goes_and_comes(timed, away):
    world = timed
    broker = world.start(port=away.port, connection_retries=1)
    assert world.ask(b"ping\n") == b"con_lost\n"
    assert broker.health.state == DEAD
    peer = away.listen()
    world.pass_time(1)
    peer.accept()
    world.settle()
    assert [severity for severity, _ in world.log.lines] == [
        "CRITICAL",
        "WARNING",
        "SUCCESS",
        "SUCCESS",
    ]
