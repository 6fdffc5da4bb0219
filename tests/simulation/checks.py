"""What must hold: in each pass of the loop, and when a schedule is over."""

from __future__ import annotations

from .clients import CON_LOST


class Failure(Exception):
    """The broker did what it must not do."""


def check_pass(world):
    """Check, at the start of a pass, what must hold at any moment."""
    exchange = world.exchange
    settings = world.settings
    if exchange.held > settings.max_buffered:
        # What was read last, and con_lost for clients that do not take even that.
        more = world.network.largest + len(CON_LOST) * len(exchange.clients)
        if exchange.held > settings.max_buffered + more:
            world.fail(f"{exchange.held} bytes are held, max_buffered is {settings.max_buffered}")
    waiting = len(exchange.queue) + len(exchange.background)
    if waiting:
        # One that came back from a connection that failed gets another in the next client phase.
        if exchange.idle and not world.reactor.poller.resumed:
            world.fail("a request waits, and a connection is idle")
        # Those that wait again, after their connection failed, are not turned away.
        if waiting > settings.max_queue + world.most_connections:
            world.fail(f"{waiting} requests wait, max_queue is {settings.max_queue}")


def check_drain(world):
    """Check, soon after a drain has begun, that only those are left who wait for something."""
    for client in world.exchange.clients:
        if client.transaction is None and client.unsent is None:
            world.fail("a client that waits for nothing outlived the beginning of a drain")


def check_end(world):
    """Check that a schedule did its work, and left nothing behind."""
    exchange = world.exchange
    left = {
        "transactions": exchange.outstanding,
        "bytes": exchange.held,
        "attempts": exchange.attempts,
        "usable connections": exchange.usable,
        "clients": len(exchange.clients),
        "connections": len(exchange.links),
        "idle connections": len(exchange.idle),
        "requests in the queue": len(exchange.queue) + len(exchange.background),
        "clients that do not read": len(exchange.unread),
        "unfinished lines": len(exchange.unfinished),
        "sessions": len(world.broker.sessions),
        "ports": len(world.network.ports),
        "timers": len(world.reactor._alarms),
        "descriptors watched": len(world.reactor._descriptors.watchers()),
        "anything due": world.reactor.deadline() is not None,
        "submitted requests": len(world.submitted),
        "attempts to connect": len(world.connector.attempts),
        "open connections": world.connector.open,
    }
    left = {what: number for what, number in left.items() if number}
    if left:
        world.fail(f"left behind: {left}")
    if exchange.requests < 90:
        world.fail(f"there were only {exchange.requests} requests")
