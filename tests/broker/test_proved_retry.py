"""What becomes of a request that its connection took nothing of, while others wait."""

from __future__ import annotations


def test_what_was_not_sent_waits_again_before_all_others(world):
    peer = world.peer(room=4096)
    world.start(peer, max_connections=1)
    client, link = world.acquainted(peer)
    [inside] = world.exchange.links
    # The kernel has no room left, so the next request is given to the connection, but not sent.
    while inside.port.send(b"x" * 65536):
        world.settle()
    client.send(b"first\n")
    world.settle()
    assert (inside.state, inside.transaction.sent) == (world.parts.BUSY, 0)
    others = []
    for text in (b"second\n", b"third\n"):
        others.append(world.client(text))
        world.settle()
    link.close()
    link = peer.accept()
    for wire, text in zip((client, *others), (b"first\n", b"second\n", b"third\n"), strict=True):
        assert link.line() == text
        link.send(text)
        assert wire.line() == text
