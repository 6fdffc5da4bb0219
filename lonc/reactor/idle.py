"""Watching for the moment when nothing else is to do."""

from __future__ import annotations

from lonc.reactor.watchers import TIMED, Event, Watcher, seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lonc.reactor.loop import Reactor
    from lonc.reactor.watchers import Callback

# As in Perl's Event: often enough for a person, and no busy loop.
_LEAST = 0.01


class Idle(Watcher):
    """Notices that a pass had nothing to do; see `Reactor.idle`.

    A round: it waits for `min` seconds to pass, then for an idle pass, but from the start of the
    round no longer than `max`.  `min` and `max` can be set at any time; the next round uses them.
    """

    __slots__ = ("_max", "_min", "_ready", "_since")

    PHASE = TIMED

    def __init__(
        self,
        reactor: Reactor,
        cb: Callback,
        *,
        min: float | None,
        max: float | None,
        repeat: bool | None,
        prio: int | None,
        data: Any,
        desc: str | None,
    ) -> None:
        if repeat is None:
            repeat = min is not None or max is not None
        super().__init__(reactor, cb, repeat=repeat, prio=prio, data=data, desc=desc)
        self.min = _LEAST if min is None else min
        self.max = max
        self._ready = False
        self._since = 0.0

    @property
    def min(self) -> float:
        """Seconds from the start of a round that are not used, however idle the loop is."""
        return self._min

    @min.setter
    def min(self, value: float) -> None:
        self._min = seconds("min", value, zero=True)

    @property
    def max(self) -> float | None:
        """Seconds from the start of a round until the callback runs, idle or not; None: never."""
        return self._max

    @max.setter
    def max(self, value: float | None) -> None:
        self._max = None if value is None else seconds("max", value)

    def _begin(self) -> None:
        self._since = self.reactor.now
        if self._min:
            self.reactor._alarms.set(self, self._since + self._min)
        else:
            self._get_ready()

    def _end(self) -> None:
        self.reactor._alarms.clear(self)
        if self._ready:
            self._ready = False
            self.reactor._idlers.remove(self)

    def _get_ready(self) -> None:
        self._ready = True
        self.reactor._idlers.append(self)
        if self._max is not None:
            self.reactor._alarms.set(self, self._since + self._max)

    def _expire(self, now: float) -> Event | None:
        if self._ready:
            return self._noticed()
        self._get_ready()
        return None

    def _noticed(self) -> Event:
        self._end()
        return Event(self)

    def _after_callback(self) -> None:
        if self._active and self._alarm is None and not self._ready:
            if self.repeat:
                # The callback may have taken long: its own time does not count.
                self.reactor.poller.update()
                self._begin()
            else:
                self._retire()
