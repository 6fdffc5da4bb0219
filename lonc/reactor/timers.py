"""Timers, and the heap of alarms under everything that has a time."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import isfinite

from lonc.reactor.watchers import TIMED, Event, Watcher, seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lonc.reactor.loop import Reactor
    from lonc.reactor.watchers import Callback

# Dead entries are swept out when they are more than half of the heap, so a sweep costs each of them
# a constant share.  Below this number a sweep saves nothing.
_FEW_DEAD = 64


class Alarms:
    """At most one point in time for each watcher, the earliest first.

    A heap of `[at, number, watcher]`.  The number, which grows, keeps those of one time in the
    order in which they were set, and the comparison away from the watcher.  Clearing an alarm takes
    the watcher out of its entry at once, and leaves the dead entry to be popped or swept: the heap
    never has more than twice as many entries as there are alarms, plus 64.
    """

    __slots__ = ("_dead", "_number", "heap")

    def __init__(self) -> None:
        # Never replaced: the loop holds on to it.
        self.heap: list[list[Any]] = []
        self._dead = 0
        self._number = 0

    def __len__(self) -> int:
        return len(self.heap) - self._dead

    def set(self, watcher: Watcher, at: float) -> None:
        """Have `due` return `watcher` at the time `at`, instead of when it was set to before."""
        self.clear(watcher)
        self._number += 1
        watcher._alarm = [at, self._number, watcher]
        heappush(self.heap, watcher._alarm)

    def clear(self, watcher: Watcher) -> None:
        """Forget the alarm of `watcher`, if it has one."""
        entry = watcher._alarm
        if entry is None:
            return
        watcher._alarm = None
        entry[2] = None
        self._dead += 1
        if self._dead > _FEW_DEAD and self._dead * 2 > len(self.heap):
            self.heap[:] = [entry for entry in self.heap if entry[2] is not None]
            heapify(self.heap)
            self._dead = 0

    def due(self, now: float) -> list[Watcher]:
        """Take out the alarms for `now` or earlier, and return their watchers in order of time."""
        heap = self.heap
        due = []
        while heap and heap[0][0] <= now:
            watcher = heappop(heap)[2]
            if watcher is None:
                self._dead -= 1
            else:
                watcher._alarm = None
                due.append(watcher)
        return due

    def earliest(self) -> float | None:
        """Return the time of the first alarm, None if there is none."""
        heap = self.heap
        while heap and heap[0][2] is None:
            heappop(heap)
            self._dead -= 1
        return heap[0][0] if heap else None

    def watchers(self) -> list[Watcher]:
        """Return all watchers that have an alarm."""
        return [entry[2] for entry in self.heap if entry[2] is not None]


class Timer(Watcher):
    """Notices that a time has come; see `Reactor.timer`.

    `start` keeps `at` as it is: where that has passed, the timer fires in the next pass.

    `hard` can be set at any time: a hard timer repeats at its planned times, late or not; any other
    counts its interval from the return of the callback.
    """

    __slots__ = ("_at", "_delay", "_interval", "hard")

    PHASE = TIMED

    def __init__(
        self,
        reactor: Reactor,
        cb: Callback,
        *,
        after: float | None,
        interval: float | None,
        at: float | None,
        hard: bool,
        repeat: bool | None,
        prio: int | None,
        data: Any,
        desc: str | None,
    ) -> None:
        if after is None and interval is None and at is None:
            raise ValueError("a timer needs one of after, at and interval")
        if after is not None and at is not None:
            raise ValueError("a timer has after or at, not both")
        if repeat is None:
            repeat = interval is not None
        self._delay = None if after is None else seconds("after", after, zero=True)
        self._interval = None if interval is None else seconds("interval", interval)
        if repeat and not self._period:
            raise ValueError("a repeating timer needs an interval of more than 0 seconds")
        super().__init__(reactor, cb, repeat=repeat, prio=prio, data=data, desc=desc)
        self.hard = hard
        if at is None:
            first = interval if after is None else after
            assert first is not None
            at = reactor.now + first
        self._at = _checked(at)

    @property
    def at(self) -> float:
        """When it fires, or was to fire last, on the scale of `Reactor.now`.

        Setting it while the timer is active moves it.
        """
        return self._at

    @at.setter
    def at(self, at: float) -> None:
        self._at = _checked(at)
        if self._active:
            self._move()

    @property
    def interval(self) -> float | None:
        """Seconds from one time to the next; a new value counts from the next repetition on."""
        return self._interval

    @interval.setter
    def interval(self, interval: float) -> None:
        self._interval = seconds("interval", interval)

    def again(self) -> None:
        """Fire one interval from now, or as long as `after` was if there is no interval.

        An active timer is moved, so that a timeout is put off with this one call.  ValueError if
        the timer was made with `at` alone; RuntimeError after `cancel`.
        """
        self._refuse_if_cancelled()
        period = self._period
        if period is None:
            raise ValueError(f"the timer {self.desc} has neither interval nor after: set at")
        self._at = self.reactor.now + period
        if self._active:
            self._move()
        else:
            self.start()

    @property
    def _period(self) -> float | None:
        return self._delay if self._interval is None else self._interval

    def _move(self) -> None:
        # It may have been noticed for the earlier time, and not have run yet.
        self._generation += 1
        self._begin()

    def _begin(self) -> None:
        self.reactor._alarms.set(self, self._at)

    def _end(self) -> None:
        self.reactor._alarms.clear(self)

    def _expire(self, now: float) -> Event | None:
        return Event(self)

    # A timer that repeats has no alarm from the moment when it was noticed until it is set again:
    # before the callback if it is hard, behind it otherwise.

    def _before_callback(self) -> None:
        super()._before_callback()
        if self.hard and self._active and self._alarm is None:
            self._repeat_from(self._at)

    def _after_callback(self) -> None:
        if self._active and self._alarm is None:
            # The callback may have taken long: its own time does not count.
            self._repeat_from(self.reactor.poller.update())

    def _repeat_from(self, start: float) -> None:
        period = self._period
        if self.repeat and period:
            self._at = start + period
            self._begin()
        else:
            self._retire()


def _checked(at: float) -> float:
    if not isfinite(at):
        raise ValueError(f"at is a time in seconds on the scale of Reactor.now, not {at!r}")
    return at
