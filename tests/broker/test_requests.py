"""One request's life: who gets which reply, in what order, over how many connections."""

from __future__ import annotations

import socket

import pytest

from lonc._purepath import RECEIVE
from tests.broker.ports import Connector


def test_one_request(world):
    peer = world.peer()
    world.start(peer)
    client = world.client(b"ping\n")
    link = peer.accept()
    assert link.line() == b"ping\n"
    assert client.silent()
    link.send(b"pong\n")
    assert client.line() == b"pong\n"
    # Both connections go on.
    client.send(b"again\n")
    assert link.line() == b"again\n"
    link.send(b"yes\n")
    assert client.line() == b"yes\n"
    assert peer.take() is None


@pytest.mark.parametrize(
    "octets",
    [b"\0", b"\r", b"a\rb\r", bytes(range(0x80, 0x100)), b"\0" * 5, bytes(set(range(256)) - {10})],
)
def test_all_octets_go_through_as_they_are(world, octets):
    peer = world.peer()
    world.start(peer)
    client = world.client(octets + b"\n")
    link = peer.accept()
    assert link.line() == octets + b"\n"
    link.send(octets[::-1] + b"\n")
    assert client.line() == octets[::-1] + b"\n"


def test_each_client_gets_its_own_reply(world):
    peer = world.peer()
    world.start(peer, max_connections=3)
    clients = [world.client(b"%d\n" % i) for i in range(3)]
    links = [peer.accept() for _ in clients]
    asked = {link.line(): link for link in links}
    assert set(asked) == {b"0\n", b"1\n", b"2\n"}
    for i in (2, 0, 1):
        asked[b"%d\n" % i].send(b"for %d\n" % i)
        assert clients[i].line() == b"for %d\n" % i
        assert [wire.silent() for wire in clients] == [True] * 3


def test_two_lines_in_one_write_are_two_requests_in_order(world):
    peer = world.peer()
    world.start(peer)
    client = world.client(b"one\ntwo\n")
    link = peer.accept()
    assert link.line() == b"one\n"
    # The second is not taken before the first is answered, not even by another connection.
    assert link.silent()
    assert peer.take() is None
    link.send(b"1\n")
    assert client.line() == b"1\n"
    assert link.line() == b"two\n"
    link.send(b"2\n")
    assert client.line() == b"2\n"


def test_what_is_sent_early_is_kept(world):
    peer = world.peer()
    world.start(peer)
    client = world.client(b"one\n")
    link = peer.accept()
    assert link.line() == b"one\n"
    for octet in (b"t", b"w", b"o"):
        client.send(octet)
        assert link.silent()
    link.send(b"1\n")
    assert client.line() == b"1\n"
    assert link.silent()
    client.send(b"\n")
    assert link.line() == b"two\n"
    link.send(b"2\n")
    assert client.line() == b"2\n"


def test_sixty_thousand_lines_in_one_write(world):
    peer = world.peer()
    world.start(peer)
    count = 60_000
    lines = b"".join(b"%d\n" % i for i in range(count))
    client = world.client()
    link = peer.accept_after(client, lines)
    received, replies = [], bytearray()

    def done():
        link._receive()
        if link.kept:
            received.append(link.kept)
            link.kept = b""
            # One reply for one request; more at once would be seen as a fault of lonc here.
            assert received[-1].count(b"\n") == 1
            link.send(received[-1])
        client.pump()
        client._receive()
        replies.extend(client.kept)
        client.kept = b""
        return len(replies) >= len(lines)

    world.until(done)
    assert bytes(replies) == lines
    assert b"".join(received) == lines


def test_replies_that_need_no_peer_do_not_recurse(world):
    world.start(world.peer(), dialect="versioned")
    count = 60_000
    client = world.client()
    client.post(b"\n" * count)
    world.until(lambda: client.pump() or client._receive() or len(client.kept) >= count * 9)
    assert client.kept == b"con_lost\n" * count


def test_the_queue_is_first_come_first_served(world):
    peer = world.peer()
    world.start(peer, max_connections=1)
    clients = [world.client(b"0\n")]
    link = peer.accept()
    for i in range(1, 5):
        clients.append(world.client(b"%d\n" % i))
        world.settle()
    for i, client in enumerate(clients):
        assert link.line() == b"%d\n" % i
        link.send(b"reply %d\n" % i)
        assert client.line() == b"reply %d\n" % i
    assert peer.take() is None


def open_links(world, peer, count):
    """Have `count` connections opened and idle; return their ends, the first released first."""
    clients = [world.client(b"open\n") for _ in range(count)]
    links = [peer.accept() for _ in range(count)]
    for link in links:
        assert link.line() == b"open\n"
    for link in links:
        link.send(b"opened\n")
        world.until(lambda link=link: world.broker.stats()["idle"] == links.index(link) + 1)
    for client in clients:
        assert client.line() == b"opened\n"
        client.close()
    world.settle()
    return links


