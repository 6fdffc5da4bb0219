"""Everything that happens because time has passed, on a clock that only the test moves."""

from __future__ import annotations

import pytest


def acquainted_links(world, peer, count):
    """`count` connections, all idle, with one second between their last answers."""
    clients = [world.client(b"%d\n" % i) for i in range(count)]
    links = [peer.accept() for _ in range(count)]
    for link in links:
        assert link.line()
        world.pass_time(1)
        link.send(b"ok\n")
    assert [client.line() for client in clients] == [b"ok\n"] * count
    world.settle()
    return links


def test_reply_timeout(timed):
    world = timed
    peer = world.peer()
    broker = world.start(peer, reply_timeout=130)
    client, link = world.acquainted(peer)
    client.send(b"put:secret\n")
    assert link.line() == b"put:secret\n"
    world.pass_time(129.9)
    assert client.silent()
    world.pass_time(0.2)
    assert client.line() == b"con_lost\n"
    assert link.rest() == b""
    assert broker.health.retries == broker.settings.connection_retries - 1
    assert {severity for severity, _ in world.log.having("reply_timeout")} == {"WARNING"}
    assert len(world.log.having("reply_timeout")) == 3  # connection, request, host


def test_a_reply_after_its_timeout_goes_to_nobody(timed):
    """Least of all to the next client."""
    world = timed
    peer = world.peer()
    world.start(peer, max_connections=1, reply_timeout=10, connection_retries=9)
    client, link = world.acquainted(peer)
    client.send(b"one\n")
    assert link.line() == b"one\n"
    world.pass_time(11)
    assert client.line() == b"con_lost\n"
    world.pass_time(60)
    client.send(b"two\n")
    second = peer.accept()
    assert second.line() == b"two\n"
    link.send(b"late answer to one\n")
    assert client.silent()
    second.send(b"2\n")
    assert client.line() == b"2\n"


def test_each_byte_of_a_reply_starts_its_timeout_anew(timed):
    world = timed
    peer = world.peer()
    world.start(peer, reply_timeout=130, transaction_timeout=1000)
    client, link = world.acquainted(peer)
    client.send(b"ping\n")
    assert link.line() == b"ping\n"
    for octet in b"abc":
        world.pass_time(129)
        link.send(bytes([octet]))
    world.pass_time(129)
    link.send(b"\n")
    assert client.line() == b"abc\n"


def test_each_byte_of_the_request_that_is_taken_starts_it_anew(timed):
    world = timed
    peer = world.peer(room=4096)
    world.start(peer, reply_timeout=130, transaction_timeout=10000)
    size = 8 << 20
    client = world.client(b"x" * (size - 1) + b"\n")
    link = peer.accept()
    # The kernel has room for less than the rest, so that each reading has some more taken.
    for _ in range(3):
        link.bytes(1 << 20)
        world.pass_time(129)
    assert client.silent()
    link.bytes(size - (3 << 20))
    link.send(b"ok\n")
    assert client.line() == b"ok\n"


def test_transaction_timeout_ends_what_trickles(timed):
    world = timed
    peer = world.peer()
    broker = world.start(peer, reply_timeout=130, transaction_timeout=600)
    client, link = world.acquainted(peer)
    client.send(b"ping\n")
    assert link.line() == b"ping\n"
    for _ in range(5):
        world.pass_time(100)
        link.send(b"x")
    world.pass_time(99)
    assert client.silent()
    world.pass_time(1.1)
    assert client.line() == b"con_lost\n"
    assert link.rest() == b""
    assert world.log.having("transaction_timeout")
    # The peer did answer, only too slowly: that is no reason to give the host up.
    assert broker.health.retries == broker.settings.connection_retries


def test_transaction_timeout_counts_from_the_connection_not_from_the_queue(timed):
    world = timed
    peer = world.peer()
    world.start(
        peer, max_connections=1, reply_timeout=100, transaction_timeout=100, queue_timeout=500
    )
    first, link = world.acquainted(peer)
    first.send(b"one\n")
    assert link.line() == b"one\n"
    second = world.client(b"two\n")
    world.pass_time(90)
    link.send(b"1\n")
    assert link.line() == b"two\n"
    world.pass_time(90)
    assert second.silent()
    link.send(b"2\n")
    assert second.line() == b"2\n"


def test_queue_timeout(timed):
    world = timed
    peer = world.peer()
    world.start(peer, max_connections=1, queue_timeout=60)
    first, link = world.acquainted(peer)
    first.send(b"one\n")
    assert link.line() == b"one\n"
    second = world.client(b"two\n")
    world.pass_time(30)
    third = world.client(b"three\n")
    world.pass_time(29.9)
    assert second.silent()
    world.pass_time(0.2)
    assert second.line() == b"con_lost\n"
    assert third.silent()
    world.pass_time(30)
    assert third.line() == b"con_lost\n"
    assert first.silent(), "what was given to a connection waits for longer"
    assert link.silent()
    assert world.broker.stats()["queued"] == 0
    assert {severity for severity, _ in world.log.having("queue_timeout")} == {"WARNING"}
    # Its client may ask again.
    link.send(b"1\n")
    second.send(b"two again\n")
    assert link.line() == b"two again\n"


