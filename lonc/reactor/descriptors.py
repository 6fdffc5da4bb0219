"""Watching descriptors; several watchers may share one."""

from __future__ import annotations

from selectors import EVENT_READ as READ
from selectors import EVENT_WRITE as WRITE

from lonc.reactor.watchers import Event, Watcher, seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from lonc.reactor.loop import Reactor
    from lonc.reactor.watchers import Callback

    class HasFileno(Protocol):
        def fileno(self) -> int: ...


_MASKS = {"r": READ, "w": WRITE, "rw": READ | WRITE, "wr": READ | WRITE}
_LETTERS = {READ: "r", WRITE: "w", READ | WRITE: "rw"}


class Io(Watcher):
    """Notices that a descriptor can be read or written; see `Reactor.io`.

    `fd` is the descriptor's number.
    """

    __slots__ = ("_last", "_mask", "_timeout", "fd")

    def __init__(
        self,
        reactor: Reactor,
        fd: int | HasFileno,
        poll: str,
        cb: Callback,
        *,
        timeout: float | None,
        repeat: bool,
        prio: int | None,
        data: Any,
        desc: str | None,
    ) -> None:
        super().__init__(reactor, cb, repeat=repeat, prio=prio, data=data, desc=desc)
        self.fd = fd if isinstance(fd, int) else fd.fileno()
        self._mask = _mask_of(poll)
        self._timeout = None if timeout is None else seconds("timeout", timeout)
        self._last = 0.0

    @property
    def poll(self) -> str:
        """What is watched for: "r", "w" or "rw"; it can be set at any time."""
        return _LETTERS[self._mask]

    @poll.setter
    def poll(self, poll: str) -> None:
        mask = _mask_of(poll)
        if mask != self._mask:
            self._mask = mask
            if self._active:
                # An event that waits may be for what is no longer asked.
                self._generation += 1
                self.reactor._descriptors.refresh(self.fd)

    @property
    def timeout(self) -> float | None:
        """Seconds without an event until the callback gets one whose `got` is "t"; None: never.

        It can be set at any time, and counts from then.
        """
        return self._timeout

    @timeout.setter
    def timeout(self, timeout: float | None) -> None:
        self._timeout = None if timeout is None else seconds("timeout", timeout)
        if self._active:
            self._set_timeout(self.reactor.now)

    def _begin(self) -> None:
        self.reactor._descriptors.add(self)
        self._set_timeout(self.reactor.now)

    def _end(self) -> None:
        self.reactor._alarms.clear(self)
        self.reactor._descriptors.remove(self)

    def _noticed(self, mask: int) -> Event:
        # The alarm stays where it is and looks at this when it rings: no heap entry an event.
        self._last = self.reactor.poller.now
        return Event(self, _LETTERS[mask])

    def _expire(self, now: float) -> Event | None:
        assert self._timeout is not None
        if self._last + self._timeout > now:
            self.reactor._alarms.set(self, self._last + self._timeout)
            return None
        self._set_timeout(now)
        return Event(self, "t")

    def _set_timeout(self, now: float) -> None:
        self._last = now
        if self._timeout is None:
            self.reactor._alarms.clear(self)
        else:
            self.reactor._alarms.set(self, now + self._timeout)


class _Descriptor:
    """One descriptor: the poller's handler, with all that its watchers ask of it."""

    __slots__ = ("mask", "watchers")

    def __init__(self) -> None:
        self.mask = 0
        self.watchers: list[Io] = []

    def gather(self, mask: int, events: list[Event]) -> None:
        """Append an event for each watcher that asks for something in `mask`."""
        if mask & ~(READ | WRITE):
            # A hang-up: whoever tries to read or write learns of it.
            mask = READ | WRITE
        for watcher in self.watchers:
            got = mask & watcher._mask
            if got:
                events.append(watcher._noticed(got))


class Descriptors:
    """All descriptors that are watched from Python; the poller knows one entry for each."""

    __slots__ = ("_by_fd", "_reactor")

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._by_fd: dict[int, _Descriptor] = {}

    def add(self, watcher: Io) -> None:
        """Watch for `watcher` too; OSError or ValueError if its descriptor cannot be watched."""
        descriptor = self._by_fd.get(watcher.fd)
        if descriptor is None:
            descriptor = _Descriptor()
            self._reactor._notice_fork()
            self._reactor.poller.watch(watcher.fd, watcher._mask, descriptor)
            descriptor.mask = watcher._mask
            self._by_fd[watcher.fd] = descriptor
        descriptor.watchers.append(watcher)
        self.refresh(watcher.fd)

    def remove(self, watcher: Io) -> None:
        """Watch for `watcher` no longer."""
        descriptor = self._by_fd[watcher.fd]
        descriptor.watchers.remove(watcher)
        if descriptor.watchers:
            self.refresh(watcher.fd)
        else:
            del self._by_fd[watcher.fd]
            self._reactor._notice_fork()
            self._reactor.poller.discard(watcher.fd)

    def refresh(self, fd: int) -> None:
        """Ask the poller for just what the watchers of `fd` ask."""
        descriptor = self._by_fd[fd]
        mask = 0
        for watcher in descriptor.watchers:
            mask |= watcher._mask
        if mask != descriptor.mask:
            self._reactor._notice_fork()
            self._reactor.poller.modify(fd, mask)
            descriptor.mask = mask

    def watchers(self) -> list[Watcher]:
        """Return all watchers of descriptors that are active."""
        return [watcher for each in self._by_fd.values() for watcher in each.watchers]


def _mask_of(poll: str) -> int:
    try:
        return _MASKS[poll]
    except (KeyError, TypeError):
        raise ValueError(f'poll is "r", "w" or "rw", not {poll!r}') from None
