"""What becomes of a request whose connection fails: sent again only if not a byte was sent."""

from __future__ import annotations

import errno

import pytest

from tests.broker.ports import Connector

BIG = b"x" * (4 << 20) + b"\n"


@pytest.fixture
def connector(world):
    return Connector(world)


def broken():
    return BrokenPipeError(errno.EPIPE, "Broken pipe")


def say(connector, number, text):
    connector.far[number].sendall(text)


def test_a_request_of_which_nothing_was_sent_is_sent_again(world, connector):
    """The connection is sound as far as anyone knows, until the first byte is to be sent."""
    connector.scripts = [[5, broken()]]
    world.start(connector=connector, max_connections=1)
    client = world.client(b"ping\n")
    world.settle()
    say(connector, 0, b"pong\n")
    assert client.line() == b"pong\n"
    client.send(b"again\n")
    world.until(lambda: len(connector.far) == 2)
    world.settle()
    assert connector.far[1].recv(100) == b"again\n"
    assert connector.far[0].recv(100) == b"ping\n"
    assert client.silent()
    say(connector, 1, b"yes\n")
    assert client.line() == b"yes\n"
    assert world.broker.stats()["con_lost"] == 0


def test_it_goes_to_the_head_of_the_queue(world, connector):
    world.start(connector=connector, max_connections=1)
    client = world.client(b"ping\n")
    world.settle()
    say(connector, 0, b"pong\n")
    assert client.line() == b"pong\n"
    # The connection takes no byte of the next one, and two more wait behind it.
    while connector.ports[0].port.send(b"#" * 1000):
        pass
    client.send(b"first\n")
    world.settle()
    others = []
    for text in (b"second\n", b"third\n"):
        others.append(world.client(text))
        world.settle()
    assert world.broker.stats()["queued"] == 2
    connector.far[0].close()
    world.until(lambda: len(connector.far) == 2)
    for text in (b"first\n", b"second\n", b"third\n"):
        world.settle()
        assert connector.far[1].recv(100) == text
        say(connector, 1, text)
    assert client.line() == b"first\n"
    assert [other.line() for other in others] == [b"second\n", b"third\n"]


@pytest.mark.parametrize("how", ["send", "closed", "answers"])
def test_a_connection_that_has_taken_nothing_yet(world, connector, how):
    connector.scripts = [[100, 0, broken() if how == "send" else 0, 0, 0, 0, 0, 0, 0]]
    world.start(connector=connector, max_connections=1)
    client = world.client(b"ping\n")
    world.settle()
    say(connector, 0, b"pong\n")
    assert client.line() == b"pong\n"
    client.send(b"again\n")
    if how == "closed":
        connector.far[0].close()
    if how == "answers":
        say(connector, 0, b"to nothing\n")
    world.until(lambda: len(connector.far) == 2)
    world.settle()
    assert connector.far[1].recv(100) == b"again\n"
    say(connector, 1, b"yes\n")
    assert client.line() == b"yes\n"
    # No line was begun there, so there is none that could look whole.
    assert connector.ports[0].how == "closed"


@pytest.mark.parametrize("before", [[], [0], [1], [0, 1, 0]])
@pytest.mark.parametrize("sent", range(1, 5))
def test_a_request_of_which_a_part_was_sent_is_not_sent_again(world, connector, before, sent):
    """Cut at every byte: it is not sent again, and the connection is reset, not closed."""
    connector.scripts = [[100, *before, sent, broken()]]
    world.start(connector=connector)
    client = world.client(b"ping\n")
    world.settle()
    say(connector, 0, b"pong\n")
    assert client.line() == b"pong\n"
    client.send(b"again\n")
    assert client.line() == b"con_lost\n"
    assert world.broker.stats()["con_lost"] == 1
    assert len(connector.far) == 1
    assert connector.ports[0].how == "reset"
    world.settle()
    assert connector.far[0].recv(100) == b"ping\n" + b"again\n"[: sum(before) + sent]


