"""What all watchers have in common, and the events that they hand to their callbacks."""

from __future__ import annotations

import sys
from math import inf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lonc.reactor.loop import Reactor

    Callback = Callable[["Event"], object]

# Perl Event's levels: a lower number runs earlier, -1 to 6, and below zero is urgent.
PRIO_URGENT = -1
PRIO_HIGH = 2
PRIO_NORMAL = 4
_LEVELS = range(-1, 7)

# The parts of a pass in which events run.  A rank is a phase and, within it, a level.
URGENT, ORDINARY, TIMED = 0, 8, 16

_ROOM = __name__.rpartition(".")[0] + "."


class Event:
    """Something that happened, as a callback gets it.

    `watcher` noticed it; `got` is "r", "w" or "rw" for a descriptor, "t" for its timeout, else
    empty; `hits` counts the signals that were merged into it, else 1; `prio` is the level that the
    watcher had when it happened.
    """

    __slots__ = ("_generation", "got", "hits", "prio", "rank", "watcher")

    def __init__(self, watcher: Watcher, got: str = "", hits: int = 1) -> None:
        self.watcher = watcher
        self.got = got
        self.hits = hits
        self.prio = prio = watcher.prio
        self.rank = (URGENT if prio < 0 else watcher.PHASE) + prio
        self._generation = watcher._generation

    @property
    def is_live(self) -> bool:
        """False once the watcher was stopped, or set anew, after this event was noticed."""
        return self._generation == self.watcher._generation


class Watcher:
    """The common part of all watchers; `Reactor` makes them.

    `cb` is called with an `Event`; `data` is the maker's own; `desc` says in messages which watcher
    it is, by default the file and line that made it; `repeat` is False for a watcher that stops
    itself when its callback is about to run.  These can be set at any time, as can `prio`.

    The reactor keeps a watcher while it is active: its maker need not.
    """

    __slots__ = (
        "_active",
        "_alarm",
        "_cancelled",
        "_generation",
        "_prio",
        "cb",
        "data",
        "desc",
        "reactor",
        "repeat",
    )

    PHASE = ORDINARY
    PRIO = PRIO_NORMAL

    def __init__(
        self,
        reactor: Reactor,
        cb: Callback,
        *,
        repeat: bool,
        prio: int | None,
        data: Any,
        desc: str | None,
    ) -> None:
        if not callable(cb):
            raise TypeError(f"a callback must be callable, not {cb!r}")
        self.reactor = reactor
        self.cb = cb
        self.data = data
        self.desc = _origin() if desc is None else desc
        self.repeat = repeat
        self.prio = self.PRIO if prio is None else prio
        self._active = False
        self._cancelled = False
        self._alarm: list[Any] | None = None
        # Grows when events that were noticed but did not run yet are to be dropped.
        self._generation = 0

    def __repr__(self) -> str:
        state = "active" if self._active else "cancelled" if self._cancelled else "stopped"
        return f"<{type(self).__name__} {self.desc} {state}>"

    @property
    def is_active(self) -> bool:
        """Whether it watches."""
        return self._active

    @property
    def prio(self) -> int:
        """The level, -1 (urgent) to 6, of the events that it notices from now on."""
        return self._prio

    @prio.setter
    def prio(self, prio: int) -> None:
        if prio not in _LEVELS:
            raise ValueError(f"prio is a whole number from -1 to 6, not {prio!r}")
        self._prio = prio

    def start(self) -> None:
        """Watch; nothing happens if it does already.  RuntimeError after `cancel`."""
        self._refuse_if_cancelled()
        if not self._active:
            self.reactor._refuse_if_closed()
            self._begin()
            self._active = True

    def again(self) -> None:
        """Watch, counting time from now where the kind has a time.  RuntimeError after `cancel`."""
        self.start()

    def stop(self) -> None:
        """Watch no longer; what was noticed but did not run yet is dropped."""
        self._generation += 1
        self._retire()

    def cancel(self) -> None:
        """Stop for good."""
        self.stop()
        self._cancelled = True

    def now(self) -> None:
        """Have the callback called in the next pass, watching or not.  RuntimeError after `cancel`.

        The call takes its place by `prio`; `stop` and `cancel` take it back.
        """
        self._refuse_if_cancelled()
        self.reactor._queued.append(Event(self))

    def _refuse_if_cancelled(self) -> None:
        if self._cancelled:
            raise RuntimeError(f"the watcher {self.desc} was cancelled")

    # What a kind of watcher defines:

    def _begin(self) -> None:
        """Enter the collections of the reactor that notice things."""
        raise NotImplementedError

    def _end(self) -> None:
        """Leave them."""
        raise NotImplementedError

    def _expire(self, now: float) -> Event | None:
        """Its alarm rang: return an event, or None if it was not for the callback."""
        raise NotImplementedError

    def _before_callback(self) -> None:
        """The callback is about to run."""
        if not self.repeat:
            self._retire()

    def _after_callback(self) -> None:
        """The callback has run, or raised."""

    def _retire(self) -> None:
        """Watch no longer; what was noticed still runs."""
        if self._active:
            self._end()
            self._active = False


def seconds(name: str, value: float, *, zero: bool = False) -> float:
    """Return `value`, a number of seconds above 0, or 0 too if `zero`; else raise ValueError."""
    if not (0 <= value < inf) or (value == 0 and not zero):
        least = "0 or more" if zero else "more than 0"
        raise ValueError(f"{name} is a number of seconds, {least}, not {value!r}")
    return value


def _origin() -> str:
    """Return the file and line outside of this room that is being executed."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_ROOM):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
