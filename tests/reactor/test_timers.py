"""Timers in simulated time."""

from __future__ import annotations

import random

import pytest

from lonc.reactor import Reactor
from tests.reactor.conftest import run


@pytest.fixture
def times(world):
    """A callback that notes when it was called, and for which timer."""

    def callback(event):
        callback.seen.append((event.watcher.desc, round(world.time - 1000, 6)))

    callback.seen = []
    return callback


def test_after_and_at_are_once(world, times):
    timer = world.reactor.timer(times, after=2.5, desc="after")
    other = world.reactor.timer(times, at=1004, desc="at")
    assert (timer.at, other.at) == (1002.5, 1004)
    world.run_until(1020)
    assert times.seen == [("after", 2.5), ("at", 4)]
    assert not timer.is_active
    assert not other.is_active


def test_an_interval_repeats(world, times):
    world.reactor.timer(times, interval=3, desc="plain")
    world.reactor.timer(times, after=0.5, interval=4, desc="after")
    world.reactor.timer(times, at=1001, interval=5, desc="at")
    world.run_until(1010)
    assert times.seen == [
        ("after", 0.5),
        ("at", 1),
        ("plain", 3),
        ("after", 4.5),
        ("at", 6),
        ("plain", 6),
        ("after", 8.5),
        ("plain", 9),
    ]


def test_repeat_overrides(world, times):
    world.reactor.timer(times, interval=3, repeat=False, desc="once")
    world.reactor.timer(times, after=4, repeat=True, desc="again")
    world.run_until(1009)
    assert times.seen == [("once", 3), ("again", 4), ("again", 8)]


def test_of_one_time_in_the_order_of_setting(world, times):
    for name in "abcdef":
        world.reactor.timer(times, at=1005, desc=name)
    world.run_until(1005)
    assert [name for name, _ in times.seen] == list("abcdef")


def test_the_loop_sleeps_until_the_earliest(world, times):
    for after in (50, 3, 20):
        world.reactor.timer(times, after=after)
    world.reactor.run_once()
    assert world.waits == [3]
    assert world.time == 1003


def test_a_time_in_the_past_is_the_next_pass(world, times):
    world.reactor.timer(times, at=1, desc="past")
    assert world.reactor.run_once(0)
    assert times.seen == [("past", 0)]


def test_a_soft_timer_counts_from_the_return_of_the_callback(world):
    seen = []

    def slow(event):
        seen.append(world.time)
        world.time += 7

    timer = world.reactor.timer(slow, interval=2)
    world.run_until(1030)
    assert seen == [1002, 1011, 1020, 1029]
    assert timer.at == 1038


def test_a_hard_timer_keeps_to_plan(world):
    """What a slow callback made it miss is made up for, one time a pass."""
    seen = []

    def slow_once(event):
        seen.append((world.time, timer.at))
        if len(seen) == 1:
            world.time += 7

    timer = world.reactor.timer(slow_once, interval=2, hard=True)
    world.run_until(1013)
    assert seen == [
        (1002, 1004),
        (1009, 1006),
        (1009, 1008),
        (1009, 1010),
        (1010, 1012),
        (1012, 1014),
    ]


def test_hard_can_be_changed(world):
    seen = []

    def slow(event):
        seen.append(world.time)
        world.time += 1
        timer.hard = True

    timer = world.reactor.timer(slow, interval=4)
    world.run_until(1014)
    assert seen == [1004, 1009, 1013]


def test_a_late_loop_fires_each_timer_once(world, times):
    world.reactor.timer(times, interval=1, desc="soft")
    world.reactor.timer(times, after=2, desc="once")
    world.time += 50
    assert world.reactor.run_once(0)
    assert not world.reactor.run_once(0)
    assert times.seen == [("soft", 50), ("once", 50)]


def test_a_slow_callback_does_not_put_off_other_timers(world):
    """The next wait is shorter by the time that the callback took."""

    def slow(event):
        world.time += 4

    world.reactor.timer(slow, after=1)
    world.reactor.timer(lambda event: world.reactor.unloop(world.time), after=6)
    assert world.reactor.run() == 1006
    assert world.waits == [1, 1]


def test_time_that_passed_outside_of_the_loop_counts(world, times):
    world.reactor.timer(times, after=10)
    world.time += 8
    assert world.reactor.run_once()
    world.reactor.timer(times, after=10)
    world.time += 80
    assert world.reactor.run_once()
    assert world.waits == [2, 0]


def test_stop_and_start_keep_the_time(world, times):
    timer = world.reactor.timer(times, after=10, desc="it")
    world.run_until(1003)
    timer.stop()
    world.run_until(1006)
    timer.start()
    world.run_until(1012)
    timer.start()
    assert timer.is_active
    world.reactor.run_once(0)
    assert times.seen == [("it", 10), ("it", 12)], "a time that has passed: the next pass"


def test_again_counts_from_now(world, times):
    once = world.reactor.timer(times, after=10, desc="once")
    timer = world.reactor.timer(times, after=2, interval=10, desc="timer")
    world.run_until(1001)
    once.again()
    timer.again()
    assert (once.at, timer.at) == (1011, 1011)
    world.run_until(1015)
    assert times.seen == [("once", 11), ("timer", 11)]
    once.again()
    world.run_until(1026)
    assert times.seen[2:] == [("timer", 21), ("once", 25)]


def test_again_after_a_stop_has_no_missed_times_to_make_up_for(world, times):
    timer = world.reactor.timer(times, interval=1, hard=True, desc="it")
    timer.stop()
    world.run_until(1050)
    timer.again()
    world.run_until(1052.5)
    assert times.seen == [("it", 51), ("it", 52)]


