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
