"""Idle watchers, in simulated time."""

from __future__ import annotations

import pytest

from tests.reactor.conftest import run


@pytest.fixture
def busy(world):
    """Something to do in each pass, each of which takes a second."""
    world.ready[3] = 1

    def work(event):
        world.time += 1

    return world.reactor.io(3, "r", work)


def noting(world):
    seen = []
    return seen, lambda event: seen.append(round(world.time - 1000, 6))


def test_once_without_min_and_max(world):
    seen, callback = noting(world)
    idle = world.reactor.idle(callback)
    world.run_until(1005)
    assert seen == [0.01]
    assert not idle.is_active
    world.log.clear()
    idle.again()
    world.run_until(1010)
    assert seen == [0.01, 5.01]


def test_it_repeats_with_min(world):
    seen, callback = noting(world)
    world.reactor.idle(callback, min=2)
    world.run_until(1007)
    assert seen == [2, 4, 6]


def test_repeat_overrides(world):
    seen, callback = noting(world)
    idle = world.reactor.idle(callback, repeat=True)
    assert idle.min == 0.01
    world.run_until(1000.035)
    assert seen == [0.01, 0.02, 0.03]
    idle.cancel()
    world.reactor.idle(callback, min=1, repeat=False)
    world.run_until(1005)
    assert len(seen) == 4


def test_without_a_least_time_in_each_idle_pass(world):
    seen, callback = noting(world)
    idle = world.reactor.idle(callback, min=0)
    assert [world.reactor.run_once() for _ in range(3)] == [True] * 3
    assert seen == [0, 0, 0]
    assert world.waits == [0, 0, 0], "the loop does not sleep"
    idle.stop()
    assert not world.reactor.run_once(0)


def test_it_waits_while_something_else_is_to_do(world, busy):
    seen, callback = noting(world)
    world.reactor.idle(callback, min=0)
    for _ in range(5):
        world.reactor.run_once()
    assert seen == []
    busy.stop()
    world.reactor.run_once()
    assert seen == [5]


def test_timers_and_calls_asked_for_come_before(world):
    seen, callback = noting(world)
    timer = world.reactor.timer(world.note("timer"), after=0)
    world.reactor.idle(callback, min=0)
    world.reactor.run_once()
    assert seen == []
    timer.now()
    world.reactor.run_once()
    assert seen == []
    world.reactor.run_once()
    assert seen == [0]


def test_the_handlers_of_the_poller_come_before(world):
    seen, callback = noting(world)
    world.reactor.idle(callback, min=0)
    world.served = 2
    assert world.reactor.run_once()
    assert seen == []
    world.served = 0
    assert world.reactor.run_once()
    assert seen == [0]


def test_after_max_it_runs_all_the_same(world, busy):
    seen, callback = noting(world)
    idle = world.reactor.idle(callback, min=0, max=10)
    for _ in range(35):
        world.reactor.run_once()
    # It is noticed at 10, runs when the work of that pass is done, and counts from then.
    assert seen == [11, 22, 33]
    idle.cancel()
    assert world.reactor.deadline() is None


def test_max_counts_from_the_start_of_the_round(world, busy):
    seen, callback = noting(world)
    world.reactor.idle(callback, min=4, max=6)
    for _ in range(14):
        world.reactor.run_once()
    assert seen == [7, 14]


def test_an_idle_pass_starts_a_new_round(world):
    seen, callback = noting(world)
    world.reactor.idle(callback, min=3, max=4)
    world.run_until(1010)
    assert seen == [3, 6, 9]


def test_min_and_max_can_be_changed(world):
    seen, callback = noting(world)
    idle = world.reactor.idle(callback, min=1)
    idle.min = 3
    idle.max = 5
    assert (idle.min, idle.max) == (3, 5)
    world.run_until(1008)
    assert seen == [1, 4, 7]
    idle.max = None
    with pytest.raises(ValueError, match="max"):
        idle.max = 0
    with pytest.raises(ValueError, match="min"):
        idle.min = -1


def test_its_own_time_does_not_count(world):
    seen = []

    def slow(event):
        seen.append(world.time)
        world.time += 5

    world.reactor.idle(slow, min=2)
    world.run_until(1020)
    assert seen == [1002, 1009, 1016]


def test_the_lower_prio_runs_first(world):
    for prio in (6, 1, 6, 3):
        world.reactor.idle(world.note(str(prio)), prio=prio)
    world.reactor.run_once()
    assert world.log == ["serve", "1", "3", "6", "6"]


def test_several_run_in_one_idle_pass_and_may_stop_each_other(world):
    reactor = world.reactor
    idles = [reactor.idle(world.note(str(n)), min=0) for n in range(3)]
    reactor.run_once()
    assert world.log == ["serve", "0", "1", "2"]
    world.log.clear()
    idles[0].cb = world.note("first", lambda event: idles[1].stop())
    reactor.run_once()
    assert world.log == ["serve", "first", "2"]
    idles[0].cancel()
    idles[2].cancel()
    assert not reactor.run_once(0)


def test_stopped_while_it_waits_for_its_time(world):
    seen, callback = noting(world)
    idle = world.reactor.idle(callback, min=5)
    idle.stop()
    assert world.reactor.deadline() is None
    world.run_until(1010)
    idle.start()
    world.run_until(1020)
    assert seen == [15, 20]


def test_repeat_taken_away_in_the_callback(world):
    def callback(event):
        idle.repeat = False

    idle = world.reactor.idle(callback, min=1)
    world.run_until(1005)
    assert not idle.is_active


def test_now_leaves_the_round_alone(world):
    seen, callback = noting(world)
    idle = world.reactor.idle(callback, min=2)
    idle.now()
    world.run_until(1004)
    assert seen == [0, 2, 4]


def test_now_while_it_waits_for_an_idle_pass(world):
    seen, callback = noting(world)
    idle = world.reactor.idle(callback, min=0)
    idle.now()
    for count in (1, 2, 3):
        world.reactor.run_once()
        assert len(seen) == count
    idle.cancel()
    assert not world.reactor.run_once(0)


def test_on_real_descriptors(reactor, pair):
    left, right = pair
    left.send(b"abc")
    order = []

    def read(event):
        order.append(right.recv(1))

    reactor.io(right, "r", read)
    reactor.idle(lambda event: reactor.unloop(order), min=0)
    assert run(reactor) == [b"a", b"b", b"c"]
