"""Clients that misbehave: none of them costs another one anything."""

from __future__ import annotations

import os

import pytest

from lonc._purepath import RECEIVE
from tests.reactor.conftest import fork, readable


def test_end_of_file_after_a_whole_line(world):
    peer = world.peer()
    world.start(peer)
    client = world.client(b"ping\n")
    client.finish()
    link = peer.accept()
    assert link.line() == b"ping\n"
    world.settle()
    # Nothing left to notice about this client: no spinning while the peer thinks.
    assert not any(world.reactor.run_once(0.001) for _ in range(10))
    assert client.silent()
    link.send(b"pong\n")
    assert client.rest() == b"pong\n"
    world.settle()
    assert world.broker.stats()["clients"] == 0
    assert world.broker.stats()["abandoned"] == 0


def test_end_of_file_after_several_lines(world):
    peer = world.peer()
    world.start(peer)
    client = world.client(b"one\ntwo\nthr")
    client.finish()
    link = peer.accept()
    for line in (b"one\n", b"two\n"):
        assert link.line() == line
        link.send(line)
    assert client.rest() == b"one\ntwo\n"
    assert link.silent()
    assert world.log.only("in the middle of a line") == "INFO"


def test_end_of_file_while_the_reply_is_being_written(world):
    peer = world.peer()
    world.start(peer)
    client, link = world.acquainted(peer)
    client.send(b"ping\n")
    reply = b"x" * (2 << 20) + b"\n"
    assert link.line() == b"ping\n"
    link.send(reply)
    world.settle()
    client.finish()
    world.settle()
    assert not any(world.reactor.run_once(0.001) for _ in range(10))
    assert client.rest() == reply


@pytest.mark.parametrize("dialect", ["classic", "versioned"])
def test_an_empty_line_is_no_request(world, dialect):
    peer = world.peer()
    broker = world.start(peer, dialect)
    client = world.client(b"\n")
    assert client.line() == b"con_lost\n"
    world.settle()
    assert peer.take() is None
    client, link = world.acquainted(peer, dialect)
    client.send(b"\n")
    assert client.line() == b"con_lost\n"
    assert link.silent()
    assert broker.stats()["con_lost"] == 2
    # Only a whole empty line: with a carriage return it is data.
    client.send(b"\r\n")
    assert link.line() == b"\r\n"


def test_an_empty_line_is_a_request_where_there_is_no_dialogue(world):
    peer = world.peer()
    world.start(peer)
    client = world.client(b"\n")
    link = peer.accept()
    assert link.line() == b"\n"
    link.send(b"\n")
    assert client.line() == b"\n"


