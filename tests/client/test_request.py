"""Requests over a real socket, and what is said when there is no reply."""

from __future__ import annotations

import socket
import threading

import pytest

from lonc.client import Client, ClientError, ConnectFailed, ConnectionLost, RequestTimeout
from lonc.errors import LoncError
from tests.reactor.conftest import in_child


def test_reply_comes_back_without_its_line_feed(daemon):
    daemon.serve(daemon.answers(b"msul1\n"))
    with Client(daemon.path) as client:
        assert client.request(b"ping") == b"msul1"
    daemon.finish()
    assert daemon.received == [b"ping\n"]


def test_one_connection_carries_many_requests(daemon):
    daemon.serve(daemon.answers(b"one\n", b"\n", b"\x00\r\xff\n"))
    with Client(daemon.path) as client:
        assert [client.request(b"a"), client.request(b"b"), client.request(b"c")] == [
            b"one",
            b"",
            b"\x00\r\xff",
        ]
    daemon.finish()
    assert daemon.accepted == 1


def test_a_forked_process_has_a_connection_of_its_own(daemon):
    """Else each could get the reply to the other's request."""
    daemon.serve(daemon.answers(b"1\n", b"3\n"))
    with Client(daemon.path) as client:
        assert client.request(b"first") == b"1"
        daemon.serve(daemon.answers(b"2\n"))
        in_child(lambda: _expect(client, b"child's", b"2"))
        assert client.request(b"parent's") == b"3"
    daemon.finish()
    assert daemon.accepted == 2


def _expect(client, request, reply):
    assert client.request(request) == reply


def test_reply_in_many_pieces(daemon):
    def bytewise(connection):
        daemon.line(connection)
        for byte in b"k=v&k=v\n":
            connection.send(bytes([byte]))

    daemon.serve(bytewise)
    with Client(daemon.path, timeout=10) as client:
        assert client.request(b"dump:msu:korte:environment:.") == b"k=v&k=v"


def test_large_request_and_reply(daemon):
    large = b"x" * 3_000_000
    daemon.serve(daemon.answers(large + b"\n"))
    with Client(daemon.path, timeout=10) as client:
        assert client.request(large) == large
    daemon.finish()
    assert daemon.received == [large + b"\n"]


def test_connection_closed_between_requests_is_opened_again(daemon):
    first_is_over = threading.Event()

    def only_one(connection):
        daemon.answers(b"first\n")(connection)
        connection.close()
        first_is_over.set()

    daemon.serve(only_one, daemon.answers(b"second\n"))
    with Client(daemon.path) as client:
        assert client.request(b"a") == b"first"
        assert first_is_over.wait(10)
        assert client.request(b"b") == b"second"


def test_surplus_after_a_reply_goes_to_nobody(daemon):
    daemon.serve(daemon.answers(b"mine\nnot mine\n"), daemon.answers(b"next\n"))
    with Client(daemon.path) as client:
        assert client.request(b"a") == b"mine"
        assert client.request(b"b") == b"next"


@pytest.mark.parametrize("line", [b"ping\n", b"a\nb", b"\n"])
def test_line_feed_in_a_request_is_refused_before_anything_is_sent(daemon, line):
    with Client(daemon.path) as client, pytest.raises(ValueError, match="line feed"):
        client.request(line)
    daemon.listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        daemon.listener.accept()


@pytest.mark.parametrize("timeout", [0, -1])
def test_timeout_must_be_above_zero(timeout):
    with pytest.raises(ValueError, match="above 0"):
        Client("/nowhere", timeout=timeout)


def test_nobody_listens(directory):
    with Client(directory / "msul1") as client, pytest.raises(ConnectFailed) as caught:
        client.request(b"ping")
    assert caught.value.may_have_been_executed is False
    assert str(directory / "msul1") in str(caught.value)
    assert isinstance(caught.value, LoncError)


