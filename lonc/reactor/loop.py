"""The loop: one pass after the other, until somebody ends it."""

from __future__ import annotations

import contextlib
import sys
from math import inf
from operator import attrgetter
from os import getpid

from lonc import fastpath
from lonc.reactor.descriptors import Descriptors, Io
from lonc.reactor.idle import Idle
from lonc.reactor.signals import Signal, Signals
from lonc.reactor.timers import Alarms, Timer
from lonc.reactor.watchers import ORDINARY, Event, seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lonc.reactor.descriptors import HasFileno
    from lonc.reactor.watchers import Callback

_by_rank = attrgetter("rank")


class Reactor:
    """An event loop: watchers notice, callbacks run.

    `parts` is the module that has the `Poller`: `lonc._fastpath` or `lonc._purepath`, by default
    the one that `lonc.fastpath` chose.  `selector` has the interface of `selectors.BaseSelector`;
    by default the poller takes the best that the system has.  `clock` returns seconds as a float
    and never goes back; by default it is `time.monotonic`.

    `parts` and `poller` stay readable.  `died` is called with an event and the exception that its
    callback raised, and can be replaced; the event is None where the exception came out of one of
    the poller's own handlers.  By default it writes the traceback to the standard error stream.

    One pass::

        wait        for descriptors and signals, until the first alarm at the latest
        urgent      events of signals, and of watchers with a `prio` below 0
        serve       the poller's own handlers
        ordinary    events of descriptors, and their timeouts
        timed       events of timers
        idle        if nothing at all ran

    In each part events run by `prio`, and those of one `prio` in the order in which they were
    noticed.  A call asked for with `now` has the part of its watcher's kind.  Everything is noticed
    before the first callback runs: what a callback starts is not noticed before the next pass, and
    what it stops does not run in this one.

    A reactor belongs to the thread that runs it.
    """

    __slots__ = (
        "_alarms",
        "_closed",
        "_descriptors",
        "_idlers",
        "_pid",
        "_queued",
        "_result",
        "_running",
        "_signals",
        "_unlooped",
        "died",
        "parts",
        "poller",
    )

    def __init__(
        self,
        parts: Any = None,
        *,
        selector: Any = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.parts = fastpath.parts if parts is None else parts
        self.poller = self.parts.Poller(selector, clock)
        self.poller.died = self._handler_died
        self.died: Callable[[Event | None, Exception], object] = write_traceback
        self._alarms = Alarms()
        self._descriptors = Descriptors(self)
        self._signals = Signals(self)
        # Neither list is ever replaced: the loop holds on to them.
        self._queued: list[Event] = []
        self._idlers: list[Idle] = []
        self._pid = getpid()
        self._running = False
        self._closed = False
        self._unlooped = False
        self._result: object = None

    # Watchers

    def io(
        self,
        fd: int | HasFileno,
        poll: str,
        callback: Callback,
        *,
        timeout: float | None = None,
        repeat: bool = True,
        prio: int | None = None,
        data: Any = None,
        desc: str | None = None,
        start: bool = True,
    ) -> Io:
        """Watch `fd`, a number or something with `fileno()`, for `poll`: "r", "w" or "rw".

        A hang-up or an error counts as all that was asked for.  After `timeout` seconds without an
        event there is one whose `got` is "t".  Stop or cancel the watcher before the descriptor is
        closed.

        ValueError for a wrong `poll`, `timeout` or `prio`; OSError if the descriptor cannot be
        watched; KeyError if one of the poller's own handlers has it.
        """
        watcher = Io(
            self,
            fd,
            poll,
            callback,
            timeout=timeout,
            repeat=repeat,
            prio=prio,
            data=data,
            desc=desc,
        )
        if start:
            watcher.start()
        return watcher

    def timer(
        self,
        callback: Callback,
        *,
        after: float | None = None,
        interval: float | None = None,
        at: float | None = None,
        hard: bool = False,
        repeat: bool | None = None,
        prio: int | None = None,
        data: Any = None,
        desc: str | None = None,
        start: bool = True,
    ) -> Timer:
        """Call back `after` seconds from now, or `at` a time on the scale of `now`.

        With `interval`, in seconds, it repeats, and without `after` and `at` the first time is one
        interval from now.  The next time is counted from the return of the callback; with `hard`,
        from the planned time, and times that were missed are made up for, one a pass.  `repeat`
        overrides: False for once in spite of `interval`, True to repeat with `after`.

        ValueError if there is no time, or one that is not possible.
        """
        watcher = Timer(
            self,
            callback,
            after=after,
            interval=interval,
            at=at,
            hard=hard,
            repeat=repeat,
            prio=prio,
            data=data,
            desc=desc,
        )
        if start:
            watcher.start()
        return watcher

    def signal(
        self,
        signum: int,
        callback: Callback,
        *,
        repeat: bool = True,
        prio: int | None = None,
        data: Any = None,
        desc: str | None = None,
        start: bool = True,
    ) -> Signal:
        """Call back for signal `signum`; several that came in the meantime are one event.

        The handler that was there, and the interpreter's wake-up descriptor, come back when the
        last watcher is stopped.  ValueError if there is no such signal, or none can catch it;
        RuntimeError outside of the main thread, or if the handler that is there could not be put
        back.
        """
        watcher = Signal(self, signum, callback, repeat=repeat, prio=prio, data=data, desc=desc)
        if start:
            watcher.start()
        return watcher

    def idle(
        self,
        callback: Callback,
        *,
        min: float | None = None,
        max: float | None = None,
        repeat: bool | None = None,
        prio: int | None = None,
        data: Any = None,
        desc: str | None = None,
        start: bool = True,
    ) -> Idle:
        """Call back when a pass had nothing to do: at most every `min` seconds (0.01).

        And, if the loop is never idle, after `max` seconds all the same.  It repeats if `min` or
        `max` is given; `repeat` overrides.  With `min=0` it runs in each idle pass, and the loop
        does not sleep.
        """
        watcher = Idle(
            self, callback, min=min, max=max, repeat=repeat, prio=prio, data=data, desc=desc
        )
        if start:
            watcher.start()
        return watcher

    # Running

    @property
    def now(self) -> float:
        """Seconds on the clock: the time of this pass, or outside of a pass, the time now."""
        now: float = self.poller.now if self._running else self.poller.update()
        return now

    def run(self) -> Any:
        """Make passes until `unloop`; return what that was given.

        Without anything to watch it waits for ever.  RuntimeError from inside a callback, and after
        `close`.
        """
        self._refuse_if_busy()
        try:
            if not self._unlooped:
                self._loop(inf, once=False)
            return self._result
        finally:
            self._unlooped = False
            self._result = None

    def run_once(self, timeout: float | None = None) -> bool:
        """Make one pass that waits at most `timeout` seconds (None: without end).

        Returns whether anything ran.  RuntimeError from inside a callback, and after `close`.
        """
        self._refuse_if_busy()
        limit = inf if timeout is None else seconds("timeout", timeout, zero=True)
        return self._loop(limit, once=True)

    def unloop(self, result: object = None) -> None:
        """Have `run` return `result` when this pass is over.

        If it is not running, the next `run` returns at once.
        """
        self._unlooped = True
        self._result = result

    def fileno(self) -> int:
        """Return a descriptor that is readable while `run_once` would find one ready.

        ValueError if the selector has none.  After a fork it is another one.
        """
        fd: int = self.poller.fileno()
        return fd

    def deadline(self) -> float | None:
        """Return the time, on the scale of `now`, at which a pass is due; None if there is none.

        It has passed already if something waits to run.  Ask again after each pass, and after
        watchers were made or changed outside of one.
        """
        if self._queued or self._idlers or self.poller.resumed:
            now: float = self.poller.now
            return now
        return self._alarms.earliest()

    def renew(self) -> None:
        """In a child process, part from what a fork left in common with the parent.

        `run` and `run_once` do it, as does the first change to a watcher, and `close` as far as it
        is needed; so it is to be called only where a child uses the poller without any of these.
        """
        self._part()
        self._signals.renew()

    def close(self) -> None:
        """Cancel all watchers that are active, and close the poller; descriptors stay open.

        Nothing happens the second time.  RuntimeError from inside a callback: `unloop` first.
        """
        if self._closed:
            return
        if getpid() != self._pid:
            # Signals keep the parent's sockets: there may be no descriptor left for others.
            self._part()
        if self._running:
            raise RuntimeError("a reactor cannot be closed by its own callback: unloop it first")
        active = self._alarms.watchers() + self._descriptors.watchers() + self._signals.watchers()
        for watcher in active + self._idlers[:]:
            watcher.cancel()
        self._queued.clear()
        self._closed = True
        self.poller.close()

    def _loop(self, limit: float, *, once: bool) -> bool:
        """Make one pass, or passes until `unloop`; return whether the last one ran anything."""
        poller = self.poller
        wait, serve = poller.wait, poller.serve
        heap, queued, idlers = self._alarms.heap, self._queued, self._idlers
        self._running = True
        poller.update()
        try:
            while True:
                # This is all that a pass costs in which only the poller's own handlers run.  A dead
                # entry on top of the heap costs one early pass, which takes it away.
                due = heap[0][0] if heap else inf
                timeout = due - poller.now
                if timeout > limit:
                    timeout = limit
                if queued or idlers or timeout < 0.0:
                    timeout = 0.0
                ready = wait(timeout if timeout < inf else None)
                if ready or queued or idlers or due <= poller.now:
                    ran = self._dispatch(ready)
                else:
                    ran = serve()
                if once or self._unlooped:
                    return bool(ran)
        finally:
            self._running = False

    def _dispatch(self, ready: list[tuple[Any, int]]) -> bool:
        """Do the rest of a pass in which watchers noticed something; return whether any ran."""
        poller = self.poller
        events = self._notice(ready)
        try:
            ran = self._invoke(events, before=ORDINARY)
            ran = bool(poller.serve()) or ran
            ran = self._invoke(events) or ran
            if not ran:
                events = [idle._noticed() for idle in self._idlers[:]]
                _put_first_last(events)
                ran = self._invoke(events)
        except BaseException:
            # What was noticed and did not run is not lost with the loop: the next pass has it.
            self._queued[:0] = reversed(events)
            raise
        # The next wait is to be no longer for the time that the callbacks took.
        poller.update()
        return ran

    def _notice(self, ready: list[tuple[Any, int]]) -> list[Event]:
        """Return what happened since the last pass, the first to run last."""
        events = self._queued[:]
        self._queued.clear()
        for handler, mask in ready:
            handler.gather(mask, events)
        now = self.poller.now
        for watcher in self._alarms.due(now):
            event = watcher._expire(now)
            if event is not None:
                events.append(event)
        _put_first_last(events)
        return events

    def _invoke(self, events: list[Event], before: float = inf) -> bool:
        """Take events off the end while their rank is below `before`, and call back for them."""
        ran = False
        while events and events[-1].rank < before:
            event = events.pop()
            if not event.is_live:
                continue
            ran = True
            watcher = event.watcher
            watcher._before_callback()
            try:
                watcher.cb(event)
            except Exception as error:
                self._report(event, error)
            finally:
                watcher._after_callback()
        return ran

    def _report(self, event: Event | None, error: Exception) -> None:
        try:
            self.died(event, error)
        except Exception as another:
            write_traceback(event, another)

    def _handler_died(self, handler: object, error: Exception) -> None:
        self._report(None, error)

    def _part(self) -> None:
        """In a child process, part from the parent's loop and poller."""
        self._pid = getpid()
        # The loop on the stack, if there is one, is the parent's.
        self._running = False
        self.poller.renew()

    def _notice_fork(self) -> None:
        if getpid() != self._pid:
            self.renew()

    def _refuse_if_busy(self) -> None:
        self._refuse_if_closed()
        self._notice_fork()
        if self._running:
            raise RuntimeError("the loop is running already: a callback cannot run it again")

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise RuntimeError("the reactor is closed")


def _put_first_last(events: list[Event]) -> None:
    """Sort `events` so that they can be taken off the end; of equals the first comes first."""
    events.sort(key=_by_rank)
    events.reverse()


def write_traceback(event: Event | None, error: Exception) -> None:
    """Write to the standard error stream which watcher's callback raised, and the traceback."""
    if sys.stderr is not None:
        culprit = "a handler" if event is None else f"the callback of {event.watcher.desc}"
        # Nobody may read the stream any more; the loop goes on all the same.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"lonc: {culprit} raised an exception; the loop goes on\n")
            sys.__excepthook__(type(error), error, error.__traceback__)
