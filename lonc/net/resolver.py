"""Names to addresses, without blocking the reactor."""

from __future__ import annotations

import contextlib
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lonc.reactor import Reactor, Watcher

    Address = tuple[int, tuple[Any, ...]]
    Answer = tuple[list[Address] | None, str | None]


class Resolver:
    """Resolves names for one reactor: each in a daemon thread, made when it is needed.

    A literal address needs no thread. A process must not fork while a lookup is under way: its
    thread would not be in the child, where the lookup then never ends.
    """

    def __init__(
        self, reactor: Reactor, getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo
    ) -> None:
        """`getaddrinfo` is called in the thread, as the standard library's."""
        self._reactor = reactor
        self._getaddrinfo = getaddrinfo

    def resolve(
        self, name: str, port: int, callback: Callable[[list[Address] | None, str | None], None]
    ) -> Lookup:
        """Look up the TCP addresses of `name`, and call back in a later pass of the reactor.

        `callback(addresses, error)` gets either a list, not empty, of (family, sockaddr) in the
        system's order of preference and None, or None and the reason. It is called once, unless
        the lookup is cancelled.
        """
        addresses = literal_addresses(name, port)
        if addresses is not None:
            return _Known(self._reactor, callback, (addresses, None))
        try:
            return _Asked(self._reactor, callback, self._getaddrinfo, name, port)
        except (OSError, RuntimeError) as error:  # no descriptor, or no thread, is left
            return _Known(self._reactor, callback, (None, _reason(error)))


class Lookup:
    """A question under way."""

    _watcher: Watcher

    def cancel(self) -> None:
        """Take the question back, if it is still under way: its callback is not called.

        A thread that is at work is not waited for; what it finds is dropped.
        """
        self._watcher.cancel()


class _Known(Lookup):
    """A question whose answer needs no thread."""

    def __init__(self, reactor: Reactor, callback: Callable[..., None], answer: Answer) -> None:
        self._watcher = reactor.timer(lambda event: callback(*answer), after=0)


class _Asked(Lookup):
    """A question that a thread asks the system.

    The thread leaves the answer in `_answer`, which it shares with nothing else, and shuts down its
    end of a socket pair, which it alone closes: the reactor sees that at the other end.
    """

    def __init__(
        self,
        reactor: Reactor,
        callback: Callable[..., None],
        getaddrinfo: Callable[..., list[Any]],
        name: str,
        port: int,
    ) -> None:
        self._callback = callback
        self._answer: list[Answer] = []
        self._bell, thread_end = socket.socketpair()
        what = f"resolve {name}"
        self._watcher = reactor.io(self._bell, "r", self._answered, desc=what, start=False)
        import threading  # most processes never need it, and each would carry it

        thread = threading.Thread(
            target=_ask,
            args=(getaddrinfo, name, port, self._answer, thread_end),
            name=what,
            daemon=True,
        )
        try:
            self._watcher.start()
            thread.start()
        except BaseException:
            self.cancel()
            thread_end.close()
            raise

    def cancel(self) -> None:
        super().cancel()
        self._bell.close()

    def _answered(self, event: object) -> None:
        self.cancel()
        self._callback(*self._answer[0])


def literal_addresses(name: str, port: int) -> list[Address] | None:
    """Return the addresses that `name` writes out, IPv4 or IPv6; None if it has to be resolved."""
    try:
        found = socket.getaddrinfo(
            name.encode("ascii"), port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except (OSError, ValueError):
        return None
    return _addresses(found)


def _ask(
    getaddrinfo: Callable[..., list[Any]],
    name: str,
    port: int,
    answer: list[Answer],
    bell: socket.socket,
) -> None:
    """Put the one answer into `answer`, whatever happens, and ring. Runs in the thread."""
    with bell:
        try:
            # As bytes: for text, even ASCII, Python loads its IDNA tables.
            host = name.encode("ascii" if name.isascii() else "idna")
            addresses = _addresses(getaddrinfo(host, port, type=socket.SOCK_STREAM))
            answer.append((addresses, None) if addresses else (None, "the name has no address"))
        except Exception as error:
            answer.append((None, _reason(error)))
        with contextlib.suppress(OSError):  # cancelled: nobody is at the other end
            bell.shutdown(socket.SHUT_RDWR)


def _addresses(found: list[Any]) -> list[Address]:
    """Return the (family, sockaddr) of what `getaddrinfo` found, each once."""
    return list(dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
