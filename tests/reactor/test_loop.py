"""Running and ending the loop, and callbacks that raise."""

from __future__ import annotations

import signal
import sys

import pytest

from lonc import fastpath
from lonc.reactor import Reactor
from tests.reactor.conftest import run


def test_run_returns_what_unloop_was_given(reactor):
    for result in (None, 0, "text", ["list"]):
        reactor.timer(lambda event, result=result: reactor.unloop(result), after=0)
        assert run(reactor) is result
    reactor.timer(lambda event: reactor.unloop(), after=0)
    assert run(reactor) is None


def test_the_pass_is_finished_first(world):
    reactor = world.reactor
    reactor.timer(world.note("first", lambda event: reactor.unloop("over")), after=0)
    reactor.timer(world.note("second"), after=0)
    reactor.timer(world.note("later"), after=1)
    assert reactor.run() == "over"
    assert world.log == ["serve", "first", "second"]


def test_the_last_result_counts(world):
    reactor = world.reactor
    for result in (1, 2):
        reactor.timer(lambda event, result=result: reactor.unloop(result), after=0)
    assert reactor.run() == 2


def test_unloop_before_run(world):
    world.reactor.unloop("early")
    world.reactor.timer(world.note("timer", lambda event: world.reactor.unloop("late")), after=0)
    assert world.reactor.run() == "early"
    assert world.log == []
    assert world.reactor.run() == "late"


def test_unloop_of_a_nested_pass_is_for_the_next_run(world):
    world.reactor.timer(lambda event: world.reactor.unloop("from a pass"), after=0)
    assert world.reactor.run_once(0)
    assert world.reactor.run() == "from a pass"


def test_run_once_waits_no_longer_than_told(world):
    reactor = world.reactor
    assert not reactor.run_once(0)
    assert not reactor.run_once(2.5)
    reactor.timer(world.note("timer"), after=10)
    assert not reactor.run_once(4)
    assert reactor.run_once(40)
    assert world.waits == [0, 2.5, 4, 6]
    with pytest.raises(ValueError, match="timeout"):
        reactor.run_once(-1)


def test_run_once_without_end_waits_for_the_first_event(reactor, pair):
    left, right = pair
    seen = []
    reactor.io(right, "r", seen.append)
    left.send(b"x")
    assert reactor.run_once()
    assert len(seen) == 1


def test_run_once_tells_whether_anything_ran(world):
    reactor = world.reactor
    timer = reactor.timer(world.note("timer"), after=0)
    assert reactor.run_once(0) is True
    timer.now()
    timer.stop()
    assert reactor.run_once(0) is False
    world.served = 1
    assert reactor.run_once(0) is True


def test_running_the_loop_from_a_callback_is_refused(world):
    reactor = world.reactor
    refused = []

    def callback(event):
        for method in (reactor.run, reactor.run_once):
            with pytest.raises(RuntimeError, match="running already") as caught:
                method()
            refused.append(caught.value)
        with pytest.raises(RuntimeError, match="unloop it first"):
            reactor.close()
        reactor.unloop("unharmed")

    reactor.timer(callback, after=0)
    assert reactor.run() == "unharmed"
    assert len(refused) == 2


def test_another_reactor_may_run_in_a_callback(parts, world):
    other = Reactor(parts)
    other.timer(lambda event: other.unloop("inner"), after=0)
    world.reactor.timer(lambda event: world.reactor.unloop(other.run()), after=0)
    assert world.reactor.run() == "inner"
    other.close()


def test_an_exception_goes_to_died_and_the_loop_goes_on(world):
    reactor = world.reactor
    died = []
    error = ValueError("on purpose")

    def callback(event):
        raise error

    reactor.died = lambda event, exception: died.append((event.watcher, exception))
    watcher = reactor.timer(callback, after=0)
    reactor.timer(world.note("next"), after=0)
    reactor.timer(lambda event: reactor.unloop("went on"), after=1)
    assert reactor.run() == "went on"
    assert died == [(watcher, error)]
    assert "next" in world.log


@pytest.mark.parametrize("kind", ["io", "signal", "idle"])
def test_an_exception_in_every_kind_of_callback(reactor, pair, kind, usual_signals):
    def callback(event):
        raise ValueError("on purpose")

    pair[1].send(b"x")
    died = []
    reactor.died = lambda event, error: died.append((event.watcher, str(error)))
    watcher = {
        "io": lambda: reactor.io(pair[0], "r", callback),
        "signal": lambda: reactor.signal(signal.SIGUSR1, callback),
        "idle": lambda: reactor.idle(callback, min=0),
    }[kind]()
    for count in (1, 2):
        if kind == "signal":
            signal.raise_signal(signal.SIGUSR1)
        assert reactor.run_once(0)
        assert died == [(watcher, "on purpose")] * count
    watcher.cancel()


