"""The order within a pass, and what a callback may do to those that are still to run."""

from __future__ import annotations

import os
import signal

import pytest

from lonc.reactor import PRIO_HIGH, PRIO_NORMAL, PRIO_URGENT


def test_first_in_first_out_within_a_priority(world):
    """Perl Event's own example."""
    timers = {}
    for name in "12345":
        timers[name] = world.reactor.timer(
            world.note(name), after=10, prio=PRIO_NORMAL - 1 if name in "45" else PRIO_NORMAL
        )
    for name in "24113521":
        timers[name].now()
    world.steps()
    assert "".join(world.log).replace("serve", "") == "45211321"


def test_priorities_within_a_part_of_the_pass(world):
    for prio in (4, 6, 0, 2, 5, 1, 3):
        world.reactor.io(prio, "r", world.note(f"io {prio}"), prio=prio)
        world.reactor.timer(world.note(f"timer {prio}"), after=0, prio=prio)
        world.ready[prio] = 1
    world.reactor.run_once()
    assert world.log == [
        "serve",
        *(f"io {prio}" for prio in range(7)),
        *(f"timer {prio}" for prio in range(7)),
    ]


def test_the_parts_of_a_pass(world, usual_signals):
    reactor = world.reactor
    note = world.note
    idle = reactor.idle(note("idle"), min=0)
    reactor.timer(note("timer"), after=0)
    reactor.timer(note("urgent timer"), after=0, prio=PRIO_URGENT)
    reactor.io(3, "r", note("io"))
    reactor.io(3, "r", note("high io"), prio=PRIO_HIGH)
    reactor.io(4, "r", note("urgent io"), prio=PRIO_URGENT)
    reactor.timer(note("asked for"), after=1000).now()
    late = reactor.signal(signal.SIGUSR1, note("low signal"), prio=6)
    early = reactor.signal(signal.SIGUSR1, note("signal"))
    world.ready = {3: 1, 4: 1, wakeup_of(world): 1}
    signal.raise_signal(signal.SIGUSR1)
    assert reactor.run_once()
    assert world.log == [
        "urgent io",
        "urgent timer",
        "signal",
        "low signal",
        "serve",
        "high io",
        "io",
        "asked for",
        "timer",
    ]
    world.ready.clear()
    world.log.clear()
    assert reactor.run_once()
    assert world.log == ["serve", "idle"]
    for watcher in (idle, late, early):
        watcher.cancel()


def wakeup_of(world):
    """Return the descriptor, of those that the selector knows, that signals make readable."""
    (fd,) = {fd for fd in world.selector.keys if fd not in (3, 4)}
    return fd


def test_a_pass_serves_once_whatever_else_it_does(world):
    reactor = world.reactor
    reactor.run_once(0)
    reactor.timer(world.note("timer"), after=0)
    reactor.run_once(0)
    assert world.log == ["serve", "serve", "timer"]


@pytest.mark.parametrize("method", ["stop", "cancel"])
def test_a_callback_may_stop_those_that_are_still_to_run(reactor, pair, method):
    """Each stops the others: whoever is first, only that one runs."""
    watchers = []
    ran = []

    def callback(event):
        ran.append(event.watcher)
        for watcher in watchers:
            if watcher is not event.watcher:
                getattr(watcher, method)()

    left, right = pair
    left.send(b"x")
    watchers += [
        reactor.io(right, "r", callback),
        reactor.io(right, "rw", callback),
        reactor.io(left, "w", callback),
        reactor.timer(callback, after=0),
        reactor.timer(callback, interval=1000),
        reactor.idle(callback, min=0),
    ]
    watchers[4].now()
    assert reactor.run_once(0)
    assert len(ran) == 1


def test_stopped_and_started_again_in_one_pass(reactor, pair):
    """What was noticed before the stop does not run; what is still so is noticed again."""
    left, right = pair
    left.send(b"x")
    ran = []

    def restart(event):
        second.stop()
        second.start()

    first = reactor.io(right, "r", restart)
    second = reactor.io(right, "r", ran.append)
    assert reactor.run_once(0)
    assert ran == []
    first.cancel()
    assert reactor.run_once(0)
    assert len(ran) == 1


def test_a_descriptor_closed_and_its_number_used_again_within_a_pass(reactor):
    """The old descriptor's readiness is not taken for the new one's."""
    reader, writer = os.pipe()
    os.write(writer, b"x")
    ran = []
    watchers = {}

    def replace(event):
        for watcher in watchers.pop("old"):
            watcher.cancel()
        os.close(reader)
        again = os.pipe()
        assert again[0] == reader
        watchers["new"] = (reactor.io(reader, "r", ran.append), again[1])

    watchers["old"] = [reactor.io(reader, "r", replace), reactor.io(reader, "r", ran.append)]
    assert reactor.run_once(0)
    assert not reactor.run_once(0)
    assert ran == []
    watcher, other_writer = watchers["new"]
    os.write(other_writer, b"x")
    assert reactor.run_once(0)
    assert [event.watcher for event in ran] == [watcher]
    watcher.cancel()
    for fd in (reader, writer, other_writer):
        os.close(fd)


def test_what_a_callback_starts_waits_for_the_next_pass(world):
    reactor = world.reactor

    def start(event):
        reactor.timer(world.note("timer"), after=0)
        reactor.timer(world.note("past"), at=reactor.now - 5)
        reactor.timer(world.note("asked for"), after=1000).now()

    reactor.io(3, "r", world.note("io", start))
    world.ready[3] = 1
    reactor.run_once(0)
    assert world.log == ["serve", "io"]
    world.ready.clear()
    world.log.clear()
    reactor.run_once(0)
    assert world.log == ["serve", "asked for", "past", "timer"]


def test_a_timer_that_starts_another_for_now_does_not_hold_the_pass(world):
    def chain(event):
        world.reactor.timer(world.note("timer", chain), after=0)

    world.reactor.timer(world.note("timer", chain), after=0)
    for _ in range(5):
        assert world.reactor.run_once(0)
    assert world.log == ["serve", "timer"] * 5


def test_what_one_pass_did_not_come_to_is_done_in_the_next(world):
    """SystemExit ends the loop in the middle of a pass; going on loses nothing."""

    def leave(event):
        raise SystemExit

    for name, action in (("first", None), ("second", leave), ("third", None)):
        world.reactor.timer(world.note(name, action), after=0)
        world.reactor.timer(world.note(f"urgent {name}", action), after=0, prio=PRIO_URGENT)
    with pytest.raises(SystemExit):
        world.reactor.run()
    assert world.log == ["urgent first", "urgent second"]
    with pytest.raises(SystemExit):
        world.reactor.run()
    assert world.log[2:] == ["urgent third", "serve", "first", "second"]
    assert world.reactor.run_once(0)
    assert world.log[6:] == ["serve", "third"]
    assert not world.reactor.run_once(0)
