"""Bringing signals into the loop."""

from __future__ import annotations

import signal
from collections import deque
from os import getpid
from selectors import EVENT_READ as READ
from socket import socketpair

from lonc.reactor.watchers import PRIO_HIGH, URGENT, Event, Watcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket
    from typing import Any

    from lonc.reactor.loop import Reactor
    from lonc.reactor.watchers import Callback

_NO_WAKEUP = -1


class Signal(Watcher):
    """Notices a signal of number `signum`; see `Reactor.signal`."""

    __slots__ = ("signum",)

    PHASE = URGENT
    PRIO = PRIO_HIGH

    def __init__(
        self,
        reactor: Reactor,
        signum: int,
        cb: Callback,
        *,
        repeat: bool,
        prio: int | None,
        data: Any,
        desc: str | None,
    ) -> None:
        if signum not in signal.valid_signals() or signum in (signal.SIGKILL, signal.SIGSTOP):
            raise ValueError(f"{signum!r} is not the number of a signal that can be caught")
        super().__init__(reactor, cb, repeat=repeat, prio=prio, data=data, desc=desc)
        self.signum = int(signum)

    def _begin(self) -> None:
        self.reactor._signals.add(self)

    def _end(self) -> None:
        self.reactor._signals.remove(self)


class Signals:
    """The signals that are watched, with what was there before and is put back.

    A handler only records.  The loop wakes up because the interpreter writes a byte into a pair of
    sockets from within its C handler, when it has made a note to call Python's.  Once the loop has
    read that byte, Python's handler has been called, or is before the next function starts: reading
    first, and looking at the record in a function of its own, misses nothing.
    """

    __slots__ = ("_before", "_caught", "_outer", "_reactor", "_reader", "_watchers", "_writer")

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._watchers: dict[int, list[Signal]] = {}
        # The handlers that ours stand in for, and the wake-up descriptor.
        self._before: dict[int, Any] = {}
        self._outer = _NO_WAKEUP
        # With the process: what a parent caught and did not handle yet is not its child's.
        self._caught: deque[tuple[int, int]] = deque()
        self._reader: socket | None = None
        self._writer: socket | None = None

    def add(self, watcher: Signal) -> None:
        """Catch for `watcher` too.

        RuntimeError outside of the main thread, and for a handler that could not be put back.
        """
        signum = watcher.signum
        if signum not in self._watchers:
            self._catch(signum)
        self._watchers[signum].append(watcher)

    def remove(self, watcher: Signal) -> None:
        """Catch for `watcher` no longer; behind the last one everything is as it was before.

        What somebody else has put over ours meanwhile stays.  RuntimeError outside of the main
        thread, with nothing changed.
        """
        signum = watcher.signum
        watchers = self._watchers[signum]
        if len(watchers) > 1:
            watchers.remove(watcher)
            return
        if signal.getsignal(signum) == self._record:
            try:
                signal.signal(signum, self._before[signum])
            except ValueError:
                raise RuntimeError("signals can be let go in the main thread only") from None
        del self._watchers[signum], self._before[signum]
        if not self._watchers:
            self._close()

    def gather(self, mask: int, events: list[Event]) -> None:
        """Append one event, with its hits, for each watcher of each signal that was caught."""
        assert self._reader is not None
        try:
            self._reader.recv(4096)
        except BlockingIOError:
            pass
        self._count(events)

    def renew(self) -> None:
        """Part from the sockets, which a fork made common property."""
        if self._reader is None or self._writer is None:
            return
        reader, writer = self._reader, self._writer
        self._reader, self._writer = self._pair()
        # asyncio takes the wake-up away from every child of a program that has imported it.
        _replace_wakeup((writer.fileno(), _NO_WAKEUP), self._writer.fileno())
        self._reactor.poller.discard(reader.fileno())
        self._reactor.poller.watch(self._reader.fileno(), READ, self)
        reader.close()
        writer.close()
        if self._caught:
            # The byte for it went into the old pair.
            self._writer.send(b"\0")

    def watchers(self) -> list[Watcher]:
        """Return all watchers of signals that are active."""
        return [watcher for each in self._watchers.values() for watcher in each]

    def _record(self, signum: int, frame: object) -> None:
        self._caught.append((getpid(), signum))

    def _count(self, events: list[Event]) -> None:
        caught, own = self._caught, getpid()
        hits: dict[int, int] = {}
        while caught:
            pid, signum = caught.popleft()
            if pid == own:
                hits[signum] = hits.get(signum, 0) + 1
        for signum, count in hits.items():
            for watcher in self._watchers.get(signum, ()):
                events.append(Event(watcher, hits=count))

    def _catch(self, signum: int) -> None:
        before = signal.getsignal(signum)
        if before is None:
            raise RuntimeError(
                f"signal {signum} has a handler from outside of Python, "
                "which could not be put back: leave this signal to the program around"
            )
        try:
            if self._reader is None:
                self._open()
            signal.signal(signum, self._record)
        except ValueError:
            raise RuntimeError("signals can be watched in the main thread only") from None
        self._before[signum] = before
        self._watchers[signum] = []

    def _open(self) -> None:
        self._reactor._notice_fork()
        reader, writer = self._pair()
        try:
            self._outer = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        except ValueError:
            reader.close()
            writer.close()
            raise
        self._reader, self._writer = reader, writer
        self._reactor.poller.watch(reader.fileno(), READ, self)

    def _close(self) -> None:
        assert self._reader is not None and self._writer is not None
        self._reactor._notice_fork()
        _replace_wakeup((self._writer.fileno(),), self._outer)
        self._reactor.poller.discard(self._reader.fileno())
        self._reader.close()
        self._writer.close()
        self._reader = self._writer = None
        self._caught.clear()

    @staticmethod
    def _pair() -> tuple[socket, socket]:
        reader, writer = socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        return reader, writer


def _replace_wakeup(ours: tuple[int, ...], other: int) -> None:
    """Have the interpreter wake up `other` instead of one of `ours`; any third descriptor stays."""
    try:
        current = signal.set_wakeup_fd(other, warn_on_full_buffer=False)
    except (OSError, ValueError):
        # Its owner has closed it since.
        current = signal.set_wakeup_fd(_NO_WAKEUP)
    if current not in ours:
        signal.set_wakeup_fd(current, warn_on_full_buffer=False)
