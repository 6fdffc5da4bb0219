"""Requests after the dialogue: envelopes, `sethost:`, cut lines, and complaints."""

from __future__ import annotations

import socket
import struct

import pytest

from lonc.wire.cipher import Cipher, CipherUnavailable
from lonc.wire.envelope import seal

from .conftest import Bench, wait_until

COUNT = b"inc:msu:korte:environment:n=1"


@pytest.mark.parametrize("dialect", ["classic", "versioned"])
def test_an_envelope_is_opened(bench: Bench, dialect: str) -> None:
    peer = bench.peer(dialect=dialect)
    caller, cipher = bench.sealing(peer, dialect)
    assert caller.ask(seal(cipher, COUNT)) == b"ok"
    assert peer.executed[COUNT] == 1
    assert caller.ask(b"sethost:msul1:" + seal(cipher, b"ping")) == b"msul1"
    assert bench.ended(peer) == []


@pytest.mark.parametrize(
    "line",
    [
        b"enc:",
        b"enc:4",
        b"enc:4:",
        b"enc:4:0462",
        b"enc:x:0462206d2a7e9fe4",
        b"enc:99:" + b"0" * 16,
    ],
)
def test_a_bad_envelope(bench: Bench, line: bytes) -> None:
    peer = bench.peer(dialect="classic")
    caller = bench.caller(peer, "classic")
    assert caller.ask(line) == b"error: bad envelope"
    assert caller.ask(b"ping") == b"msul1", "the connection is still of use"
    (complaint,) = bench.ended(peer)
    assert complaint.startswith("sent a bad envelope: ")
    assert not [command for command in peer.executed if command != b"ping"]


def test_an_envelope_of_unusual_form_is_told(bench: Bench) -> None:
    peer = bench.peer(dialect="classic")
    caller, cipher = bench.sealing(peer)
    upper = seal(cipher, b"ping").upper().replace(b"ENC", b"enc")
    short = seal(cipher, b"echo:abc")[:-16]
    assert caller.ask(upper) == b"msul1"
    assert caller.ask(short) == b"abc"
    told = "sent an envelope in an unusual form: upper case, or other padding"
    assert bench.ended(peer) == [told, told]


