"""A descriptor's number outlives it: what is told of the one before must not reach the next."""

from __future__ import annotations

import os
import socket


class Policy:
    """Lets every request wait."""

    def dial(self):
        pass

    def arm(self):
        pass


def test_a_hang_up_of_the_client_that_had_the_number_before(parts):
    poller = parts.Poller()
    exchange = parts.Exchange(poller, Policy())

    def look():
        for _ in range(3):
            poller.wait(0)
            poller.serve()

    (near, far), (near_too, far_too) = socket.socketpair(), socket.socketpair()
    fd = near.detach()
    gone = exchange.add_client(parts.Port(fd))
    # A process that was forked meanwhile keeps it open like this: the kernel goes on watching it.
    copy = os.dup(fd)
    gone.close()
    os.dup2(near_too.fileno(), fd)
    client = exchange.add_client(parts.Port(fd))
    far_too.send(b"ping\n")
    far_too.shutdown(socket.SHUT_WR)
    look()
    assert client.mask == 0, "it waits, and only its hang-up is looked for"
    far.close()
    look()
    assert not client.closed
    far_too.close()
    look()
    assert client.closed, "for its own it is"
    near_too.close()
    os.close(copy)
    poller.close()
