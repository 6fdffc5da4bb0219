"""A reactor on both sides of a fork."""

from __future__ import annotations

import os
import signal

import pytest

from lonc.reactor import Reactor
from tests.net.helpers import no_descriptor_left
from tests.reactor.conftest import in_child, readable, run, sending

pytestmark = pytest.mark.usefixtures("usual_signals")

USR1 = signal.SIGUSR1


def test_the_child_goes_on_by_itself(reactor, pair):
    """Descriptors, timers and signals that the parent watches work in the child too."""
    left, right = pair
    seen = []
    watcher = reactor.io(right, "r", lambda event: seen.append("io"))
    reactor.timer(lambda event: seen.append("timer"), after=0)
    caught = reactor.signal(USR1, lambda event: seen.append("signal"))

    def child():
        left.send(b"x")
        os.kill(os.getpid(), USR1)
        assert reactor.run_once(0)
        assert sorted(seen) == ["io", "signal", "timer"]

    in_child(child)
    assert seen == []
    right.recv(100)
    caught.cancel()
    watcher.cancel()


def test_what_the_child_does_is_not_seen_by_the_parent(reactor, pair):
    """One kernel object for both would lose the parent's watchers with the child's."""
    left, right = pair
    seen = []
    watcher = reactor.io(right, "r", lambda event: seen.append(right.recv(100)))
    caught = reactor.signal(USR1, lambda event: seen.append(USR1))
    for action in (
        lambda: watcher.cancel(),
        lambda: setattr(watcher, "poll", "w"),
        lambda: reactor.io(left, "w", print),
        lambda: caught.cancel(),
        lambda: reactor.close(),
        lambda: reactor.renew(),
        lambda: reactor.run_once(0),
    ):
        in_child(action)
        left.send(b"x")
        assert reactor.run_once(0)
        assert not reactor.run_once(0)
        signal.raise_signal(USR1)
        assert reactor.run_once(0)
        assert seen == [b"x", USR1]
        assert not readable(reactor.fileno()), "the child left something behind"
        seen.clear()
    caught.cancel()


def test_closing_in_the_child_leaves_the_parents_poller_alone(reactor, pair):
    """It may have handlers that no watcher of the reactor stands for."""
    left, right = pair
    reactor.poller.watch(right.fileno(), 1, "a handler")
    in_child(reactor.close)
    left.send(b"x")
    assert reactor.poller.wait(0) == [("a handler", 1)]


def test_the_child_parts_from_the_parent_once(world):
    renewed = []
    vars(world.reactor.poller)["renew"] = lambda: renewed.append(os.getpid())

    def child():
        for _ in range(3):
            world.reactor.run_once(0)
        assert renewed == [os.getpid()]

    world.reactor.run_once(0)
    in_child(child)
    assert renewed == []


def test_a_signal_of_the_child_does_not_wake_up_the_parent(reactor):
    seen = []
    caught = reactor.signal(USR1, lambda event: seen.append(event.hits))

    def child():
        reactor.run_once(0)
        for _ in range(3):
            os.kill(os.getpid(), USR1)
        assert reactor.run_once(0)
        assert seen == [3]

    in_child(child)
    assert not reactor.run_once(0)
    assert seen == []
    caught.cancel()


def test_a_child_closes_it_where_no_descriptor_is_left(parts, reactor, pair):
    reactor.io(pair[0], "r", print)
    reactor.signal(USR1, print)

    def child():
        with no_descriptor_left():
            reactor.close()
            # All that it had is there for one of the child's own.
            Reactor(parts).signal(USR1, print)

    in_child(child)


def test_signals_where_somebody_takes_the_wakeup_away_at_a_fork(reactor):
    """asyncio does from Python 3.12 on, in every child of a program that has imported it."""
    seen = []
    caught = reactor.signal(USR1, lambda event: seen.append(event.hits))

    def child():
        signal.set_wakeup_fd(-1)
        reactor.run_once(0)
        os.kill(os.getpid(), USR1)
        assert reactor.run_once(0)
        assert seen == [1]

    in_child(child)
    caught.cancel()


