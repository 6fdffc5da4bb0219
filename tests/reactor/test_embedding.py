"""A reactor inside of another loop."""

from __future__ import annotations

import asyncio
import selectors
import subprocess
import sys

import pytest

from lonc.reactor import Reactor
from tests.reactor.conftest import readable


def test_its_descriptor_is_readable_while_something_is_ready(reactor, pair):
    left, right = pair
    reactor.io(right, "r", lambda event: right.recv(10))
    assert not readable(reactor.fileno())
    left.send(b"x")
    assert readable(reactor.fileno())
    assert reactor.run_once(0)
    assert not readable(reactor.fileno())


def test_a_selector_without_a_descriptor(parts, pair):
    """All else works on it."""
    with selectors.SelectSelector() as selector:
        reactor = Reactor(parts, selector=selector)
        with pytest.raises(ValueError, match="has no descriptor"):
            reactor.fileno()
        left, right = pair
        left.send(b"x")
        watcher = reactor.io(right, "r", lambda event: reactor.unloop(event.got))
        assert reactor.run() == "r"
        watcher.cancel()
        reactor.close()


def test_the_deadline_is_that_of_the_earliest_timer(world):
    reactor = world.reactor
    assert reactor.deadline() is None
    late = reactor.timer(print, after=20)
    early = reactor.timer(print, after=5)
    assert reactor.deadline() == 1005
    early.cancel()
    assert reactor.deadline() == 1020
    late.at = 1001
    assert reactor.deadline() == 1001
    late.stop()
    assert reactor.deadline() is None


def test_the_deadline_has_passed_while_something_waits_to_run(world):
    reactor = world.reactor
    timer = reactor.timer(world.note("timer"), after=20)
    timer.now()
    assert reactor.deadline() <= reactor.now
    reactor.run_once(0)
    idle = reactor.idle(print, min=0)
    assert reactor.deadline() <= reactor.now
    idle.cancel()
    assert reactor.deadline() is None


def test_in_a_loop_of_ones_own(reactor, pair):
    """The three calls that a host needs: fileno, deadline, run_once."""
    left, right = pair
    seen = []
    reactor.io(right, "r", lambda event: seen.append(right.recv(10)))
    reactor.timer(lambda event: left.send(b"by timer"), after=0.01)
    while not seen:
        deadline = reactor.deadline()
        timeout = None if deadline is None else max(0, deadline - reactor.now)
        readable(reactor.fileno(), 20 if timeout is None else timeout + 0.001)
        reactor.run_once(0)
    assert seen == [b"by timer"]


def test_in_asyncio(reactor, pair):
    left, right = pair

    async def main():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        pending = None

        def step():
            nonlocal pending
            if pending is not None:
                pending.cancel()
            reactor.run_once(0)
            deadline = reactor.deadline()
            if deadline is None:
                pending = None
            else:
                pending = loop.call_later(max(0, deadline - reactor.now), step)

        def read(event):
            seen.append(right.recv(10))
            if len(seen) == 3:
                done.set_result(seen)

        seen = []
        reactor.io(right, "r", read)
        ticks = reactor.timer(lambda event: left.send(b"tick"), interval=0.005)
        loop.add_reader(reactor.fileno(), step)
        step()
        result = await asyncio.wait_for(done, 20)
        ticks.cancel()
        if pending is not None:
            pending.cancel()
        loop.remove_reader(reactor.fileno())
        return result

    assert asyncio.run(main()) == [b"tick"] * 3


def test_importing_the_room_does_nothing():
    """No handler, descriptor, thread or environment variable is other than before."""
    script = """
import os, signal, sys, threading
def world():
    handlers = [signal.getsignal(signum) for signum in signal.valid_signals()]
    wakeup = signal.set_wakeup_fd(-1)
    return handlers, wakeup, os.listdir("/proc/self/fd"), threading.active_count(), dict(os.environ)
before = world()
import lonc.reactor
assert world() == before
print(*sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    heavy = {"asyncio", "dataclasses", "json", "logging", "ssl", "subprocess", "typing"}
    assert not heavy & set(done.stdout.split())