def test_stale_socket(daemon):
    daemon.close()
    with Client(daemon.path) as client, pytest.raises(ConnectFailed, match="refused"):
        client.request(b"ping")


def test_path_too_long(directory):
    with Client(directory / ("x" * 120)) as client, pytest.raises(ConnectFailed, match="too long"):
        client.request(b"ping")


def test_con_lost_may_have_been_executed(daemon):
    daemon.serve(daemon.answers(b"con_lost\n"), daemon.answers(b"ok\n"))
    with Client(daemon.path) as client:
        with pytest.raises(ConnectionLost, match="con_lost") as caught:
            client.request(b"put:msu:korte:environment:a=b")
        assert caught.value.may_have_been_executed is True
        assert client.request(b"ping") == b"ok"


@pytest.mark.parametrize("part", [b"", b"half a rep"])
def test_close_before_the_reply_is_whole(daemon, part):
    daemon.serve(daemon.answers(part))
    with Client(daemon.path) as client, pytest.raises(ConnectionLost) as caught:
        client.request(b"ping")
    assert caught.value.may_have_been_executed is True


def test_request_that_was_not_sent_whole_was_not_executed(daemon):
    def read_some(connection):
        connection.recv(10)

    daemon.serve(read_some)
    with Client(daemon.path) as client, pytest.raises(ConnectionLost) as caught:
        client.request(b"x" * 30_000_000)
    assert caught.value.may_have_been_executed is False


def test_errors_do_not_repeat_the_request(daemon):
    daemon.serve(daemon.answers(b""), daemon.answers(b"con_lost\n"))
    with Client(daemon.path) as client:
        for _ in range(2):
            with pytest.raises(ClientError) as caught:
                client.request(b"auth:msu:korte:secret")
            assert "secret" not in str(caught.value)


def test_timeout_waiting_for_the_reply(daemon):
    told = threading.Event()

    def silent(connection):
        daemon.line(connection)
        told.wait(10)

    daemon.serve(silent, daemon.answers(b"new\n"))
    with Client(daemon.path, timeout=0.1) as client:
        with pytest.raises(RequestTimeout, match=r"0\.1 s") as caught:
            client.request(b"ping")
        assert caught.value.may_have_been_executed is True
        told.set()
        client.timeout = 10
        assert client.request(b"ping") == b"new"


def test_timeout_while_sending(daemon):
    told = threading.Event()
    daemon.serve(lambda connection: told.wait(10))
    with Client(daemon.path, timeout=0.1) as client, pytest.raises(RequestTimeout) as caught:
        client.request(b"x" * 30_000_000)
    told.set()
    assert caught.value.may_have_been_executed is False


def test_timeout_of_a_reply_that_trickles(daemon):
    told = threading.Event()

    def trickle(connection):
        daemon.line(connection)
        while not told.wait(0.01):
            connection.send(b"x")

    daemon.serve(trickle)
    with Client(daemon.path, timeout=0.2) as client, pytest.raises(RequestTimeout):
        client.request(b"ping")
    told.set()


def test_timeout_while_connecting_to_a_full_backlog(directory):
    path = directory / "msul1"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        with Client(path, timeout=0.1) as client, pytest.raises(RequestTimeout) as caught:
            client.request(b"ping")
    assert caught.value.may_have_been_executed is False


def test_interrupted_request_leaves_no_reply_behind(daemon, monkeypatch):
    daemon.serve(daemon.answers(b"old\n"), daemon.answers(b"new\n"))
    with Client(daemon.path) as client:
        receive = client._receive

        def interrupted(*arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(client, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.request(b"a")
        monkeypatch.setattr(client, "_receive", receive)
        assert client.request(b"b") == b"new"


def test_import_needs_nothing_heavy():
    import subprocess
    import sys

    heavy = ("asyncio", "ssl", "json", "logging", "dataclasses", "subprocess", "hashlib")
    code = f"import sys, lonc.client; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout == "[]\n"