def test_queue_timeout_of_what_was_submitted(timed):
    world = timed
    peer = world.peer()
    broker = world.start(peer, max_connections=1, queue_timeout=60)
    first, link = world.acquainted(peer)
    first.send(b"one\n")
    assert link.line() == b"one\n"
    ended = []
    for background in (False, True):
        broker.submit(b"ping", ended.append, background=background)
    world.pass_time(59)
    assert ended == []
    world.pass_time(2)
    assert [(each.reply, each.sent) for each in ended] == [(None, 0)] * 2
    assert "queue_timeout" in ended[0].lost


@pytest.mark.parametrize("text", [b"x", b"half a li"])
def test_a_line_must_end_in_time(timed, text):
    world = timed
    world.start(world.peer(), client_timeout=60)
    client = world.client()
    world.pass_time(1000)
    assert client.silent(), "a client that has said nothing may stay"
    client.send(text)
    world.pass_time(59)
    client.send(b"more")
    world.pass_time(0.9)
    assert client.silent()
    # From its first byte: more bytes do not help.
    world.pass_time(0.2)
    assert client.rest() == b""
    assert world.log.only("client_timeout") == "INFO"


def test_each_line_has_its_own_time(timed):
    world = timed
    peer = world.peer()
    world.start(peer, client_timeout=60)
    client, link = world.acquainted(peer)
    for _ in range(3):
        client.send(b"pi")
        world.pass_time(50)
        client.send(b"ng\n")
        assert link.line() == b"ping\n"
        world.pass_time(50)
        link.send(b"pong\n")
        assert client.line() == b"pong\n"


def test_the_time_for_an_early_line_begins_with_the_reply(timed):
    world = timed
    peer = world.peer()
    world.start(peer, client_timeout=60)
    client, link = world.acquainted(peer)
    client.send(b"ping\nhalf")
    assert link.line() == b"ping\n"
    world.pass_time(100)
    assert client.silent()
    link.send(b"pong\n")
    assert client.line() == b"pong\n"
    world.pass_time(59)
    assert client.silent()
    world.pass_time(2)
    assert client.rest() == b""


def test_a_client_that_takes_nothing_of_its_reply(timed):
    world = timed
    peer = world.peer()
    world.start(peer, client_timeout=60, max_connections=1)
    client, link = world.acquainted(peer)
    client.send(b"ping\n")
    assert link.line() == b"ping\n"
    link.send(b"x" * (4 << 20) + b"\n")
    world.settle()
    assert world.exchange.held > 1 << 20
    # Nobody else waits for it, meanwhile and afterwards.
    other = world.client(b"me too\n")
    assert link.line() == b"me too\n"
    link.send(b"yes\n")
    assert other.line() == b"yes\n"
    world.pass_time(59)
    # It takes some: it has time again.
    client.bytes(1 << 20)
    world.pass_time(59)
    assert world.exchange.held > 0
    world.pass_time(2)
    assert world.exchange.held == 0
    assert len(client.rest()) < 3 << 20
    assert world.broker.stats()["clients"] == 1
    assert world.log.only("client_timeout") == "INFO"


def test_surplus_connections_are_closed_one_by_one_the_one_idle_longest_first(timed):
    world = timed
    peer = world.peer()
    broker = world.start(peer, "line", max_dialling=4, idle_timeout=300, idle_close_interval=30)
    links = acquainted_links(world, peer, 4)
    # One of them is in use, again and again: the others age.
    world.pass_time(290)
    assert broker.stats()["idle"] == 4
    client = world.client(b"ping\n")
    assert links[3].line() == b"ping\n"
    links[3].send(b"pong\n")
    assert client.line() == b"pong\n"
    world.pass_time(8)
    for closed, waits in ((1, 30), (2, 30), (3, 232)):
        assert broker.stats()["idle"] == 4 - closed
        assert [link.silent() for link in links[closed:]] == [True] * (4 - closed)
        assert links[closed - 1].rest() == b""
        world.pass_time(waits - 1)
        assert broker.stats()["idle"] == 4 - closed
        world.pass_time(1.1)
    assert broker.stats()["idle"] == 0
    assert links[3].rest() == b""


def test_a_connection_in_use_is_not_surplus(timed):
    world = timed
    peer = world.peer()
    world.start(peer, idle_timeout=10)
    client, link = world.acquainted(peer)
    for _ in range(10):
        world.pass_time(9)
        client.send(b"ping\n")
        assert link.line() == b"ping\n"
        link.send(b"pong\n")
        assert client.line() == b"pong\n"
    world.pass_time(11)
    assert link.rest() == b""


def test_a_surplus_connection_is_closed_with_a_farewell(timed):
    world = timed
    peer = world.peer()
    world.start(peer, "classic", idle_timeout=300)
    _, link = world.acquainted(peer, "classic")
    world.pass_time(301)
    assert link.rest() == b"exit\n"
    # An orderly event is no warning, and takes nothing from the budget.
    assert {severity for severity, _ in world.log.lines} == {"SUCCESS"}
    assert world.broker.health.sound


def test_nothing_wakes_a_broker_that_has_nothing_to_wait_for(timed):
    world = timed
    peer = world.peer()
    world.start(peer)
    client, link = world.acquainted(peer)
    link.close()
    world.settle()
    for _ in range(3):
        world.pass_time(1000)
    assert world.reactor.deadline() is None
    assert client.silent()
