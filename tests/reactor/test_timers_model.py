"""Random play with timers, on the reactor and on a plain model of it: both do the same."""

from __future__ import annotations

import random

import pytest

SEEDS = range(40)
STEPS = 300


class Model:
    """What timers promise, written down without a heap: it looks at all of them every time."""

    def __init__(self):
        self.time = 1000.0
        self.settings = 0
        self.timers = []
        self.pending = []

    def timer(self, callback, **given):
        return ModelTimer(self, callback, **given)

    def run_once(self):
        events, self.pending = self.pending, []
        now = self.time
        due = [timer for timer in self.timers if timer.set is not None and timer.at <= now]
        for timer in sorted(due, key=lambda timer: (timer.at, timer.set)):
            timer.set = None
            events.append((timer.prio, timer))
        # The sort is stable, and those below zero come first as it is.
        self.running = sorted(events, key=lambda event: event[0])
        while self.running:
            self.running.pop(0)[1].fire(now)

    def drop(self, timer):
        for events in (self.pending, getattr(self, "running", [])):
            events[:] = [event for event in events if event[1] is not timer]


class ModelTimer:
    def __init__(self, model, callback, *, after, interval, at, hard, prio, desc):
        self.model, self.callback = model, callback
        self.delay, self.interval, self.hard, self.prio = after, interval, hard, prio
        self.desc = desc
        self.at = at if at is not None else model.time + (interval if after is None else after)
        self.cancelled = False
        self.is_active = True
        model.timers.append(self)
        self.arm()

    def arm(self):
        self.model.settings += 1
        self.set = self.model.settings

    def start(self):
        if not self.is_active:
            self.is_active = True
            self.arm()

    def stop(self):
        self.model.drop(self)
        self.is_active = False
        self.set = None

    def cancel(self):
        self.stop()
        self.cancelled = True

    def again(self):
        self.move(self.model.time + (self.delay if self.interval is None else self.interval))
        self.start()

    def move(self, at):
        self.at = at
        if self.is_active:
            self.model.drop(self)
            self.arm()

    def now(self):
        self.model.pending.append((self.prio, self))

    def fire(self, now):
        if self.interval is None:
            self.is_active = False
            self.set = None
        elif self.hard and self.is_active and self.set is None:
            self.at += self.interval
            self.arm()
        self.callback(self)
        if self.is_active and self.set is None:
            self.at = now + self.interval
            self.arm()


class Real:
    """The reactor with the model's interface."""

    def __init__(self, world):
        self.world = world

    @property
    def time(self):
        return self.world.time

    @time.setter
    def time(self, time):
        self.world.time = time

    def timer(self, callback, **given):
        return self.world.reactor.timer(lambda event: callback(event.watcher), **given)

    def run_once(self):
        self.world.reactor.run_once(0)
        heap, alarms = self.world.reactor._alarms.heap, self.world.reactor._alarms
        assert len(heap) <= 2 * len(alarms) + 65


def play(field, seed):
    """Do what `seed` says, and return what came of it."""
    chance = random.Random(seed)
    log = []
    timers = []
    live = []

    def callback(timer):
        log.append(("fired", timer.desc, field.time))
        for _ in range(chance.choice((0, 0, 0, 1, 2))):
            act()

    def act():
        what = chance.choice(("make", "stop", "start", "again", "move", "now", "cancel", "again"))
        if what == "make" or not live:
            if len(live) < 60:
                make()
            return
        timer = chance.choice(live)
        log.append((what, timer.desc, timer.is_active, timer.at))
        if what == "move":
            at = field.time + chance.choice((-2, 0, 0, 1, 2, 7))
            timer.move(at) if isinstance(timer, ModelTimer) else setattr(timer, "at", at)
        elif what == "again" and timer.desc.startswith("at"):
            timer.start()
        else:
            getattr(timer, what)()
        if what == "cancel":
            live.remove(timer)

    def make():
        kind = chance.choice(("after", "at", "interval", "hard", "both"))
        whole = chance.choice((0, 1, 2, 3, 5))
        given = {"after": None, "interval": None, "at": None, "hard": kind == "hard"}
        if kind in ("after", "both"):
            given["after"] = whole
        if kind == "at":
            given["at"] = field.time + whole - 1
        if kind in ("interval", "hard", "both"):
            given["interval"] = chance.choice((1, 2, 3))
        prio = chance.choice((-1, 3, 4, 4, 4, 4, 5))
        timer = field.timer(callback, prio=prio, desc=f"{kind} {len(timers)}", **given)
        timers.append(timer)
        live.append(timer)
        log.append(("made", timer.desc, prio, timer.at))

    for _ in range(STEPS):
        act()
        if chance.random() < 0.6:
            field.time += chance.choice((0, 0, 1, 1, 2, 6))
            field.run_once()
            log.append(("passed", field.time))
    log.append([(timer.desc, timer.is_active, timer.at) for timer in timers])
    return log


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reactor_does_what_the_model_does(world, seed):
    expected = play(Model(), seed)
    assert sum(entry[0] == "fired" for entry in expected) > 50, "this seed shows nothing"
    got = play(Real(world), seed)
    for place, (one, other) in enumerate(zip(got, expected, strict=True)):
        assert one == other, f"seed {seed}, entry {place}: {one}, where the model has {other}"