def test_the_connection_used_last_is_used_next(world):
    peer = world.peer()
    world.start(peer)
    first, second, third = open_links(world, peer, 3)
    for _ in range(2):
        client = world.client(b"ping\n")
        assert third.line() == b"ping\n"
        third.send(b"x\n")
        assert client.line() == b"x\n"
    one, two = world.client(b"a\n"), world.client(b"b\n")
    assert {third.line(), second.line()} == {b"a\n", b"b\n"}
    assert first.silent()
    assert one.silent() and two.silent()


def test_no_more_connections_than_allowed_and_no_more_than_there_is_work_for(world):
    peer = world.peer()
    world.start(peer, max_connections=4, max_dialling=10)
    world.settle()
    assert peer.take() is None, "connections are opened only for work"
    clients = [world.client(b"%d\n" % i) for i in range(2)]
    links = [peer.accept(), peer.accept()]
    world.settle()
    assert peer.take() is None
    clients += [world.client(b"%d\n" % i) for i in range(2, 9)]
    links += [peer.accept(), peer.accept()]
    world.settle()
    assert peer.take() is None
    assert world.broker.stats()["queued"] == 5
    for link in links:
        assert link.line()[1:] == b"\n"


def test_no_more_are_dialled_at_once_than_allowed(world):
    peer = world.peer()
    world.start(peer, "versioned", max_connections=10, max_dialling=2)
    for _ in range(6):
        world.client(b"ping\n")
    links = [peer.accept(), peer.accept()]
    world.settle()
    assert peer.take() is None
    assert world.exchange.attempts == 2
    # One that is through its dialogue makes room for the next.
    for expected, answer in (
        (b"init\n", b"1\n"),
        (b"1\n", b"ok\n"),
        (b"version\n", b"version:1\n"),
    ):
        assert links[0].line() == expected
        links[0].send(answer)
    assert links[0].line() == b"sethost:msul1\n"
    links[0].send(b"ok\n")
    assert links[0].line() == b"ekey\n"
    assert peer.take() is None
    links[0].send(b"1\n")
    assert links[0].line() == b"ping\n"
    peer.accept()
    world.settle()
    assert peer.take() is None


def test_one_more_is_not_dialled_for_a_request_that_a_busy_one_can_take(world):
    """Two requests wait and one dialogue is under way: a second one; not a third."""
    peer = world.peer()
    world.start(peer, "classic", max_dialling=10)
    for _ in range(2):
        world.client(b"ping\n")
    peer.accept(), peer.accept()
    world.settle()
    assert peer.take() is None


def test_a_reply_for_a_client_that_has_gone_is_thrown_away(world):
    peer = world.peer()
    world.start(peer, max_connections=1)
    gone = world.client(b"secret\n")
    link = peer.accept()
    assert link.line() == b"secret\n"
    other = world.client(b"mine\n")
    gone.close()
    world.settle()
    assert world.broker.stats()["clients"] == 1
    link.send(b"for the one who left\n")
    assert link.line() == b"mine\n"
    assert other.silent()
    link.send(b"yours\n")
    assert other.line() == b"yours\n"
    assert world.broker.stats()["abandoned"] == 1


def test_a_closed_idle_connection_is_never_given_a_request(world):
    """Both are seen in the same pass, the client first: peers are handled before clients."""
    peer = world.peer()
    world.start(peer)
    client, link = world.acquainted(peer)
    client.sock.send(b"again\n")
    link.close()
    link = peer.accept()
    assert link.line() == b"again\n"
    link.send(b"y\n")
    assert client.line() == b"y\n"


def test_a_peer_that_replies_and_closes_costs_no_request(world):
    """The end is seen together with the reply, before the next request is written behind it."""
    peer = world.peer()
    world.start(peer, max_connections=1)
    client, link = world.acquainted(peer)
    client.send(b"one\n")
    assert link.line() == b"one\n"
    others = [world.client(b"%d\n" % number) for number in range(3)]
    world.settle()
    link.sock.send(b"1\n")
    link.close()
    assert client.line() == b"1\n"
    link = peer.accept()
    for number, other in enumerate(others):
        assert link.line() == b"%d\n" % number
        link.send(b"y\n")
        assert other.line() == b"y\n"
    assert world.log.only("lost a connection") == "WARNING"


def test_a_peer_that_ends_its_side_behind_a_long_reply(world):
    """What it said before is read to its last byte."""
    connector = Connector(world)
    world.start(connector=connector, max_connections=1)
    client = world.client(b"ping\n")
    world.until(lambda: connector.far)
    world.settle()
    other = world.client(b"again\n")
    world.settle()
    reply = b"x" * (RECEIVE + 10_000) + b"\n"
    assert connector.far[0].send(reply) == len(reply)
    connector.far[0].shutdown(socket.SHUT_WR)
    assert client.bytes(len(reply)) == reply
    world.until(lambda: len(connector.far) == 2)
    connector.far[1].send(b"y\n")
    assert other.line() == b"y\n"


