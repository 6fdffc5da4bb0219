"""What all watchers have in common: making, starting, stopping, data, and their callbacks."""

from __future__ import annotations

import gc
import os
import signal
import weakref

import pytest

from lonc.reactor import PRIO_HIGH, PRIO_NORMAL, Idle, Io, Signal, Timer

KINDS = ["io", "timer", "signal", "idle"]


@pytest.fixture(params=KINDS)
def make(request, reactor, pair, usual_signals):
    """A function that makes a watcher of one kind with further arguments."""
    first = {
        "io": (reactor.io, pair[0], "r"),
        "timer": (reactor.timer,),
        "signal": (reactor.signal, signal.SIGUSR1),
        "idle": (reactor.idle,),
    }
    function, *args = first[request.param]
    given = {"after": 1000} if request.param == "timer" else {}

    def make(callback=lambda event: None, **further):
        return function(*args, callback, **given, **further)

    yield make
    # Signals come back while the watch over them is still on.
    reactor.close()


def test_a_watcher_is_active_from_the_start_unless_parked(make):
    assert make().is_active
    assert not make(start=False).is_active


def test_start_and_stop_can_be_repeated(make):
    watcher = make(start=False)
    for _ in range(3):
        watcher.start()
        watcher.start()
        assert watcher.is_active
        watcher.stop()
        watcher.stop()
        assert not watcher.is_active
    watcher.again()
    assert watcher.is_active


def test_a_cancelled_watcher_can_be_read_but_not_used(make):
    watcher = make(data="kept", prio=3, desc="mine")
    watcher.cancel()
    watcher.cancel()
    assert (watcher.is_active, watcher.data, watcher.prio) == (False, "kept", 3)
    for method in (watcher.start, watcher.again, watcher.now):
        with pytest.raises(RuntimeError, match="mine was cancelled"):
            method()


def test_data_is_any_object_and_stays_the_same_one(make):
    mine = object()
    watcher = make(data=mine)
    assert watcher.data is mine
    watcher.data = None
    assert watcher.data is None
    assert make().data is None


def test_a_watcher_has_no_room_for_misspelt_attributes(make):
    with pytest.raises(AttributeError):
        make().dessc = "x"


def test_the_default_description_is_the_line_that_made_it(make, reactor):
    first = reactor.timer(lambda event: None, after=1)
    second = reactor.timer(lambda event: None, after=1)
    name, line = first.desc.rsplit(":", 1)
    assert name == __file__
    assert second.desc == f"{name}:{int(line) + 1}"
    assert make(desc="given").desc == "given"
    assert "given" in repr(make(desc="given"))


def test_repr_tells_the_state(make):
    watcher = make(desc="it")
    kind = type(watcher).__name__
    assert repr(watcher) == f"<{kind} it active>"
    watcher.stop()
    assert repr(watcher) == f"<{kind} it stopped>"
    watcher.cancel()
    assert repr(watcher) == f"<{kind} it cancelled>"


def test_priorities_by_kind(make):
    expected = {Io: PRIO_NORMAL, Timer: PRIO_NORMAL, Idle: PRIO_NORMAL, Signal: PRIO_HIGH}
    assert make().prio == expected[type(make())]


@pytest.mark.parametrize("prio", [-2, 7, 1.5, "high"])
def test_a_priority_outside_of_the_levels_is_refused(make, prio):
    with pytest.raises(ValueError, match="prio is a whole number from -1 to 6"):
        make(prio=prio)
    watcher = make()
    with pytest.raises(ValueError, match="prio"):
        watcher.prio = prio


def test_what_is_unknown_is_refused(make):
    with pytest.raises(TypeError, match="nice"):
        make(nice=1)


@pytest.mark.parametrize("callback", [None, "name", ["object", "method"]])
def test_a_callback_must_be_callable(make, callback):
    with pytest.raises(TypeError, match="callback must be callable"):
        make(callback)


def test_functions_methods_and_other_callables(make, reactor):
    class Receiver:
        def method(self, event):
            calls.append(("method", event.watcher))

        def __call__(self, event):
            calls.append(("call", event.watcher))

    calls = []
    receiver = Receiver()
    watchers = [make(callback, start=False) for callback in (receiver.method, receiver)]
    for watcher in watchers:
        watcher.now()
    assert reactor.run_once(0)
    assert calls == [("method", watchers[0]), ("call", watchers[1])]


def test_the_callback_can_be_changed(make, reactor):
    calls = []
    watcher = make(lambda event: calls.append("old"), start=False)
    watcher.now()
    watcher.cb = lambda event: calls.append("new")
    reactor.run_once(0)
    assert calls == ["new"]


def test_now_calls_back_in_the_next_pass_even_if_stopped(make, reactor):
    events = []
    watcher = make(events.append, start=False)
    watcher.now()
    watcher.now()
    assert events == []
    assert reactor.run_once(0)
    assert [(event.watcher, event.got, event.hits) for event in events] == [(watcher, "", 1)] * 2
    assert not reactor.run_once(0)


