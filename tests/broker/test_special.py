"""Requests that are not simply passed on: lonc's own, encrypted ones, and for another host id."""

from __future__ import annotations

import pytest

from lonc.wire.cipher import CipherUnavailable, new_cipher
from lonc.wire.envelope import seal

# The vectors of the specification, for peer msul1, own id msul2 and the test's buildkey.
KEY = bytes.fromhex("624516245248213a0c9f077123456245")
PING = b"enc:4:0462206d2a7e9fe4"
EGET = b"eget:msu:korte:environment:password"
SEALED_EGET = (
    b"enc:35:38d9e76e880e5418663181818724efc2e52cd4e3ee740e3244db1465a0f6386e1b0e3d5cde6ae2a4"
)
INLINE, TWO_STEPS = "1.322", "1.321"


@pytest.fixture
def cipher():
    try:
        return new_cipher(KEY)
    except CipherUnavailable as error:
        pytest.skip(str(error))


def start(world, dialect="versioned", version=INLINE, **settings):
    """A broker with one connection, through its dialogue and acquainted: (client, link, peer)."""
    peer = world.peer()
    world.start(peer, dialect, max_connections=1, **settings)
    client = world.client(b"ping\n")
    link = peer.greet(version=version, dialect=dialect)
    assert link.line() == b"ping\n"
    link.send(b"pong\n")
    assert client.line() == b"pong\n"
    return client, link, peer


@pytest.mark.parametrize("dialect", ["classic", "versioned"])
@pytest.mark.parametrize(
    ("request_line", "sealed"),
    [
        (b"encrypt:ping\n", PING + b"\n"),
        (b"encrypt:" + EGET + b"\n", SEALED_EGET + b"\n"),
        (b"encrypt:12345678\n", b"enc:8:a3c96b1f7e5b8fb50f67cfb2da1cab00\n"),
        (b"encrypt:\n", b"enc:0:0f67cfb2da1cab00\n"),
    ],
)
def test_an_encrypted_request(world, cipher, dialect, request_line, sealed):
    client, link, _ = start(world, dialect)
    client.send(request_line)
    assert link.line() == sealed
    link.send(seal(cipher, b"the answer") + b"\n")
    assert client.line() == b"the answer\n"
    # The caller never sees the envelope; a clear reply to it is handed on as it is.
    client.send(request_line)
    assert link.line() == sealed
    link.send(b"refused\n")
    assert client.line() == b"refused\n"


def test_a_sealed_reply_to_a_clear_request(world, cipher):
    client, link, _ = start(world)
    client.send(b"eget:x\n")
    assert link.line() == b"eget:x\n"
    link.send(seal(cipher, b"v\0\r\xff").replace(b"a", b"A") + b"\n")
    assert client.line() == b"v\0\r\xff\n"


@pytest.mark.parametrize(
    "reply", [b"enc:\n", b"enc:x:00\n", b"enc:4:0462\n", b"enc:4:0462206d2a7e9fe\n", b"enc:4\n"]
)
def test_a_sealed_reply_that_cannot_be_read(world, cipher, reply):
    client, link, peer = start(world)
    client.send(b"encrypt:ping\n")
    assert link.line() == PING + b"\n"
    link.send(reply)
    assert client.line() == b"con_lost\n"
    assert link.rest() == b""
    # Not sent again either: it was executed.
    world.settle()
    assert peer.take() is None


def test_what_looks_sealed_is_data_where_nothing_is(world):
    peer = world.peer()
    world.start(peer)
    client = world.client(b"encrypt:ping\n")
    link = peer.accept()
    assert link.line() == b"encrypt:ping\n"
    link.send(b"enc:nothing of the kind\n")
    assert client.line() == b"enc:nothing of the kind\n"
    for line in (b"sethost:x:y\n", b"reset_retries\n", b"close_connection_exit\n"):
        client.send(line)
        assert link.line() == line
        link.send(b"data\n")
        assert client.line() == b"data\n"


@pytest.mark.parametrize(
    "request_line",
    [b"encrypt:secret\n", b"sethost:msul1:encrypt:secret\n", b"sethost:other:encrypt:secret\n"],
)
@pytest.mark.parametrize("version", [INLINE, TWO_STEPS])
@pytest.mark.parametrize("missing", ["before", "later"])
def test_without_a_cipher_nothing_is_sent_in_clear(
    world, monkeypatch, request_line, version, missing
):
    """`later`: the machine has one, but not for this connection's key."""

    def none(key):
        raise CipherUnavailable("no cipher today")

    module = "broker" if missing == "before" else "session"
    if missing == "later":
        monkeypatch.setattr("lonc.broker.broker.new_cipher", lambda key: None)
    monkeypatch.setattr(f"lonc.broker.{module}.new_cipher", none)
    client, link, peer = start(world, version=version)
    client.send(request_line)
    assert client.line() == b"con_lost\n"
    assert link.silent()
    [(severity, text)] = world.log.having("no cipher today")
    assert severity == "WARNING" and "secret" not in text
    # The connection is as good as before, and acts as the same host.
    client.send(b"again\n")
    assert link.line() == b"again\n"
    link.send(b"yes\n")
    assert client.line() == b"yes\n"
    assert peer.take() is None