def test_again_from_within_the_callback(world):
    seen = []

    def callback(event):
        seen.append(world.time)
        timer.again()
        timer.again()
        if len(seen) == 3:
            timer.stop()

    timer = world.reactor.timer(callback, after=5)
    world.run_until(1050)
    assert seen == [1005, 1010, 1015]


def test_again_needs_a_period(world, times):
    timer = world.reactor.timer(times, at=1005, desc="it")
    with pytest.raises(ValueError, match="it has neither interval nor after"):
        timer.again()
    assert timer.is_active
    timer.cancel()
    with pytest.raises(RuntimeError, match="cancelled"):
        timer.again()


def test_again_puts_off_a_timer_that_was_noticed_already(world, times):
    """A timeout that is put off by what arrives in the very same moment does not fire."""
    timer = world.reactor.timer(times, after=5, desc="timeout")
    world.reactor.io(3, "r", lambda event: timer.again())
    world.time += 5
    world.ready[3] = 1
    world.reactor.run_once(0)
    world.ready.clear()
    assert times.seen == []
    world.run_until(1020)
    assert times.seen == [("timeout", 10)]


def test_at_can_be_moved(world, times):
    timer = world.reactor.timer(times, after=100, desc="it")
    timer.at = 1003
    world.run_until(1005)
    assert times.seen == [("it", 3)]
    timer.at = 1007
    assert not timer.is_active
    world.run_until(1010)
    timer.start()
    world.reactor.run_once(0)
    assert times.seen == [("it", 3), ("it", 10)]
    with pytest.raises(ValueError, match="at is a time"):
        timer.at = float("nan")


def test_at_moved_from_within_the_callback_of_a_repeating_timer(world):
    seen = []

    def callback(event):
        seen.append(world.time)
        timer.at = world.time + len(seen)

    timer = world.reactor.timer(callback, interval=50)
    world.run_until(1058)
    assert seen == [1050, 1051, 1053, 1056]


def test_the_interval_can_be_changed(world, times):
    timer = world.reactor.timer(times, interval=5, desc="it")
    timer.interval = 1
    assert timer.interval == 1
    world.run_until(1007)
    assert times.seen == [("it", 5), ("it", 6), ("it", 7)]
    with pytest.raises(ValueError, match="interval"):
        timer.interval = 0


def test_repeat_taken_away_in_the_callback(world):
    seen = []

    def callback(event):
        seen.append(event)
        timer.repeat = False

    timer = world.reactor.timer(callback, interval=5)
    world.run_until(1050)
    assert len(seen) == 1
    assert not timer.is_active


def test_now_leaves_the_plan_alone(world, times):
    timer = world.reactor.timer(times, interval=5, hard=True, desc="it")
    world.run_until(1002)
    timer.now()
    world.reactor.run_once(0)
    assert timer.at == 1005
    world.run_until(1010)
    assert times.seen == [("it", 2), ("it", 5), ("it", 10)]


@pytest.mark.parametrize("hard", [False, True])
def test_a_callback_that_raises_repeats_all_the_same(world, hard):
    seen = []

    def callback(event):
        seen.append(world.time)
        raise ValueError("on purpose")

    world.reactor.died = lambda event, error: None
    world.reactor.timer(callback, interval=5, hard=hard)
    world.run_until(1015)
    assert seen == [1005, 1010, 1015]


def test_now_is_the_time_of_the_pass(world):
    reactor = world.reactor
    seen = []

    def callback(event):
        world.time += 3
        seen.append(reactor.now)

    reactor.timer(callback, after=1)
    reactor.timer(callback, after=1)
    world.run_until(1001)
    assert seen == [1001, 1001]
    world.time += 5
    assert reactor.now == 1012, "outside of a pass the clock is read"
    assert reactor.timer(callback, after=1).at == 1013


def test_cancelling_and_setting_again_do_not_grow_the_heap(world, times):
    reactor = world.reactor
    heap = reactor._alarms.heap
    timers = [reactor.timer(times, after=1000 + n) for n in range(100)]
    for round_ in range(50):
        for timer in timers:
            if round_ % 2:
                timer.again()
            else:
                timer.stop()
                timer.start()
            assert len(heap) <= 2 * len(timers) + 64
    for timer in timers:
        timer.cancel()
    assert len(heap) <= 64
    assert reactor.deadline() is None
    assert heap == []


def test_many_timers_fire_in_order(world):
    fired = []
    for n in range(2000):
        world.reactor.timer(lambda event: fired.append(event.watcher.at), after=n * 7919 % 2003)
    world.run_until(4000)
    assert len(fired) == 2000
    assert fired == sorted(fired)


def test_the_order_holds_when_dead_entries_are_swept_out(world):
    fired = []
    chance = random.Random(1)
    alarms = world.reactor._alarms
    timers = [
        world.reactor.timer(lambda event: fired.append(event.watcher.at), after=chance.random())
        for _ in range(1000)
    ]
    chance.shuffle(timers)
    for timer in timers[:900]:
        timer.cancel()
    assert len(alarms) == 100
    assert len(alarms.heap) <= 264
    world.run_until(1001)
    assert len(fired) == 100
    assert fired == sorted(fired)
    assert len(alarms) == 0


def test_by_the_real_clock(parts):
    reactor = Reactor(parts)
    started = reactor.now
    count = []
    reactor.timer(count.append, interval=0.001)
    reactor.timer(lambda event: reactor.unloop("done"), after=0.02)
    assert run(reactor) == "done"
    assert reactor.now - started >= 0.02
    assert count
    reactor.close()