def test_a_machine_without_a_cipher(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(_: bytes) -> Cipher:
        raise CipherUnavailable("there is none")

    monkeypatch.setattr("lonc.lond.requests.new_cipher", unavailable)
    peer = bench.peer(dialect="classic")
    caller = bench.caller(peer, "classic")
    assert caller.ask(b"enc:4:0462206d2a7e9fe4") == b"error:no_key"
    assert caller.ask(b"put:msu:korte:environment:a=1") == b"ok"
    assert caller.ask(b"eget:msu:korte:environment:a") == b"error:no_key"
    assert bench.ended(peer) == [], "it is not the client's fault"


@pytest.mark.parametrize("prefix", [b"", b"sethost:msul1:"])
def test_the_word_encrypt_never_belongs_on_the_wire(bench: Bench, prefix: bytes) -> None:
    peer = bench.peer(dialect="versioned")
    caller = bench.caller(peer, "versioned")
    assert caller.ask(prefix + b"encrypt:" + COUNT) == b"unknown_cmd"
    assert bench.ended(peer) == ["sent a request in clear that begins with encrypt:"]
    assert peer.served == 0


@pytest.mark.parametrize("line", [b"reset_retries", b"close_connection_exit"])
def test_a_line_for_the_broker(bench: Bench, line: bytes) -> None:
    peer = bench.peer(dialect="classic")
    assert bench.caller(peer, "classic").ask(line) == b"unknown_cmd"
    assert bench.ended(peer) == ["passed on a line that is for the broker itself"]


def test_an_empty_line(bench: Bench) -> None:
    peer = bench.peer(dialect="classic")
    assert bench.caller(peer, "classic").ask(b"") == b"unknown_cmd"
    assert bench.ended(peer) == ["sent an empty line"]
    assert peer.served == 0


def test_in_the_line_dialect_everything_is_a_request(bench: Bench) -> None:
    peer = bench.peer(dialect="line", handler=lambda line: line.upper())
    caller = bench.caller(peer)
    lines = [b"", b"encrypt:ping", b"enc:4:00", b"sethost:x:ping", b"reset_retries", b"exit", b"a"]
    for line in lines:
        assert caller.ask(line) == line.upper()
    assert list(peer.executed) == lines
    assert bench.ended(peer) == []


def test_sethost_stays_until_the_next(bench: Bench) -> None:
    peer = bench.peer(dialect="versioned", also=["msul9"])
    caller = bench.caller(peer, "versioned")
    assert caller.ask(b"sethost:msul9") == b"ok"
    assert caller.ask(b"ping") == b"msul9"
    assert caller.ask(b"sethost:msul1:ping") == b"msul1"
    assert caller.ask(b"ping") == b"msul1"
    assert bench.ended(peer) == []
    assert peer.executed == {b"ping": 3}


@pytest.mark.parametrize("line", [b"sethost:other", b"sethost:other:" + COUNT, b"sethost:\xff:x"])
def test_sethost_to_an_id_that_is_not_known(bench: Bench, line: bytes) -> None:
    peer = bench.peer(dialect="versioned")
    caller = bench.caller(peer, "versioned")
    assert caller.ask(line) == b"unable_to_set"
    assert peer.served == 0
    assert caller.ask(b"ping") == b"msul1"
    assert bench.ended(peer) == ["set a host that this peer is not"]


def test_an_old_peer_takes_no_sethost_in_the_same_line(bench: Bench) -> None:
    peer = bench.peer(dialect="versioned", version="1.321")
    caller = bench.caller(peer, "versioned")
    assert caller.ask(b"sethost:msul1:" + COUNT) == b"unknown_cmd"
    assert peer.served == 0
    assert caller.ask(b"sethost:msul1") == b"ok"
    told = "set the host in the line of the command, which this version does not take"
    assert bench.ended(peer) == [told]


def test_the_first_version_that_takes_it(bench: Bench) -> None:
    peer = bench.peer(dialect="versioned", version="1.322")
    assert bench.caller(peer, "versioned").ask(b"sethost:msul1:ping") == b"msul1"


@pytest.mark.parametrize("dialect", ["classic", "versioned", "line"])
def test_two_lines_in_flight(bench: Bench, dialect: str) -> None:
    peer = bench.peer(dialect=dialect)
    caller = bench.caller(peer, dialect)
    caller.send(b"ping\necho:two\n")
    assert (caller.read(), caller.read()) == (b"msul1", b"two")
    assert bench.ended(peer) == ["sent more before it had its answer"]


def test_a_line_that_the_end_of_the_stream_cut_is_not_carried_out(bench: Bench) -> None:
    peer = bench.peer(dialect="classic")
    caller = bench.caller(peer, "classic")
    caller.send(COUNT)
    caller.socket.shutdown(socket.SHUT_WR)
    assert caller.left() == b""
    told = f"ended the stream in the middle of a line, after {len(COUNT)} bytes"
    assert bench.ended(peer) == [told]
    assert peer.served == 0


def test_unless_it_is_to_behave_as_lond_does(bench: Bench) -> None:
    peer = bench.peer(dialect="classic", executes_cut_lines=True)
    caller = bench.caller(peer, "classic")
    caller.send(COUNT)
    caller.socket.shutdown(socket.SHUT_WR)
    assert caller.left() == b"ok\n"
    assert peer.executed == {COUNT: 1}
    assert len(bench.ended(peer)) == 1


@pytest.mark.parametrize("executes_cut_lines", [False, True])
def test_a_reset_in_the_middle_of_a_line_is_the_right_way(
    bench: Bench, executes_cut_lines: bool
) -> None:
    peer = bench.peer(dialect="classic", executes_cut_lines=executes_cut_lines)
    caller = bench.caller(peer, "classic")
    caller.send(COUNT)
    caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert bench.ended(peer) == []
    assert peer.served == 0


def test_our_own_end_in_the_middle_of_a_line_is_not_the_clients_fault(bench: Bench) -> None:
    peer = bench.peer(dialect="classic", executes_cut_lines=True)
    caller = bench.caller(peer, "classic")
    caller.send(COUNT)
    (session,) = peer._sessions
    wait_until(lambda: session._lines._buffer)
    peer.disconnect()
    assert caller.left() == b""
    assert bench.ended(peer) == []
    assert peer.served == 0


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_that_is_too_long(bench: Bench, monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    monkeypatch.setattr("lonc.lond.session.MAX_LINE", 1000)
    peer = bench.peer(dialect="line")
    caller = bench.caller(peer)
    assert caller.ask(b"echo:" + b"x" * 995) == b"x" * 995
    caller.send(b"x" * 1001 + end)
    with pytest.raises(ConnectionError):
        while True:
            caller.send(b"x" * 100_000)
    assert bench.ended(peer) == ["sent a line of more than 1000 bytes"]


def test_no_complaint_tells_arguments(bench: Bench) -> None:
    told: list[str] = []
    peer = bench.peer(dialect="classic", log=told.append)
    caller, cipher = bench.sealing(peer)
    caller.ask(b"auth:msu:korte:hush")
    caller.ask(b"encrypt:auth:msu:korte:hush")
    caller.ask(seal(cipher, b"auth:msu:korte:hush")[:-2])
    caller.send(b"auth:msu:korte:hush")
    bench.ended(peer)
    assert len(told) == 4
    assert told == peer.complaints
    assert "hush" not in "".join(told)