def test_a_request_that_cannot_be_encrypted_does_not_need_the_host(world, monkeypatch):
    def none(key):
        raise CipherUnavailable("no cipher today")

    monkeypatch.setattr("lonc.broker.broker.new_cipher", none)
    peer = world.peer()
    world.start(peer, "versioned")
    assert world.ask(b"encrypt:secret\n") == b"con_lost\n"
    world.settle()
    assert peer.take() is None


# For another host id


def test_sethost_in_one_line(world, cipher):
    client, link, _ = start(world, version=INLINE)
    for request_line, sent in (
        (b"sethost:msul1:ping:a:b\n", b"sethost:msul1:ping:a:b\n"),
        (b"sethost:msul1:encrypt:ping\n", b"sethost:msul1:" + PING + b"\n"),
        (b"ping\n", b"ping\n"),
    ):
        client.send(request_line)
        assert link.line() == sent
        link.send(b"pong\n")
        assert client.line() == b"pong\n"
    assert link.silent()


@pytest.mark.parametrize("reply", [b"pong\n", b"unable_to_set\n", b"refused\n"])
def test_another_host_in_one_line_and_back(world, cipher, reply):
    """The peer goes on acting as that host: a request that names none must not run as it."""
    client, link, _ = start(world, version=INLINE)
    for request_line, sent in (
        (b"sethost:other:ping:a:b\n", b"sethost:other:ping:a:b\n"),
        (b"sethost:other:encrypt:ping\n", b"sethost:other:" + PING + b"\n"),
    ):
        client.send(request_line)
        assert link.line() == sent
        link.send(reply)
        assert client.line() == reply
        assert link.line() == b"sethost:msul1\n"
        client.send(b"plain\n")
        assert link.silent()
        link.send(b"ok\n")
        assert link.line() == b"plain\n"
        link.send(b"fine\n")
        assert client.line() == b"fine\n"


def test_sethost_in_two_steps_and_back(world, cipher):
    client, link, _ = start(world, version=TWO_STEPS)
    client.send(b"sethost:other:encrypt:ping\n")
    assert link.line() == b"sethost:other\n"
    assert link.silent(), "the command waits for the peer's ok"
    link.send(b"ok\n")
    assert link.line() == PING + b"\n"
    link.send(b"pong\n")
    assert client.line() == b"pong\n"
    # The client has its reply; before the next request the host is what it was.
    client.send(b"plain\n")
    assert link.line() == b"sethost:msul1\n"
    assert link.silent()
    link.send(b"ok\n")
    assert link.line() == b"plain\n"
    link.send(b"fine\n")
    assert client.line() == b"fine\n"


def test_sethost_for_the_host_that_is_set_already(world):
    client, link, _ = start(world, version=TWO_STEPS)
    client.send(b"sethost:msul1:ping\n")
    assert link.line() == b"ping\n"
    link.send(b"pong\n")
    assert client.line() == b"pong\n"
    assert link.silent()


def test_sethost_where_no_host_is_certain(world):
    """A `classic` dialogue sets none, so that the peer's own id has to be asked for as well."""
    client, link, _ = start(world, "classic")
    for expected in ([b"sethost:msul1\n"], []):
        client.send(b"sethost:msul1:ping\n")
        for line in expected:
            assert link.line() == line
            link.send(b"ok\n")
        assert link.line() == b"ping\n"
        link.send(b"pong\n")
        assert client.line() == b"pong\n"
    assert link.silent()


@pytest.mark.parametrize("answer", [b"refused\n", b"unknown_cmd\n", b"\n", b"ok \n", b"enc:1:00\n"])
def test_a_host_that_the_peer_does_not_accept(world, answer):
    client, link, peer = start(world, version=TWO_STEPS)
    client.send(b"sethost:other:put:secret\n")
    assert link.line() == b"sethost:other\n"
    link.send(answer)
    assert client.line() == b"con_lost\n"
    assert link.rest() == b"", "nothing else is sent"
    world.settle()
    assert peer.take() is None