@pytest.mark.parametrize("pieces", [1, 7], ids=["in one write", "in pieces"])
@pytest.mark.parametrize("ends", [True, False], ids=["whole", "without end"])
@pytest.mark.parametrize("limit", [10, 100_000])
def test_a_line_that_is_too_long(world, limit, ends, pieces):
    peer = world.peer()
    world.start(peer, max_request=limit)
    client, link = world.acquainted(peer)
    fits = b"s" * limit + b"\n"
    client.send(fits)
    assert link.line() == fits
    link.send(b"ok\n")
    assert client.line() == b"ok\n"
    line = b"secret!" * (limit // 7) + b"!" * (limit % 7 + 1) + b"\n" * ends
    step = len(line) // pieces + 1
    for start in range(0, len(line), step):
        client.send(line[start : start + step])
        world.settle()
    assert client.bytes(9) == b"con_lost\n"
    world.settle()
    assert world.broker.stats()["clients"] == 0
    assert link.silent(), "nothing of it is forwarded"
    [(severity, text)] = world.log.having("max_request")
    assert severity == "WARNING"
    assert "secret" not in text
    assert str(limit + 1) in text or str(limit + 2) in text


def test_an_early_line_that_is_too_long(world):
    peer = world.peer()
    world.start(peer, max_request=1000)
    client, link = world.acquainted(peer)
    client.send(b"ping\n" + b"x" * 1001)
    assert link.line() == b"ping\n"
    assert client.silent()
    link.send(b"pong\n")
    # What was asked in good order is answered first.
    assert client.bytes(14) == b"pong\ncon_lost\n"
    world.settle()
    assert world.broker.stats()["clients"] == 0


def test_no_more_than_max_early_is_kept_while_a_client_waits(world):
    peer = world.peer()
    world.start(peer, max_early=65536)
    client, link = world.acquainted(peer)
    client.send(b"ping\n")
    assert link.line() == b"ping\n"
    early = b"".join(b"%0100d\n" % i for i in range(5000))
    client.post(early)
    for _ in range(50):
        client.pump()
        world.step()
    assert client.unsent, "the kernel holds the rest, and the client waits"
    # It is looked at after a read.
    assert 65536 <= world.exchange.held <= 65536 + RECEIVE + 100
    assert not any(world.reactor.run_once(0.001) for _ in range(10)), "no spinning"
    link.send(b"pong\n")
    replies, expected = bytearray(), b"pong\n" + early

    def done():
        client.pump()
        link._receive()
        link.kept, line = b"", link.kept
        link.send(line)
        client._receive()
        replies.extend(client.kept)
        client.kept = b""
        assert world.exchange.held <= 65536 + RECEIVE + 100
        return len(replies) >= len(expected)

    world.until(done)
    assert bytes(replies) == expected


@pytest.mark.parametrize("early", [b"", b"half", b"two\nthree\n"])
def test_a_client_that_hangs_up_while_its_request_is_under_way(world, early):
    peer = world.peer()
    world.start(peer, max_connections=1)
    client, link = world.acquainted(peer)
    other = world.client()
    client.send(b"one\n" + early)
    assert link.line() == b"one\n"
    client.close()
    world.settle()
    assert world.broker.stats()["clients"] == 1
    assert world.broker.stats()["abandoned"] == 1
    assert not any(world.reactor.run_once(0.001) for _ in range(10))
    other.send(b"mine\n")
    world.settle()
    link.send(b"1\n")
    assert link.line() == b"mine\n"
    link.send(b"yours\n")
    assert other.line() == b"yours\n"


def test_a_client_that_hangs_up_in_the_middle_of_its_reply(world):
    peer = world.peer()
    world.start(peer, max_connections=1)
    client, link = world.acquainted(peer)
    client.send(b"ping\n")
    assert link.line() == b"ping\n"
    link.send(b"x" * (4 << 20) + b"\n")
    world.settle()
    assert world.exchange.held > 0
    client.bytes(100_000)
    client.close()
    world.settle()
    assert world.exchange.held == 0
    assert world.broker.stats()["clients"] == 0
    assert world.broker.stats()["idle"] == 1
    other = world.client(b"mine\n")
    assert link.line() == b"mine\n"
    link.send(b"yours\n")
    assert other.line() == b"yours\n"


def test_a_client_that_connects_and_says_nothing(world):
    world.start(world.peer())
    clients = [world.client() for _ in range(3)]
    world.settle()
    assert world.broker.stats()["clients"] == 3
    clients[0].close()
    clients[1].finish()
    assert clients[1].rest() == b""
    world.settle()
    assert world.broker.stats()["clients"] == 1
    assert world.log.lines == []


@pytest.mark.parametrize("who", ["client", "peer"])
def test_a_connection_ends_of_which_a_forked_process_has_a_copy(world, who):
    """The kernel goes on reporting it, to whoever closed it without taking it off first."""
    peer = world.peer()
    world.start(peer)
    client, link = world.acquainted(peer)
    wire = {"client": client, "peer": link}[who]
    reader, writer = os.pipe()
    child = fork()
    if child == 0:
        # Of the connection, that is: of its far end nobody has one.
        wire.close()
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    wire.close()
    try:
        world.settle()
        assert not readable(world.reactor.fileno()), "waiting would return at once, for ever"
    finally:
        os.close(writer)
        os.waitpid(child, 0)
    assert world.broker.stats()["clients"] == (who == "peer")


def test_a_client_that_shuts_its_reading_down(world):
    """Its reply cannot be delivered: it is thrown away, and the client with it."""
    peer = world.peer()
    world.start(peer)
    client, link = world.acquainted(peer)
    client.send(b"ping\n")
    client.sock.shutdown(0)
    assert link.line() == b"ping\n"
    link.send(b"pong\n")
    world.settle()
    assert world.broker.stats()["clients"] == 0
    assert world.broker.stats()["idle"] == 1


def leave(client, how):
    """End a client in one of the ways there are, with its request in the queue."""
    if how == "after a half-close":
        client.finish()
        client.world.settle()
    if how == "with much sent ahead":
        client.send(b"y\n" * 40_000)
        client.world.settle()
    client.close()
    client.world.settle()


WAYS = ["at once", "after a half-close", "with much sent ahead"]


@pytest.mark.parametrize("how", WAYS)
def test_abandoned_while_queued_drop(either, how):
    world = either
    peer = world.peer()
    world.start(peer, max_connections=1, abandoned="drop")
    first, link = world.acquainted(peer)
    first.send(b"one\n")
    assert link.line() == b"one\n"
    gone = world.client(b"two\n")
    stays = world.client(b"three\n")
    stays.finish()
    world.settle()
    leave(gone, how)
    link.send(b"1\n")
    # Half-closed is not gone.
    assert link.line() == b"three\n"
    link.send(b"3\n")
    assert stays.rest() == b"3\n"
    assert world.broker.stats()["abandoned"] == 1
    assert world.broker.stats()["con_lost"] == 1


@pytest.mark.parametrize("how", WAYS)
def test_abandoned_while_queued_send(either, how):
    world = either
    peer = world.peer()
    world.start(peer, max_connections=1, abandoned="send")
    first, link = world.acquainted(peer)
    first.send(b"one\n")
    assert link.line() == b"one\n"
    leave(world.client(b"two\n"), how)
    last = world.client(b"three\n")
    world.settle()
    link.send(b"1\n")
    assert link.line() == b"two\n"
    link.send(b"for nobody\n")
    assert link.line() == b"three\n"
    link.send(b"3\n")
    assert last.line() == b"3\n"
    assert world.broker.stats()["abandoned"] == 1
    assert world.broker.stats()["con_lost"] == 0


def test_max_queue(timed):
    world = timed
    peer = world.peer()
    broker = world.start(peer, max_connections=1, max_queue=3)
    first, link = world.acquainted(peer)
    first.send(b"one\n")
    assert link.line() == b"one\n"
    waiting = []
    for i in range(3):
        waiting.append(world.client(b"%d\n" % i))
        world.settle()
    turned_away = [world.client(b"secret\n") for _ in range(5)]
    assert [client.line() for client in turned_away] == [b"con_lost\n"] * 5
    assert [client.silent() for client in waiting] == [True] * 3
    assert broker.stats()["queued"] == 3
    # Once a second at most, with a count.
    assert world.log.only("max_queue") == "WARNING"
    world.pass_time(1)
    turned_away[0].send(b"secret\n")
    assert turned_away[0].line() == b"con_lost\n"
    assert "4 more" in world.log.having("max_queue")[1][1]
    for i in range(3):
        link.send(b"x\n")
        assert link.line() == b"%d\n" % i
    assert [client.line() for client in (first, *waiting[:2])] == [b"x\n"] * 3


def test_hundreds_of_clients_that_come_and_go_in_every_way(world):
    peer = world.peer()
    world.start(peer, max_connections=2)
    keeper, link = world.acquainted(peer)

    def serve():
        while (wire := peer.take()) is not None:
            pass
        for wire in peer.wires:
            wire._receive()
            if wire.kept.endswith(b"\n"):
                assert wire.kept.count(b"\n") == 1
                wire.kept, line = b"", wire.kept
                wire.send(b"re " + line)

    for i in range(200):
        client = world.client([b"", b"x", b"%d\n" % i, b"%d\nmore\n" % i, b"%d\nmo" % i][i % 5])
        if i % 3 == 1:
            client.finish()
        if i % 7 != 6:
            world.step()
        client.close()
        serve()
    keeper.send(b"still there\n")
    world.until(lambda: serve() or keeper._receive() or keeper.kept)
    assert keeper.kept == b"re still there\n"
    world.settle()
    assert world.broker.stats()["clients"] == 1
