"""Real signals."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest

from lonc.reactor import Reactor
from tests.reactor.conftest import readable, run, sending

pytestmark = pytest.mark.usefixtures("usual_signals")

USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2


def test_a_signal_wakes_up_the_loop(reactor):
    """It comes from another process, while the loop sleeps."""
    reactor.signal(USR1, lambda event: reactor.unloop(event.watcher.signum))
    with sending(lambda pid: os.kill(pid, USR1)):
        assert run(reactor) == USR1


def test_handlers_only_record(reactor):
    seen = []
    reactor.signal(USR1, seen.append)
    signal.raise_signal(USR1)
    assert seen == []
    assert reactor.run_once(0)
    assert len(seen) == 1
    assert not reactor.run_once(0)
    assert not readable(reactor.fileno()), "the loop would never sleep again"


def test_several_of_a_kind_are_one_event_with_hits(reactor):
    seen = []

    def callback(event):
        seen.append((event.watcher.signum, event.hits, event.got))

    reactor.signal(USR1, callback)
    reactor.signal(USR2, callback)
    for signum in (USR2, USR1, USR1, USR2, USR1):
        signal.raise_signal(signum)
    assert reactor.run_once(0)
    assert seen == [(USR2, 2, ""), (USR1, 3, "")]


def test_a_storm_overflows_nothing(reactor):
    """More signals than the wake-up descriptor has room for: each is counted."""
    hits = []
    reactor.signal(USR1, lambda event: hits.append(event.hits))
    for _ in range(5000):
        signal.raise_signal(USR1)
    while reactor.run_once(0):
        pass
    assert sum(hits) == 5000
    signal.raise_signal(USR1)
    assert reactor.run_once()
    assert hits[-1] == 1


def test_a_storm_from_outside_while_the_loop_runs(reactor):
    """However they are merged, the last one is never lost."""
    count = []
    reactor.signal(USR1, lambda event: count.append(event.hits))
    reactor.signal(USR2, lambda event: reactor.unloop("over"))

    def storm(pid):
        for _ in range(1000):
            os.kill(pid, USR1)
        os.kill(pid, USR2)

    with sending(storm):
        assert run(reactor) == "over"
    assert 1 <= sum(count) <= 1000


def test_each_watcher_of_a_signal_gets_its_own_event(reactor):
    seen = []
    watchers = [
        reactor.signal(USR1, lambda event, name=name: seen.append(name), prio=prio)
        for name, prio in (("usual", None), ("late", 6), ("urgent", -1))
    ]
    signal.raise_signal(USR1)
    reactor.run_once(0)
    assert seen == ["urgent", "usual", "late"]
    seen.clear()
    watchers[0].stop()
    signal.raise_signal(USR1)
    reactor.run_once(0)
    assert seen == ["urgent", "late"]


def test_a_watcher_that_was_stopped_sees_nothing(reactor):
    seen = []
    watcher = reactor.signal(USR1, seen.append)
    other = reactor.signal(USR1, print, start=False)
    other.start()
    signal.raise_signal(USR1)
    watcher.stop()
    other.cancel()
    assert not reactor.run_once(0)
    watcher.start()
    assert not reactor.run_once(0)
    assert seen == []
    signal.raise_signal(USR1)
    assert reactor.run_once(0)
    assert [event.hits for event in seen] == [1]


def test_once(reactor):
    signal.signal(USR1, signal.SIG_IGN)
    seen = []
    watcher = reactor.signal(USR1, seen.append, repeat=False)
    for _ in range(3):
        signal.raise_signal(USR1)
        reactor.run_once(0)
    assert [event.hits for event in seen] == [1]
    assert not watcher.is_active
    watcher.start()
    signal.raise_signal(USR1)
    reactor.run_once(0)
    assert len(seen) == 2
    signal.signal(USR1, signal.SIG_DFL)


def test_what_was_there_comes_back(reactor, pair):
    def handler(signum, frame):
        mine.append(signum)

    mine = []
    wakeup = pair[0].fileno()
    signal.signal(USR1, handler)
    signal.set_wakeup_fd(wakeup)
    for _ in range(3):
        first = reactor.signal(USR1, lambda event: None)
        second = reactor.signal(USR1, lambda event: None)
        assert signal.getsignal(USR1) != handler
        first.cancel()
        assert signal.getsignal(USR1) != handler
        second.cancel()
        assert signal.getsignal(USR1) is handler
    assert signal.set_wakeup_fd(-1) == wakeup
    signal.raise_signal(USR1)
    assert mine == [USR1]
    signal.signal(USR1, signal.SIG_DFL)


def test_what_was_put_over_ours_stays(reactor, pair):
    def handler(signum, frame):
        pass

    watcher = reactor.signal(USR1, lambda event: None)
    signal.signal(USR1, handler)
    signal.set_wakeup_fd(pair[0].fileno())
    watcher.cancel()
    assert signal.getsignal(USR1) is handler
    assert signal.set_wakeup_fd(-1) == pair[0].fileno()
    signal.signal(USR1, signal.SIG_DFL)


def test_a_wakeup_descriptor_that_was_closed_meanwhile_does_not_come_back(reactor):
    left, right = socket.socketpair()
    left.setblocking(False)
    signal.set_wakeup_fd(left.fileno())
    watcher = reactor.signal(USR1, lambda event: None)
    left.close()
    right.close()
    watcher.cancel()
    assert signal.set_wakeup_fd(-1) == -1


def test_close_lets_go(parts):
    before = signal.getsignal(USR1)
    reactor = Reactor(parts)
    reactor.signal(USR1, print)
    reactor.close()
    assert signal.getsignal(USR1) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_starting_and_stopping_leaves_no_descriptor_open(reactor):
    def descriptors():
        return set(os.listdir("/proc/self/fd"))

    watcher = reactor.signal(USR1, print, start=False)
    before = descriptors()
    for _ in range(3):
        watcher.start()
        assert len(descriptors()) == len(before) + 2
        watcher.stop()
        assert descriptors() == before


def test_a_handler_that_cannot_be_put_back_is_left_alone(reactor, monkeypatch):
    """A program in C that embeds the interpreter: `getsignal` has no name for its handler."""
    with monkeypatch.context() as patch:
        patch.setattr(signal, "getsignal", lambda signum: None)
        with pytest.raises(RuntimeError, match="handler from outside of Python"):
            reactor.signal(USR1, print)
    assert signal.getsignal(USR1) == signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


def in_thread(function):
    """Return what `function` raises in a thread of its own."""
    raised = []

    def target():
        try:
            function()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    return raised


def test_in_the_main_thread_only(reactor):
    (error,) = in_thread(lambda: reactor.signal(USR1, print))
    assert isinstance(error, RuntimeError)
    assert "main thread" in str(error)
    assert signal.getsignal(USR1) == signal.SIG_DFL
    watcher = reactor.signal(USR1, lambda event: seen.append(event))
    (error,) = in_thread(watcher.cancel)
    assert "main thread" in str(error)
    seen = []
    assert watcher.is_active
    signal.raise_signal(USR1)
    reactor.run_once(0)
    assert len(seen) == 1
    watcher.cancel()


def test_a_reactor_without_signals_runs_in_any_thread(parts):
    results = []

    def work():
        reactor = Reactor(parts)
        reactor.timer(lambda event: reactor.unloop("done"), after=0)
        results.append(run(reactor))
        reactor.close()

    assert in_thread(work) == []
    assert results == ["done"]


def test_the_event_waits_for_its_place_in_the_pass(reactor):
    """A signal that comes while a callback runs is in the next pass, with all its hits."""
    log = []

    def timer(event):
        signal.raise_signal(USR1)
        signal.raise_signal(USR1)
        log.append("timer")

    reactor.signal(USR1, lambda event: log.append(event.hits))
    reactor.timer(timer, after=0)
    reactor.run_once(0)
    assert log == ["timer"]
    reactor.run_once(0)
    assert log == ["timer", 2]