def test_the_first_signal_is_watched_in_the_child(reactor):
    def child():
        seen = []
        reactor.signal(USR1, lambda event: seen.append(event.hits))
        os.kill(os.getpid(), USR1)
        assert reactor.run_once(0)
        assert seen == [1]

    in_child(child)


def test_the_wakeup_of_somebody_else_stays_at_a_fork(reactor, pair):
    caught = reactor.signal(USR1, print)
    other = pair[0].fileno()

    def child():
        signal.set_wakeup_fd(other)
        reactor.run_once(0)
        assert signal.set_wakeup_fd(-1) == other

    in_child(child)
    caught.cancel()


def test_a_signal_before_the_childs_first_pass_is_not_lost(reactor):
    seen = []
    caught = reactor.signal(USR1, lambda event: seen.append(event.hits))

    def child():
        os.kill(os.getpid(), USR1)
        assert reactor.run_once(0)
        assert seen == [1]

    in_child(child)
    reactor.run_once(0)
    assert seen == []
    caught.cancel()


def test_a_signal_of_the_parent_is_not_the_childs(reactor):
    """It was caught before the fork, and is still to be handled."""
    seen = []
    caught = reactor.signal(USR1, lambda event: seen.append(event.hits))
    signal.raise_signal(USR1)

    def child():
        reactor.run_once(0)
        assert seen == []

    in_child(child)
    assert reactor.run_once(0)
    assert seen == [1]
    caught.cancel()


def test_a_signal_wakes_up_a_child_that_sleeps(reactor):
    caught = reactor.signal(USR1, lambda event: reactor.unloop("woken"))

    def child():
        with sending(lambda pid: os.kill(pid, USR1)):
            assert run(reactor) == "woken"

    in_child(child)
    caught.cancel()


def test_a_child_forked_in_a_callback_has_a_reactor_of_its_own(parts, reactor, pair):
    left, right = pair
    seen = []

    def child():
        own = Reactor(parts)
        own.io(right, "r", lambda event: own.unloop(right.recv(100)))
        assert run(own) == b"for the child"
        own.close()

    def callback(event):
        left.send(b"for the child")
        in_child(child)
        left.send(b"for the parent")

    reactor.io(right, "r", lambda event: seen.append(right.recv(100)))
    reactor.timer(callback, after=0)
    assert reactor.run_once(0)
    assert reactor.run_once(0)
    assert seen == [b"for the parent"]


@pytest.mark.parametrize("method", ["close", "run"])
def test_a_child_forked_in_a_callback_may_use_the_reactor(reactor, pair, method):
    """The loop on its stack is the parent's, and it does not go back there."""
    left, right = pair
    seen = []
    reactor.io(right, "r", lambda event: reactor.unloop(right.recv(100)))

    def child():
        if method == "close":
            reactor.close()
        else:
            left.send(b"for the child")
            assert run(reactor) == b"for the child"

    def callback(event):
        in_child(child)
        left.send(b"for the parent")
        with pytest.raises(RuntimeError):
            getattr(reactor, method)()
        seen.append("refused")

    reactor.timer(callback, after=0)
    assert run(reactor) == b"for the parent"
    assert seen == ["refused"]


def test_the_grandchild_too(reactor, pair):
    left, right = pair
    seen = []
    reactor.io(right, "r", lambda event: seen.append(right.recv(100)))

    def child():
        reactor.run_once(0)
        in_child(grandchild)
        left.send(b"child")
        assert reactor.run_once(0)
        assert seen == [b"child"]

    def grandchild():
        left.send(b"grandchild")
        assert reactor.run_once(0)
        assert seen == [b"grandchild"]

    in_child(child)
    assert not reactor.run_once(0)
