"""The peer as a whole: beginning, end, counters, handlers."""

from __future__ import annotations

import socket
import sqlite3
import threading

import pytest

from lonc.errors import ListenError, UsageError
from lonc.lond import Fault, Peer, Store

from .conftest import PATIENCE, Bench, Caller, wait_until


def test_as_a_context_manager() -> None:
    with Peer(dialect="line") as peer:
        caller = Caller(peer)
        assert caller.ask(b"ping") == b"msul1"
    assert caller.left() == b""
    caller.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(peer.address, PATIENCE)


def test_stop_ends_every_connection_and_every_thread(bench: Bench) -> None:
    before = set(threading.enumerate())
    peer = bench.peer(dialect="line", faults=[Fault("stall", command="echo")])
    idle, stalled, unread = (bench.caller(peer) for _ in range(3))
    idle.ask(b"ping")
    stalled.send(b"echo:x\n")
    unread.send(b"blob:100000000\n")
    wait_until(lambda: peer.served == 3)
    peer.stop()
    assert set(threading.enumerate()) == before
    assert peer.connections == 0
    assert idle.left() == stalled.left() == b""
    assert len(unread.left()) < 100_000_000


def test_the_same_port_again_at_once(bench: Bench) -> None:
    peer = bench.peer(dialect="line")
    address = peer.address
    for round in range(5):
        assert bench.caller(peer).ask(b"put:a:b:c:round=%d" % round) == b"ok"
        peer.stop()
        peer.start()
        assert peer.address == address
    assert bench.caller(peer).ask(b"get:a:b:c:round") == b"4"


def test_start_and_stop_twice_do_nothing_more(bench: Bench) -> None:
    peer = bench.peer(dialect="line")
    peer.start()
    assert bench.caller(peer).ask(b"ping") == b"msul1"
    peer.stop()
    peer.stop()


def test_a_store_that_was_given_stays_open() -> None:
    store = Store()
    with Peer(dialect="line", store=store) as peer:
        caller = Caller(peer)
        caller.ask(b"put:a:b:c:d=1")
        caller.close()
    assert store.dump((b"a", b"b", b"c")) == [(b"d", b"1")]
    store.close()


def test_disconnect_goes_on_listening(bench: Bench) -> None:
    peer = bench.peer(dialect="line")
    callers = [bench.caller(peer) for _ in range(3)]
    for caller in callers:
        caller.ask(b"ping")
    peer.disconnect()
    assert [caller.left() for caller in callers] == [b"", b"", b""]
    assert bench.caller(peer).ask(b"ping") == b"msul1"


def test_a_port_in_use(bench: Bench) -> None:
    peer = bench.peer(dialect="line")
    host, port = peer.address
    with pytest.raises(ListenError, match=f"^cannot listen on {host}:{port}: Address already"):
        bench.peer(dialect="line", listen=peer.address)


def test_a_peer_that_cannot_be_entered_leaves_nothing_open(bench: Bench) -> None:
    taken = bench.peer(dialect="line")
    second = Peer(dialect="line", listen=taken.address)
    with pytest.raises(ListenError), second:
        pass
    with pytest.raises(sqlite3.ProgrammingError):
        second.store.log(b"a", b"b", b"c")


def test_ipv6(bench: Bench) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    peer = bench.peer(dialect="line", listen=("::1", 0))
    assert bench.caller(peer).ask(b"ping") == b"msul1"


@pytest.mark.parametrize(
    ("argument", "value", "problem"),
    [
        ("dialect", "keyed", "no dialect 'keyed'; there are classic, versioned, line"),
        ("id", "", "host id ''"),
        ("id", "a:b", "host id 'a:b'"),
        ("also", [".hidden"], "host id '.hidden'"),
        ("caller", "a b", "host id 'a b'"),
        ("version", "new", "version 'new'"),
        ("version", "1", "version '1'"),
    ],
)
def test_an_argument_that_cannot_be(
    bench: Bench, argument: str, value: object, problem: str
) -> None:
    with pytest.raises(UsageError) as caught:
        bench.peer(**{argument: value})
    assert str(caught.value).startswith(problem)


def test_counters(bench: Bench) -> None:
    peer = bench.peer(dialect="line")
    first, second = bench.caller(peer), bench.caller(peer)
    for _ in range(3):
        first.ask(b"ping")
    second.ask(b"echo:x")
    second.ask(b"exit")
    assert second.left() == b""
    wait_until(lambda: peer.connections == 1)
    third = bench.caller(peer)
    third.ask(b"unknown")
    assert peer.executed == {b"ping": 3, b"echo:x": 1, b"exit": 1, b"unknown": 1}
    assert (peer.served, peer.accepted, peer.most_connections) == (6, 3, 2)
    bench.ended(peer)
    assert peer.connections == 0


def test_a_farewell_is_no_command(bench: Bench) -> None:
    peer = bench.peer(dialect="classic", handler=bytes.upper)
    caller = bench.caller(peer, "classic")
    assert caller.ask(b"sethost:msul1:ping") == b"PING"
    assert caller.ask(b"exit") == b"bye"
    assert caller.left() == b""
    assert peer.executed == {b"ping": 1}


def test_without_a_record_only_numbers_are_kept(bench: Bench) -> None:
    peer = bench.peer(dialect="line", record=False)
    bench.caller(peer).ask(b"ping")
    assert (peer.served, len(peer.executed)) == (1, 0)


def test_each_line_is_carried_out_once_under_load(bench: Bench) -> None:
    peer = bench.peer(dialect="classic")

    def work(caller: Caller, name: int) -> None:
        for number in range(100):
            text = b"%d.%d" % (name, number)
            assert caller.ask(b"echo:" + text) == text

    threads = [
        threading.Thread(target=work, args=(bench.caller(peer, "classic"), name))
        for name in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(peer.executed) == peer.served == 800
    assert peer.most_connections == 8
    assert bench.ended(peer) == []


@pytest.mark.parametrize("answer", [None, b"two\nlines"])
def test_a_failing_handler_ends_its_connection_only(bench: Bench, answer: bytes | None) -> None:
    told: list[str] = []

    def handle(command: bytes) -> bytes:
        if command == b"good":
            return b"fine"
        if answer is None:
            raise LookupError(command)
        return answer

    peer = bench.peer(dialect="line", handler=handle, log=told.append)
    caller, other = bench.caller(peer), bench.caller(peer)
    caller.send(b"hush\n")
    assert caller.left() == b""
    assert other.ask(b"good") == b"fine"
    (text,) = told
    assert text.startswith(
        f"the handler raised {'LookupError' if answer is None else 'ValueError'}"
    )
    assert "server.py" in text
    assert "hush" not in text
    assert bench.ended(peer) == []


def test_an_accept_that_fails_is_told_and_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    peer = bench.peer(dialect="line", log=told.append)
    start = threading.Thread.start

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    lost = bench.caller(peer)
    assert lost.left() == b""
    wait_until(lambda: told)
    monkeypatch.setattr(threading.Thread, "start", start)
    assert bench.caller(peer).ask(b"ping") == b"msul1"
    assert told == ["cannot take a connection: can't start new thread"]
    assert peer.connections == 1