def test_died_can_end_the_loop(world):
    def callback(event):
        raise ValueError("on purpose")

    world.reactor.died = lambda event, error: world.reactor.unloop(error)
    world.reactor.timer(callback, after=0)
    assert str(world.reactor.run()) == "on purpose"


def test_by_default_a_traceback_that_names_the_watcher(world, capfd):
    def callback(event):
        raise ValueError("on purpose")

    world.reactor.timer(callback, after=0, desc="the culprit")
    assert world.reactor.run_once(0)
    written = capfd.readouterr().err
    assert "the callback of the culprit raised an exception" in written
    assert "Traceback (most recent call last)" in written
    assert "ValueError: on purpose" in written
    assert __file__ in written


def test_without_a_stderr_the_loop_goes_on(world, monkeypatch):
    def callback(event):
        raise ValueError("on purpose")

    monkeypatch.setattr(sys, "stderr", None)
    world.reactor.timer(callback, after=0)
    world.reactor.timer(world.note("next"), after=0)
    assert world.reactor.run_once(0)
    assert world.log == ["serve", "next"]


def test_died_itself_may_raise(world, capfd):
    def callback(event):
        raise ValueError("first")

    def died(event, error):
        raise KeyError("second")

    world.reactor.died = died
    world.reactor.timer(callback, after=0, desc="the culprit")
    world.reactor.timer(world.note("next"), after=0)
    assert world.reactor.run_once(0)
    assert world.log == ["serve", "next"]
    written = capfd.readouterr().err
    assert "ValueError: first" in written
    assert "KeyError: 'second'" in written


def test_an_exception_of_the_pollers_own_handlers(world):
    """The poller gives it to the reactor, which has no event for it."""
    died = []
    world.reactor.died = lambda event, error: died.append((event, error))
    error = ValueError("on purpose")
    world.reactor.poller.poller.died("a handler", error)
    assert died == [(None, error)]


def test_that_is_written_too(world, capfd):
    world.reactor.poller.poller.died("a handler", ValueError("on purpose"))
    assert "a handler raised an exception" in capfd.readouterr().err


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_what_is_to_end_the_program_does(world, exception):
    def callback(event):
        raise exception

    world.reactor.died = None
    timer = world.reactor.timer(callback, interval=1)
    with pytest.raises(exception):
        world.reactor.run()
    assert timer.is_active
    timer.cb = lambda event: world.reactor.unloop("again")
    assert world.reactor.run() == "again", "the loop can run again, and the timer goes on"


def test_an_interrupt_from_the_keyboard_ends_the_sleep(reactor):
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    reactor.timer(lambda event: signal.raise_signal(signal.SIGINT), after=0)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(reactor)
    finally:
        signal.signal(signal.SIGINT, previous)


def test_close_stops_everything_and_twice_is_once(parts, pair, usual_signals):
    reactor = Reactor(parts)
    active = [
        reactor.io(pair[0], "r", print, timeout=5),
        reactor.io(pair[0], "w", print),
        reactor.timer(print, after=5),
        reactor.signal(signal.SIGUSR1, print),
        reactor.idle(print, min=0),
        reactor.idle(print, min=5),
    ]
    stopped = reactor.timer(print, after=5, start=False)
    reactor.close()
    reactor.close()
    assert [watcher.is_active for watcher in active] == [False] * len(active)
    assert pair[0].fileno() != -1
    for refused in (reactor.run, reactor.run_once, stopped.start):
        with pytest.raises(RuntimeError, match="closed"):
            refused()
    with pytest.raises(RuntimeError, match="closed"):
        reactor.timer(print, after=1)


def test_a_reactor_takes_the_part_that_the_door_chose():
    reactor = Reactor()
    assert reactor.parts is fastpath.parts
    reactor.close()


def test_a_steady_pass_calls_nothing_but_the_poller():
    """The cost of a pass in which only the poller's own handlers run, shown without a clock."""

    class Poller:
        now = 0.0
        passes = 0
        died = None

        def __init__(self, selector, clock):
            pass

        def update(self):
            return self.now

        def wait(self, timeout):
            return []

        def serve(self):
            self.passes += 1
            if self.passes % 100 == 0:
                reactor.unloop()
            return 1

        def close(self):
            pass

    def count(frame, event, arg):
        if event == "call" and frame.f_globals["__name__"].startswith("lonc.reactor"):
            calls.append(frame.f_code.co_name)

    def calls_of_a_run():
        calls.clear()
        sys.setprofile(count)
        try:
            reactor.run()
        finally:
            sys.setprofile(None)
        return len(calls)

    calls = []
    reactor = Reactor(type("parts", (), {"Poller": Poller}))
    reactor.timer(print, after=1000)
    for passes in (100, 200):
        assert calls_of_a_run() < 10, calls
        assert reactor.poller.passes == passes
    reactor.close()
