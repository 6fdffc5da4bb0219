"""The dialogue: what a peer says to a right client, and to every kind of wrong one."""

from __future__ import annotations

import pytest

from lonc.wire.envelope import seal, session_key

from .conftest import Bench, Caller, cipher_or_skip


@pytest.mark.parametrize("dialect", ["classic", "versioned", "line"])
def test_lonc_gets_through_without_a_complaint(bench: Bench, dialect: str) -> None:
    peer = bench.peer(dialect=dialect)
    caller = bench.caller(peer, dialect)
    assert caller.ask(b"ping") == b"msul1"
    assert caller.ask(b"exit") == b"bye"
    assert bench.ended(peer) == []


def test_the_bytes_of_classic(bench: Bench) -> None:
    peer = bench.peer(dialect="classic")
    caller = bench.caller(peer)
    challenge = caller.ask(b"init")
    assert challenge.isdigit()
    assert caller.ask(challenge) == b"ok"
    buildkey = caller.ask(b"ekey")
    assert len(buildkey) == 18 and not buildkey.strip(b"0123456789ABCDEF")
    assert caller.ask(b"ping") == b"msul1"
    assert bench.ended(peer) == []


def test_the_bytes_of_versioned(bench: Bench) -> None:
    peer = bench.peer(dialect="versioned", id="msul1", also=["msul9"], caller="s10")
    caller = bench.caller(peer)
    assert caller.ask(caller.ask(b"init")) == b"ok"
    assert caller.ask(b"version") == b"version:1.489"
    assert caller.ask(b"sethost:msul9") == b"ok"
    cipher = cipher_or_skip(session_key("msul9", "s10", caller.ask(b"ekey")))
    assert caller.ask(seal(cipher, b"ping")) == b"msul9"
    assert bench.ended(peer) == []


def test_challenges_and_keys_differ(bench: Bench) -> None:
    peer = bench.peer(dialect="classic")
    challenges, keys = set(), set()
    for _ in range(5):
        caller = bench.caller(peer)
        challenge = caller.ask(b"init")
        caller.ask(challenge)
        challenges.add(challenge)
        keys.add(caller.ask(b"ekey"))
    assert len(keys) == 5
    assert len(challenges) > 1


def _opened(bench: Bench, dialect: str, right: list[bytes]) -> tuple[Caller, list[str]]:
    """A connection on which the right lines were said, None standing for the challenge."""
    peer = bench.peer(dialect=dialect)
    caller = bench.caller(peer)
    answer = b""
    for line in right:
        answer = caller.ask(line or answer)
    return caller, peer.complaints


ECHO = b""
VERSIONED = [b"init", ECHO, b"version", b"sethost:msul1", b"ekey"]


@pytest.mark.parametrize(
    ("dialect", "right", "wrong", "answer", "complaint"),
    [
        ("classic", 0, b"ping", b"refused", "sent ping where init was due"),
        ("classic", 0, b"init:local:/tmp/key", b"refused", "sent init where init was due"),
        ("classic", 0, b"", b"refused", "sent ? where init was due"),
        ("classic", 1, b"12345", b"refused", "did not echo the challenge"),
        ("classic", 1, b"", b"refused", "did not echo the challenge"),
        ("classic", 2, b"ping", b"refused", "sent ping where ekey was due"),
        ("classic", 2, b"version", b"refused", "sent version where ekey was due"),
        ("classic", 2, b"exit", b"refused", "sent exit where ekey was due"),
        ("versioned", 2, b"ekey", b"refused", "sent ekey where version was due"),
        ("versioned", 2, b"put:a:b:c:d=secret", b"refused", "sent put where version was due"),
        ("versioned", 3, b"ekey", b"refused", "sent ekey where sethost was due"),
        ("versioned", 3, b"sethost:other", b"unable_to_set", "set a host that this peer is not"),
        ("versioned", 3, b"sethost", b"unable_to_set", "set a host that this peer is not"),
        ("versioned", 4, b"ping", b"refused", "sent ping where ekey was due"),
    ],
)
def test_a_wrong_line_ends_the_dialogue(
    bench: Bench, dialect: str, right: int, wrong: bytes, answer: bytes, complaint: str
) -> None:
    steps = VERSIONED if dialect == "versioned" else [b"init", ECHO, b"ekey"]
    caller, complaints = _opened(bench, dialect, steps[:right])
    assert caller.ask(wrong) == answer
    assert caller.left() == b""
    assert [text.partition(": ")[2] for text in complaints] == [complaint]
    assert bench.peers[0].served == 0, "a request before the end of the dialogue is not carried out"


def test_two_lines_of_the_dialogue_at_once(bench: Bench) -> None:
    peer = bench.peer(dialect="classic")
    caller = bench.caller(peer)
    caller.send(b"init\nekey\n")
    assert caller.read().isdigit()
    assert caller.read() == b"refused"
    assert bench.ended(peer) == ["sent more before it had its answer", "did not echo the challenge"]


def test_hanging_up_between_two_lines_is_no_fault(bench: Bench) -> None:
    peer = bench.peer(dialect="classic")
    bench.caller(peer).ask(b"init")
    bench.caller(peer)
    assert bench.ended(peer) == []