@pytest.mark.parametrize("method", ["stop", "cancel"])
def test_stopping_takes_back_what_waits(make, reactor, method):
    events = []
    watcher = make(events.append)
    watcher.now()
    getattr(watcher, method)()
    assert not reactor.run_once(0)
    assert events == []


def test_now_from_within_the_callback_waits_for_the_next_pass(make, reactor):
    events = []

    def callback(event):
        events.append(event)
        if len(events) < 3:
            watcher.now()

    watcher = make(callback, start=False)
    watcher.now()
    for count in (1, 2, 3):
        assert reactor.run_once(0)
        assert len(events) == count
    assert not reactor.run_once(0)


def test_an_event_keeps_the_priority_that_its_watcher_had(make, reactor):
    seen = []
    watcher = make(lambda event: seen.append(event.prio), start=False, prio=3)
    watcher.now()
    watcher.prio = 2
    watcher.now()
    reactor.run_once(0)
    assert seen == [2, 3]


def test_a_watcher_that_does_not_repeat_stops_when_it_runs(make, reactor):
    states = []
    watcher = make(lambda event: states.append(watcher.is_active), repeat=False)
    watcher.now()
    watcher.now()
    assert reactor.run_once(0)
    assert states == [False, False], "it stopped before the call, and the second was not dropped"
    assert not watcher.is_active


def test_again_within_the_callback_of_one_that_does_not_repeat(make, reactor):
    watcher = make(lambda event: watcher.again(), repeat=False)
    watcher.now()
    assert reactor.run_once(0)
    assert watcher.is_active


def test_repeat_can_be_changed(make, reactor):
    calls = []
    watcher = make(calls.append, repeat=False)
    watcher.repeat = True
    watcher.now()
    reactor.run_once(0)
    assert watcher.is_active
    watcher.repeat = False
    watcher.now()
    reactor.run_once(0)
    assert not watcher.is_active
    assert len(calls) == 2


def test_an_active_watcher_needs_no_keeper_and_a_stopped_one_has_none(reactor, pair):
    class Callback:
        def __call__(self, event):
            pass

    def abandoned(stopped):
        callback = Callback()
        watcher = reactor.io(pair[0], "r", callback, timeout=1000)
        if stopped:
            watcher.cancel()
        return weakref.ref(callback)

    kept, gone = abandoned(False), abandoned(True)
    gc.collect()
    assert kept() is not None
    assert gone() is None


def test_descriptors_by_number_or_by_object(reactor, pair):
    assert reactor.io(pair[0], "r", print).fd == pair[0].fileno()
    assert reactor.io(pair[0].fileno(), "r", print).fd == pair[0].fileno()
    with pytest.raises(AttributeError):
        reactor.io("name", "r", print)


def test_what_cannot_be_watched_is_refused_and_leaves_nothing(reactor, tmp_path):
    reader, writer = os.pipe()
    os.close(writer)
    os.close(reader)
    with pytest.raises(OSError):
        reactor.io(reader, "r", print)
    with open(tmp_path / "file", "w") as file, pytest.raises(OSError):
        reactor.io(file, "r", print)
    # The number is used again at once, and must not be taken for the one that failed.
    reader, writer = os.pipe()
    events = []
    watcher = reactor.io(reader, "r", events.append)
    os.write(writer, b"x")
    assert reactor.run_once(0)
    watcher.cancel()
    os.close(reader)
    os.close(writer)
    assert len(events) == 1


@pytest.mark.parametrize("poll", ["", "x", "rwx", "re", None, 1, []])
def test_poll_names_what_is_watched(reactor, pair, poll):
    with pytest.raises(ValueError, match='"r", "w" or "rw"'):
        reactor.io(pair[0], poll, print)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"after": 1, "at": 1},
        {"after": -1},
        {"after": float("nan")},
        {"after": float("inf")},
        {"interval": 0},
        {"interval": -1},
        {"interval": float("inf")},
        {"at": float("nan")},
        {"at": float("-inf")},
        {"at": 1, "repeat": True},
        {"after": 0, "repeat": True},
    ],
)
def test_a_timer_without_a_possible_time_is_refused(reactor, given):
    with pytest.raises(ValueError):
        reactor.timer(print, **given)
    assert reactor.deadline() is None


@pytest.mark.parametrize("given", [{"min": -1}, {"max": 0}, {"max": -1}, {"min": float("inf")}])
def test_an_idle_watcher_without_a_possible_time_is_refused(reactor, given):
    with pytest.raises(ValueError):
        reactor.idle(print, **given)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_is_a_time(reactor, pair, timeout):
    with pytest.raises(ValueError, match="timeout"):
        reactor.io(pair[0], "r", print, timeout=timeout)


@pytest.mark.parametrize("signum", [0, -1, 1000, signal.SIGKILL, signal.SIGSTOP, "USR1"])
def test_a_signal_that_cannot_be_caught_is_refused(reactor, signum):
    with pytest.raises(ValueError, match="not the number of a signal that can be caught"):
        reactor.signal(signum, print)