def test_the_same_with_more_clients_than_one_look_at_the_kernel_finds(world):
    peer = world.peer()
    world.start(peer, max_connections=1)
    clients = [world.client() for _ in range(700)]
    clients[0].send(b"ping\n")
    link = peer.accept()
    assert link.line() == b"ping\n"
    link.send(b"x\n")
    assert clients[0].line() == b"x\n"
    world.settle()
    for client in clients:
        client.sock.send(b"again\n")
    link.close()
    link = peer.accept()
    assert link.line() == b"again\n"
    assert world.broker.stats()["con_lost"] == 0


def test_a_client_of_the_same_moment_never_gets_a_stray_line(world):
    peer = world.peer()
    world.start(peer)
    client, link = world.acquainted(peer)
    client.sock.send(b"again\n")
    link.send(b"stray\n")
    second = peer.accept()
    assert second.line() == b"again\n"
    second.send(b"right\n")
    assert client.line() == b"right\n"
    assert link.rest() == b""


def test_two_reply_lines_in_one_segment_finish_the_connection(world):
    peer = world.peer()
    world.start(peer, max_connections=1)
    client, link = world.acquainted(peer)
    client.send(b"one\n")
    assert link.line() == b"one\n"
    next_client = world.client(b"two\n")
    world.settle()
    link.send(b"first\nsecond\n")
    # Which of the lines answers cannot be told: neither is handed on.
    assert client.line() == b"con_lost\n"
    assert link.rest() == b""
    link = peer.accept()
    assert link.line() == b"two\n"
    link.send(b"2\n")
    assert next_client.line() == b"2\n"


@pytest.mark.parametrize("surplus", [b"", b"y", b"\n", b"another\n"])
@pytest.mark.parametrize("reads", [1, 2, 15, 16, 17, 32])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_surplus_is_seen_behind_a_reply_of_any_size(world, reads, more, surplus):
    """What waits in the kernel behind the reply's last byte, at the edge of a read or of a turn."""
    connector = Connector(world)
    world.start(connector=connector, max_connections=1)
    client = world.client(b"ping\n")
    world.until(lambda: connector.far)
    connector.far[0].send(b"pong\n")
    assert client.line() == b"pong\n"
    client.send(b"ping\n")
    world.settle()
    reply = b"x" * (reads * RECEIVE + more - 1) + b"\n"
    text = reply + surplus
    receives = [text[start : start + RECEIVE] for start in range(0, len(text), RECEIVE)]
    connector.ports[0].receives = [*receives, None]
    connector.far[0].send(b"!")  # only to make it readable
    world.until(lambda: len(connector.ports[0].receives) < 2)
    if surplus:
        assert client.line() == b"con_lost\n"
        assert connector.ports[0].how == "closed"
    else:
        assert client.line() == reply


@pytest.mark.parametrize("stray", [b"x", b"\n", b"stray\n", b"a\nb\n"])
def test_any_byte_on_an_idle_connection_finishes_it(world, stray):
    peer = world.peer()
    world.start(peer)
    client, link = world.acquainted(peer)
    link.send(stray)
    assert link.rest() == b""
    assert client.silent()
    client.send(b"again\n")
    link = peer.accept()
    assert link.line() == b"again\n"
    assert world.log.only("spoke on an idle connection") == "WARNING"


def test_a_reply_before_the_request_was_written_whole(world):
    peer = world.peer(room=4096)
    world.start(peer)
    client = world.client(b"x" * (8 << 20) + b"\n")
    link = peer.accept()
    link.bytes(10)
    world.settle()
    link.send(b"too early\n")
    assert client.line() == b"con_lost\n"
    # The peer must not take what it has for a whole line.
    with pytest.raises(ConnectionResetError):
        link.rest()


def test_the_connection_takes_the_next_request_in_the_step_that_brought_the_reply(world):
    peer = world.peer()
    world.start(peer, max_connections=1)
    world.client(b"one\n")
    link = peer.accept()
    assert link.line() == b"one\n"
    world.client(b"two\n")
    world.settle()
    link.sock.send(b"1\n")
    world.reactor.run_once(1)
    assert link.sock.recv(100) == b"two\n"


def test_while_a_client_waits_what_the_kernel_watches_does_not_change(world):
    peer = world.peer()
    world.start(peer)
    client = world.client(b"ping\n")
    link = peer.accept()
    [inside] = world.exchange.clients
    masks = {inside.mask}
    assert link.line() == b"ping\n"
    client.send(b"half a")
    world.settle()
    masks.add(inside.mask)
    link.send(b"pong\n")
    assert client.line() == b"pong\n"
    masks.add(inside.mask)
    assert masks == {world.parts.READ}