def test_hosts_that_the_peer_does_not_accept_are_not_the_peers_failure(world):
    """Else whoever asks for hosts that do not exist would have the peer taken for dead."""
    peer = world.peer()
    broker = world.start(peer, "versioned", connection_retries=2)
    for _ in range(5):
        client = world.client(b"sethost:other:ping\n")
        link = peer.greet(version=TWO_STEPS)
        assert link.line() == b"sethost:other\n"
        link.send(b"refused\n")
        assert client.line() == b"con_lost\n"
        assert (broker.stats()["state"], broker.stats()["retries"]) == ("up", 2)


def test_a_peer_that_does_not_go_back_to_its_own_host(world):
    client, link, peer = start(world, version=TWO_STEPS)
    client.send(b"sethost:other:ping\n")
    assert link.line() == b"sethost:other\n"
    link.send(b"ok\n")
    assert link.line() == b"ping\n"
    client.send(b"plain\n")
    link.send(b"pong\n")
    assert client.line() == b"pong\n"
    assert link.line() == b"sethost:msul1\n"
    link.send(b"refused\n")
    assert link.rest() == b""
    assert world.log.only("lost a connection to msul1: the peer would not act") == "WARNING"
    # The request that waited was not sent there; it gets another connection.
    link = peer.greet(version=TWO_STEPS)
    assert link.line() == b"plain\n"
    assert client.silent()


def test_a_peer_that_takes_too_long_to_go_back(timed):
    world = timed
    client, link, _ = start(world, version=TWO_STEPS, dialogue_timeout=30, reply_timeout=500)
    client.send(b"sethost:other:ping\n")
    assert link.line() == b"sethost:other\n"
    link.send(b"ok\n")
    assert link.line() == b"ping\n"
    link.send(b"pong\n")
    assert client.line() == b"pong\n"
    assert link.line() == b"sethost:msul1\n"
    world.pass_time(29)
    assert world.broker.stats()["preparing"] == 1
    world.pass_time(1.1)
    assert link.rest() == b""
    assert world.exchange.attempts == 0


@pytest.mark.parametrize(
    "line", [b"sethost:other\n", b"sethost:\n", b"sethost:other:\n", b"sethost::\n"]
)
def test_a_host_and_no_command(world, line):
    """It would change the host for those who come after."""
    client, link, _ = start(world, version=TWO_STEPS)
    client.send(line)
    assert client.line() == b"con_lost\n"
    assert link.silent()
    assert world.log.only("is not sent") == "WARNING"


def test_two_hosts_in_one_line(world):
    client, link, _ = start(world, version=INLINE)
    client.send(b"sethost:a:sethost:b:c\n")
    assert client.line() == b"con_lost\n"
    assert link.silent()


# lonc's own


def test_close_connection_exit(world):
    peer = world.peer()
    broker = world.start(peer, "classic", max_connections=3)
    client, idle = world.acquainted(peer, "classic")
    one, two = world.client(b"one\n"), world.client(b"two\n")
    busy = peer.greet(dialect="classic")
    first = {busy.line(): busy, idle.line(): idle}
    links = [first[b"one\n"], first[b"two\n"]]
    links[0].send(b"1\n")
    assert one.line() == b"1\n"
    three = world.client(b"three\n")
    assert links[0].line() == b"three\n"
    links[0].send(b"3\n")
    assert three.line() == b"3\n"
    world.settle()
    assert (broker.stats()["idle"], broker.stats()["busy"]) == (1, 1)
    client.send(b"close_connection_exit\n")
    world.answered_here = 1
    assert client.line() == b"ok\n"
    # The idle one at once, the other after its reply; each with a farewell.
    assert links[0].rest() == b"exit\n"
    assert links[1].silent()
    links[1].send(b"2\n")
    assert two.line() == b"2\n"
    assert links[1].rest() == b"exit\n"
    client.send(b"again\n")
    peer.greet(dialect="classic")


def test_a_connection_that_is_to_be_closed_takes_no_other_request(world):
    peer = world.peer()
    broker = world.start(peer, "classic", max_connections=1)
    one, link = world.acquainted(peer, "classic")
    one.send(b"one\n")
    assert link.line() == b"one\n"
    two = world.client(b"two\n")
    world.settle()
    broker.close_connections()
    link.send(b"1\n")
    assert one.line() == b"1\n"
    assert link.rest() == b"exit\n"
    link = peer.greet(dialect="classic")
    assert link.line() == b"two\n"
    link.send(b"2\n")
    assert two.line() == b"2\n"


@pytest.mark.parametrize("line", [b"reset_retries \n", b"reset_retries:\n", b"xreset_retries\n"])
def test_only_the_very_words_are_lonc_s_own(world, line):
    client, link, _ = start(world)
    client.send(line)
    assert link.line() == line
