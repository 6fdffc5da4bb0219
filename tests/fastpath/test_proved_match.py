"""Two connections in one pass: one fails before it took anything, the other has a stray line."""

from __future__ import annotations

import selectors
import socket


class FirstSelector(selectors.DefaultSelector):
    """Puts one descriptor before all others."""

    first = None

    def select(self, timeout=None):
        return sorted(super().select(timeout), key=lambda each: each[0].fd != self.first)


class StuckPort:
    """A port of Python that takes nothing."""

    def __init__(self, port):
        self.port = port

    def send(self, data):
        return 0

    def __getattr__(self, name):
        return getattr(self.port, name)


class Policy:
    """Opens nothing, and notes what is lost."""

    def __init__(self):
        self.reasons = []

    def arm(self):
        pass

    def dial(self):
        pass

    def lost(self, link, reason, state, transaction):
        self.reasons.append(reason)


def test_what_waits_again_is_not_given_to_a_link_that_is_ready_too(parts):
    selector, policy = FirstSelector(), Policy()
    poller = parts.Poller(selector)
    exchange = parts.Exchange(poller, policy)
    (near, far), (near_too, far_too) = socket.socketpair(), socket.socketpair()
    for port in (parts.Port(near_too.detach()), StuckPort(parts.Port(near.detach()))):
        exchange.dialling()
        exchange.release(exchange.add_link(port))
    selector.first = port.fileno()
    ended = []
    transaction = exchange.submit(b"ping\n", ended.append)
    poller.serve()
    assert transaction.sent == 0 and len(exchange.idle) == 1
    far.close()
    far_too.send(b"stray\n")
    for _ in range(3):
        poller.wait(0)
        poller.serve()
    assert ended == [] and transaction.queued
    assert len(policy.reasons) == 2
    exchange.finish(transaction, None, "the end")
    far_too.close()
    poller.close()
    selector.close()
