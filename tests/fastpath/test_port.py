"""`Port` of both parts, on real sockets."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from tests.reactor.conftest import in_child


@pytest.fixture
def pair(parts):
    """A port, and the socket at the other end."""
    near, far = socket.socketpair()
    port = parts.Port(near.detach())
    yield port, far
    port.close()
    far.close()


def test_receive(pair):
    port, far = pair
    assert port.recv(10) is None
    far.send(b"a\0b\n")
    assert port.recv(2) == b"a\0"
    assert port.recv(65536) == b"b\n"
    assert port.recv(10) is None
    far.shutdown(socket.SHUT_WR)
    assert port.recv(10) == b""


def test_a_default_timeout_of_the_program_around(parts, monkeypatch):
    """It is about the sockets of others: a port never waits."""
    near, far = socket.socketpair()
    socket.setdefaulttimeout(0.01)
    try:
        port = parts.Port(near.detach())
        assert port.recv(10) is None
        while port.send(bytes(100_000)):
            pass
    finally:
        socket.setdefaulttimeout(None)
        port.close()
        far.close()


def test_send(pair):
    port, far = pair
    assert port.send(b"abc") == 3
    assert port.send(memoryview(b"xyz")[1:]) == 2
    assert far.recv(100) == b"abcyz"


def test_send_takes_what_goes_and_never_waits(pair):
    port, far = pair
    data = bytes(1 << 20)
    sent = port.send(data)
    assert 0 < sent < len(data)
    while port.send(b"x" * 1000):
        sent += 1000
    assert port.send(b"x") == 0
    received = 0
    while received < sent:
        received += len(far.recv(1 << 20))
    assert port.send(b"x") == 1


def test_the_other_side_is_closed(pair):
    port, far = pair
    far.close()
    assert port.recv(10) == b""
    with pytest.raises(BrokenPipeError):
        port.send(b"x")


def test_the_other_side_is_closed_with_something_unread(pair):
    port, far = pair
    port.send(b"unread")
    far.close()
    with pytest.raises(ConnectionResetError):
        port.recv(10)


@pytest.mark.parametrize("full", [False, True])
def test_gone_means_altogether(pair, full):
    port, far = pair
    while full and port.send(b"x" * 10_000):
        pass
    assert port.gone() is False
    far.shutdown(socket.SHUT_WR)
    assert port.recv(1) == b""
    assert port.gone() is False
    far.close()
    assert port.gone() is True


def test_close(pair):
    port, far = pair
    fd = port.fileno()
    assert os.fstat(fd)
    port.send(b"last")
    port.close()
    assert port.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert far.recv(10) == b"last"
    assert far.recv(10) == b""


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_one_that_nobody_closes(parts):
    near, far = socket.socketpair()
    with far:
        parts.Port(near.detach())
        assert far.recv(1) == b""


@pytest.mark.parametrize("wrong", ["text", 1 << 80])
def test_what_is_no_descriptor(parts, wrong):
    """Nothing is closed in its place: nought would be standard input."""
    before = os.fstat(0)
    with pytest.raises((TypeError, OverflowError)):
        parts.Port(wrong)
    assert os.path.samestat(os.fstat(0), before)


def test_closed_twice_closes_nobody_else(pair):
    port, _ = pair
    fd = port.fileno()
    other = os.dup(0)
    port.close()
    try:
        os.dup2(other, fd)
        port.close()
        port.reset()
        os.fstat(fd)
        with pytest.raises(OSError) as caught:
            port.send(b"x")
        assert caught.value.errno == errno.EBADF
    finally:
        os.close(other)
        os.close(fd)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_how_a_tcp_connection_ends(parts, how):
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with far:
        port = parts.Port(near.detach())
        port.send(b"half a li")
        getattr(port, how)()
        if how == "close":
            assert far.recv(100) == b"half a li"
            assert far.recv(100) == b""
        else:
            with pytest.raises(ConnectionResetError):
                while far.recv(100):
                    pass


def test_sending_to_nobody_is_no_signal(parts):
    def scenario():
        import signal

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        near, far = socket.socketpair()
        port = parts.Port(near.detach())
        far.close()
        with pytest.raises(BrokenPipeError):
            port.send(b"x")
        assert port.gone()

    in_child(scenario)
