"""When a client's next line is taken."""

from __future__ import annotations


def test_no_line_is_taken_before_the_reply_is_written_whole(world):
    peer = world.peer()
    world.start(peer)
    client, link = world.acquainted(peer)
    client.send(b"ping\n")
    assert link.line() == b"ping\n"
    reply = b"x" * (4 << 20) + b"\n"
    link.send(reply)
    world.until(lambda: world.exchange.unread)
    client.send(b"again\n")
    assert link.silent()
    assert client.bytes(len(reply)) == reply
    assert link.line() == b"again\n"
    link.send(b"pong\n")
    assert client.line() == b"pong\n"


def test_no_line_is_taken_before_the_reply_has_come(world):
    peer = world.peer()
    world.start(peer)
    client, link = world.acquainted(peer)
    client.send(b"one\n")
    assert link.line() == b"one\n"
    client.send(b"two\n")
    assert link.silent()
    assert peer.take() is None, "not by another connection either"
    link.send(b"1\n")
    assert client.line() == b"1\n"
    assert link.line() == b"two\n"
    link.send(b"2\n")
    assert client.line() == b"2\n"
