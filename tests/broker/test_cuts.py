"""Lines that come in pieces, and connections that end in the middle of one."""

from __future__ import annotations

import pytest

from tests.broker.world import dialogue

REQUEST = b"put:msu:korte:x:a=1\n"
REPLY = b"reply: \0\r\x80\xff end\n"


@pytest.mark.parametrize("reply", [REPLY, b"\n", b"x\n"])
def test_a_reply_in_two_pieces_cut_at_every_byte(world, reply):
    peer = world.peer()
    world.start(peer)
    client, link = world.acquainted(peer)
    for cut in range(len(reply) + 1):
        client.send(b"ping\n")
        assert link.line() == b"ping\n"
        link.send(reply[:cut])
        world.settle()
        if cut < len(reply):
            assert client.silent(), "a client gets its reply only when it is whole"
            assert world.exchange.held == len(b"ping\n") + cut
        link.send(reply[cut:])
        assert client.line() == reply
        assert world.exchange.held == 0
    assert peer.take() is None


def test_a_reply_byte_by_byte(world):
    peer = world.peer()
    world.start(peer)
    client, link = world.acquainted(peer)
    client.send(b"ping\n")
    assert link.line() == b"ping\n"
    for i in range(len(REPLY)):
        link.send(REPLY[i : i + 1])
        world.settle()
    assert client.line() == REPLY


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_the_peer_ends_at_every_byte_of_a_reply(world, reset):
    peer = world.peer()
    world.start(peer, max_connections=1)
    for cut in range(len(REPLY)):
        client, link = world.acquainted(peer)
        client.send(b"ping\n")
        assert link.line() == b"ping\n"
        link.send(REPLY[:cut])
        world.settle()
        link.reset() if reset else link.close()
        # Not half of an answer, and not sent again: nobody knows whether it was executed.
        assert client.line() == b"con_lost\n"
        world.settle()
        assert peer.take() is None
        assert world.exchange.held == 0
        # The client goes on, over another connection.
        client.send(b"again\n")
        link = peer.accept()
        assert link.line() == b"again\n"
        link.send(REPLY)
        assert client.line() == REPLY
        link.close()
        client.close()
        world.settle()


def test_a_whole_reply_counts_though_the_peer_closes_behind_it(world):
    peer = world.peer()
    world.start(peer)
    client, link = world.acquainted(peer)
    client.send(b"ping\n")
    assert link.line() == b"ping\n"
    link.fill(REPLY)
    link.close()
    assert client.line() == REPLY


def test_a_request_in_two_pieces_cut_at_every_byte(world):
    peer = world.peer()
    world.start(peer)
    client, link = world.acquainted(peer)
    for cut in range(len(REQUEST) + 1):
        client.send(REQUEST[:cut])
        if cut < len(REQUEST):
            assert link.silent(), "a request is sent only when it is whole"
            assert world.exchange.held == cut
        client.send(REQUEST[cut:])
        assert link.line() == REQUEST
        link.send(b"ok\n")
        assert client.line() == b"ok\n"
        assert world.exchange.held == 0


@pytest.mark.parametrize("goes", ["finish", "close"])
def test_a_client_ends_at_every_byte_of_a_request(timed, goes):
    world = timed
    peer = world.peer()
    world.start(peer)
    _, link = world.acquainted(peer)
    for cut in range(len(REQUEST)):
        client = world.client(REQUEST[:cut])
        world.settle()
        getattr(client, goes)()
        if goes == "finish":
            assert client.rest() == b""
        assert link.silent(), "nothing of a cut request is forwarded"
        assert world.broker.stats()["clients"] == 1
        assert world.exchange.held == 0
    # Logged once a minute at most.
    assert world.log.only("in the middle of a line") == "INFO"
    world.pass_time(60)
    world.client(b"ab").finish()
    world.settle()
    assert world.log.having("in the middle of a line")[1:] == [
        (
            "INFO",
            "a client closed in the middle of a line: 2 bytes dropped, nothing sent"
            f" (and {len(REQUEST) - 2} more since the last such line)",
        )
    ]


def test_two_requests_in_three_pieces_cut_at_every_two_bytes(world):
    text = b"one\ntwo\n"
    peer = world.peer()
    world.start(peer)
    client, link = world.acquainted(peer)
    for first in range(len(text)):
        for second in range(first, len(text)):
            client.send(text[:first])
            world.settle()
            client.send(text[first:second])
            world.settle()
            client.send(text[second:])
            assert link.line() == b"one\n"
            link.send(b"1\n")
            assert client.line() == b"1\n"
            assert link.line() == b"two\n"
            link.send(b"2\n")
            assert client.line() == b"2\n"


@pytest.mark.parametrize("dialect", ["classic", "versioned"])
def test_a_dialogue_in_two_pieces_cut_at_every_byte(world, dialect):
    peer = world.peer()
    world.start(peer, dialect, max_connections=1)
    steps = dialogue(dialect=dialect)
    for step, (_, answer) in enumerate(steps):
        for cut in range(1, len(answer)):
            client = world.client(b"ping\n")
            link = peer.accept()
            for i, (expected, reply) in enumerate(steps):
                assert link.line() == expected
                if i == step:
                    link.send(reply[:cut])
                    assert link.silent()
                    link.send(reply[cut:])
                else:
                    link.send(reply)
            assert link.line() == b"ping\n"
            link.send(b"pong\n")
            assert client.line() == b"pong\n"
            client.close()
            world.settle()
            link.close()
            world.settle()


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("dialect", ["classic", "versioned"])
def test_the_peer_ends_at_every_byte_of_the_dialogue(timed, dialect, reset):
    """In every state of the dialogue, before each byte of the peer's line."""
    world = timed
    peer = world.peer()
    world.start(peer, dialect, connection_retries=1000)
    steps = dialogue(dialect=dialect)
    for step, (_, last) in enumerate(steps):
        for cut in range(len(last)):
            client = world.client(b"ping\n")
            link = peer.accept()
            for expected, answer in steps[:step]:
                assert link.line() == expected
                link.send(answer)
            assert link.line() == steps[step][0]
            link.send(last[:cut])
            world.settle()
            link.reset() if reset else link.close()
            assert client.line() == b"con_lost\n"
            client.close()
            assert world.exchange.held == 0
            assert (world.exchange.attempts, world.exchange.usable) == (0, 0)
            world.pass_time(100)
    assert world.broker.health.retries == 1000 - sum(len(answer) for _, answer in steps)


@pytest.mark.parametrize("dialect", ["classic", "versioned"])
def test_two_lines_at_once_in_every_state_of_the_dialogue(timed, dialect):
    world = timed
    peer = world.peer()
    world.start(peer, dialect, connection_retries=1000)
    steps = dialogue(dialect=dialect)
    for step, (_, last) in enumerate(steps):
        client = world.client(b"ping\n")
        link = peer.accept()
        for expected, answer in steps[:step]:
            assert link.line() == expected
            link.send(answer)
        assert link.line() == steps[step][0]
        link.send(last + b"ok\n")
        assert client.line() == b"con_lost\n"
        assert link.rest() == b""
        world.pass_time(100)
