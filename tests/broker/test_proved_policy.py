"""Laws of policy, each seen in the counters: what is over has ended in the same pass."""

from __future__ import annotations

import errno

import pytest

FAR = 100_000
LIMITS = ("queue_timeout", "reply_timeout", "transaction_timeout", "dialogue_timeout")


def counts(broker):
    """How many requests were lost, and how many connections there are, or are being made."""
    stats = broker.stats()
    return stats["con_lost"], stats["connections"], stats["attempts"]


@pytest.mark.parametrize(
    ("limit", "dialect", "after"),
    [
        # The other request has the only connection.
        ("queue_timeout", "line", (1, 1, 0)),
        # With the connection nothing is alive, so that the one that is queued is lost too.
        ("reply_timeout", "line", (2, 0, 0)),
        ("transaction_timeout", "line", (2, 0, 0)),
        ("dialogue_timeout", "classic", (2, 0, 0)),
    ],
)
def test_each_time_limit_ends_what_it_limits(timed, limit, dialect, after):
    world = timed
    peer = world.peer()
    broker = world.start(
        peer, dialect, max_connections=1, **dict.fromkeys(LIMITS, FAR) | {limit: 20}
    )
    clients = [world.client(b"ping\n") for _ in range(2)]
    link = peer.accept()
    assert link.line() in (b"ping\n", b"init\n")
    alive = (1, 0) if dialect == "line" else (0, 1)
    world.pass_time(19.9)
    assert counts(broker) == (0, *alive)
    world.pass_time(0.2)
    assert counts(broker) == after
    assert sum(client.silent() for client in clients) == 2 - after[0]


@pytest.mark.parametrize("unread", [b"", b"x" * (4 << 20)], ids=["begins a line", "takes nothing"])
def test_client_timeout_lets_a_client_go(timed, unread):
    world = timed
    peer = world.peer()
    broker = world.start(peer, client_timeout=20)
    client, link = world.acquainted(peer)
    if unread:
        client.send(b"ping\n")
        assert link.line() == b"ping\n"
        link.send(unread + b"\n")
    else:
        client.send(b"half a li")
    world.pass_time(19.9)
    assert broker.stats()["clients"] == 1
    world.pass_time(0.2)
    assert broker.stats()["clients"] == 0


def test_drain_timeout_ends_a_drain(timed):
    world = timed
    peer = world.peer()
    broker = world.start(peer, drain_timeout=20)
    client, link = world.acquainted(peer)
    client.send(b"ping\n")
    assert link.line() == b"ping\n"
    done = []
    broker.drain(lambda: done.append(broker.is_closed))
    world.pass_time(19.9)
    assert done == []
    world.pass_time(0.2)
    assert done == [True]


def test_nobody_goes_on_waiting_for_a_host_that_is_down(timed):
    world = timed
    broker = world.start()  # nobody listens there
    for _ in range(3):
        world.client(b"ping\n")
    world.until(lambda: not broker.health.sound)
    assert broker.stats()["queued"] == 0
    assert broker.stats()["con_lost"] == 3


def test_accepting_goes_on_a_second_after_it_failed(timed):
    """What the exchange does where the system has no descriptor left is only told here."""
    world = timed
    broker = world.start()
    world.exchange.accept_clients(False)
    broker.trouble("accept", errno.EMFILE)
    world.pass_time(0.9)
    assert not world.exchange.accepting
    world.pass_time(0.2)
    assert world.exchange.accepting


def test_other_settings_leave_connections_alone(world):
    peer = world.peer()
    broker = world.start(peer, max_connections=2)
    client, idle = world.acquainted(peer)
    client.send(b"one\n")
    assert idle.line() == b"one\n"
    other = world.client(b"two\n")
    busy = peer.accept()
    assert busy.line() == b"two\n"
    idle.send(b"1\n")
    assert client.line() == b"1\n"
    world.settle()
    broker.reconfigure(broker.settings.replace(reply_timeout=77, max_connections=3))
    world.settle()
    assert idle.silent() and busy.silent()
    busy.send(b"2\n")
    assert other.line() == b"2\n"
    world.settle()
    assert broker.stats()["idle"] == 2