def test_a_broker_that_is_stopped_sends_nothing_again(world, connector):
    broker = world.start(connector=connector, max_connections=1)
    client = world.client(b"ping\n")
    world.settle()
    say(connector, 0, b"pong\n")
    assert client.line() == b"pong\n"
    while connector.ports[0].port.send(b"#" * 1000):
        pass
    client.send(b"again\n")
    world.settle()
    broker.stop()
    assert client.rest() == b"con_lost\n"
    assert len(connector.far) == 1
    # Not a byte of it was sent, so there is no line that could look whole.
    assert connector.ports[0].how == "closed"


def test_a_request_that_was_sent_whole_is_not_sent_again(world):
    peer = world.peer()
    world.start(peer)
    client, link = world.acquainted(peer)
    client.send(b"store:x\n")
    assert link.line() == b"store:x\n"
    link.close()
    assert client.line() == b"con_lost\n"
    world.settle()
    assert peer.take() is None
    assert world.log.only("lost a connection") == "WARNING"
    assert world.log.only("request") == "WARNING"


@pytest.mark.parametrize("pieces", [[1] * 10, [3, 0, 0, 3], [0, 1, 0, 5]])
def test_no_byte_is_lost_or_doubled_when_the_kernel_takes_little(world, connector, pieces):
    connector.scripts = [pieces]
    world.start(connector=connector)
    client = world.client(b"0123456789\n")
    world.settle()
    world.until(lambda: not connector.ports[0].sends)
    world.settle()
    assert connector.far[0].recv(100) == b"0123456789\n"
    assert client.silent()
    say(connector, 0, b"ok\n")
    assert client.line() == b"ok\n"


def test_a_large_request_to_a_slow_peer_arrives_whole(world):
    peer = world.peer(room=4096)
    world.start(peer)
    request = bytes(range(11, 256)) * 20_000 + b"\n"
    client = world.client(request)
    link = peer.accept()
    assert link.bytes(len(request)) == request
    link.send(b"ok\n")
    assert client.line() == b"ok\n"


def test_what_a_stuck_peer_leaves_cut_is_reset(timed):
    world = timed
    peer = world.peer(room=4096)
    world.start(peer, reply_timeout=130)
    client = world.client(BIG)
    link = peer.accept()
    link.bytes(1000)
    world.pass_time(131)
    assert client.line() == b"con_lost\n"
    with pytest.raises(ConnectionResetError):
        link.rest()


def test_what_was_written_whole_is_closed_in_good_order(timed):
    """A reset could take a whole request from the peer before it has read it."""
    world = timed
    peer = world.peer()
    world.start(peer, reply_timeout=130)
    client = world.client(b"ping\n")
    link = peer.accept()
    world.pass_time(131)
    assert client.line() == b"con_lost\n"
    assert link.rest() == b"ping\n"


def test_a_request_that_was_begun_is_written_to_its_end_for_a_client_that_has_gone(world):
    peer = world.peer(room=4096)
    world.start(peer, abandoned="drop")
    client = world.client(BIG)
    link = peer.accept()
    link.bytes(10)
    client.close()
    assert link.bytes(len(BIG) - 10) == BIG[10:]
    link.send(b"ok\n")
    world.until(lambda: world.broker.stats()["idle"] == 1)
    assert world.broker.stats()["abandoned"] == 1


def test_the_others_go_on_when_one_connection_fails(world):
    peer = world.peer()
    world.start(peer, max_connections=2)
    _, first = world.acquainted(peer)
    one = world.client(b"one\n")
    assert first.line() == b"one\n"
    two = world.client(b"two\n")
    second = peer.accept()
    assert second.line() == b"two\n"
    waiting = world.client(b"three\n")
    world.settle()
    second.reset()
    assert two.line() == b"con_lost\n"
    # The one that waits is not failed by that: the connection that is left takes it.
    assert waiting.silent()
    first.send(b"1\n")
    assert one.line() == b"1\n"
    assert first.line() == b"three\n"
    first.send(b"3\n")
    assert waiting.line() == b"3\n"


@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_idle_connection_that_the_peer_ends_costs_no_request(world, how):
    peer = world.peer()
    broker = world.start(peer)
    client, link = world.acquainted(peer)
    getattr(link, how)()
    world.until(lambda: broker.stats()["connections"] == 0)
    client.send(b"again\n")
    link = peer.accept()
    assert link.line() == b"again\n"
    link.send(b"ok\n")
    assert client.line() == b"ok\n"
    assert broker.health.retries == broker.settings.connection_retries
