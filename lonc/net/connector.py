"""TCP connections to one peer, address after address, without blocking the reactor.

An attempt goes through these steps, each from a callback of the reactor:

    begin      the addresses are known, or the name is resolved
    connect    one address after the other, the one that worked last first
    hand over  the caller has the socket, and says `accepted`, or `rejected`: connect to the next
    fail       no address is left; the name is resolved anew for the next attempt
"""

from __future__ import annotations

import errno
import os
import socket

from lonc.net.resolver import Resolver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from lonc.net.resolver import Address, Lookup
    from lonc.reactor import Event, Reactor, Watcher

    class ConnectSettings(Protocol):
        """What a connector reads of a broker's settings; both in seconds."""

        @property
        def connect_timeout(self) -> float: ...
        @property
        def reply_timeout(self) -> float: ...


KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""A silent peer is asked after 60 s, then every 15 s, and is gone after 4 questions: 120 s in all,
which is as long as lond gives a request."""

MAX_MILLISECONDS = 2**31 - 1
"""The kernel takes TCP_USER_TIMEOUT as an int."""


class Connector:
    """Connects to `port` of `address`, which is a name or a literal address.

    `settings` may be replaced; each attempt reads it. Any number of attempts may be under way;
    those that need the name resolved share one lookup.
    """

    def __init__(
        self,
        reactor: Reactor,
        address: str,
        port: int,
        settings: ConnectSettings,
        resolver: Resolver | None = None,
    ) -> None:
        self.address = address
        self.port = port
        self.settings = settings
        self._reactor = reactor
        self._resolver = resolver or Resolver(reactor)
        self._addresses: list[Address] | None = None
        self._last_good: Address | None = None
        self._lookup: Lookup | None = None
        self._waiting: list[Attempt] = []
        self._attempts: set[Attempt] = set()

    def attempt(
        self, connected: Callable[[socket.socket], None], failed: Callable[[str], None]
    ) -> Attempt:
        """Start to connect; one of the two is called back, never from inside this call.

        `connected(sock)` hands over a non-blocking TCP socket, which is the caller's from then on;
        the caller then calls `accepted`, `rejected` or `cancel` of the attempt. `failed(reason)`
        ends the attempt: every address failed. The reason is for people, and names the host, each
        address and what the system said about it.

        Each address has `connect_timeout` seconds, and so has the resolution of the name; an answer
        that comes later serves the next attempt.
        """
        attempt = Attempt(self, connected, failed)
        self._attempts.add(attempt)
        return attempt

    def close(self) -> None:
        """Cancel all attempts, and the lookup. Sockets that were handed over stay open."""
        for attempt in list(self._attempts):
            attempt.cancel()
        if self._lookup:
            self._lookup.cancel()
            self._lookup = None

    def _order(self) -> list[Address] | None:
        """Return the addresses in the order in which to try them; None if they are not known."""
        if self._addresses is None:
            return None
        return sorted(self._addresses, key=lambda address: address != self._last_good)

    def _wait_for_addresses(self, attempt: Attempt) -> None:
        self._waiting.append(attempt)
        if self._lookup is None:
            self._lookup = self._resolver.resolve(self.address, self.port, self._resolved)

    def _resolved(self, addresses: list[Address] | None, error: str | None) -> None:
        self._lookup = None
        self._addresses = addresses
        waiting, self._waiting = self._waiting, []
        for attempt in waiting:
            attempt._resolved(error)

    def _forget(self, attempt: Attempt) -> None:
        self._attempts.discard(attempt)
        if attempt in self._waiting:
            self._waiting.remove(attempt)


class Attempt:
    """One attempt to get a connection that works; made by `Connector.attempt`."""

    _address: Address
    """The address that is being tried, or was last."""

    def __init__(
        self,
        connector: Connector,
        connected: Callable[[socket.socket], None],
        failed: Callable[[str], None],
    ) -> None:
        self._connector = connector
        self._reactor = connector._reactor
        self._connected = connected
        self._failed = failed
        self._untried: list[Address] = []
        self._sock: socket.socket | None = None
        self._handed_over = False
        self._failures: list[str] = []
        self._watcher: Watcher = self._reactor.timer(self._begin, after=0)

    def accepted(self) -> None:
        """End the attempt: this peer is good, and its address is tried first from now on."""
        if self._handed_over:
            self._connector._last_good = self._address
            self._end()

    def rejected(self, reason: str) -> None:
        """Count this address as failed, because its dialogue did; `reason` is for people.

        The caller closes the socket. Goes on to the next address, so that `connected` or `failed`
        is called in a later pass of the reactor.
        """
        if self._handed_over:
            self._handed_over = False
            self._note(reason)
            self._watcher = self._reactor.timer(self._next, after=0)

    def cancel(self) -> None:
        """End the attempt, if it has not ended: nothing more is called.

        A socket that was handed over stays the caller's.
        """
        self._end()

    def _begin(self, event: object) -> None:
        addresses = self._connector._order()
        if addresses is None:
            timeout = self._connector.settings.connect_timeout
            self._watcher = self._reactor.timer(self._unresolved, after=timeout)
            self._connector._wait_for_addresses(self)
        else:
            self._untried = addresses
            self._next(event)

    def _resolved(self, error: str | None) -> None:
        """Go on in a callback of this attempt's own, so that no other suffers if that raises."""
        self._watcher.cancel()
        self._untried = self._connector._order() or []
        if error:
            self._failures.append(error)
        self._watcher = self._reactor.timer(self._next, after=0)

    def _unresolved(self, event: object) -> None:
        timeout = self._connector.settings.connect_timeout
        self._failures.append(f"the name was not resolved within {timeout:g} s")
        self._fail()

    def _next(self, event: object) -> None:
        """Connect to the next address that the system does not refuse at once; else fail."""
        while self._untried:
            self._address = self._untried.pop(0)
            try:
                self._connect(*self._address)
                return
            except OSError as error:
                self._note(error.strerror or str(error))
        self._fail()

    def _connect(self, family: int, sockaddr: tuple[object, ...]) -> None:
        """Begin to connect; OSError if the system refuses at once."""
        settings = self._connector.settings
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            _set_options(sock, settings.reply_timeout)
            error = sock.connect_ex(sockaddr)
            if error not in (0, errno.EINPROGRESS):
                raise OSError(error, os.strerror(error))
            self._watcher = self._reactor.io(
                sock.fileno(),
                "w",
                self._settled,
                timeout=settings.connect_timeout,
                desc=f"connect to {sockaddr[0]}",
            )
        except BaseException:
            sock.close()
            raise
        self._sock = sock

    def _settled(self, event: Event) -> None:
        """The connection is there, or was refused, or took too long."""
        sock = self._sock
        assert sock is not None
        if "w" in event.got:
            failure = _failure(sock)
        else:
            failure = f"no answer within {self._connector.settings.connect_timeout:g} s"
        if failure:
            self._drop()
            self._note(failure)
            self._next(event)
        else:
            self._watcher.cancel()
            self._sock = None
            self._handed_over = True
            self._connected(sock)

    def _note(self, failure: str) -> None:
        """Remember why the address that was tried last failed."""
        address = self._address[1][0]
        literal = address == self._connector.address
        self._failures.append(failure if literal else f"{address}: {failure}")

    def _fail(self) -> None:
        connector = self._connector
        self._end()
        connector._addresses = None
        reasons = "; ".join(self._failures)
        self._failed(f"no connection to {connector.address} port {connector.port}: {reasons}")

    def _end(self) -> None:
        self._handed_over = False
        self._drop()
        self._connector._forget(self)

    def _drop(self) -> None:
        """Stop what is under way. The watcher goes first: it needs the descriptor open."""
        self._watcher.cancel()
        if self._sock:
            self._sock.close()
            self._sock = None


def _set_options(sock: socket.socket, reply_timeout: float) -> None:
    """Have the kernel send at once, and notice a peer that is gone, as far as this system can."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = min(round(reply_timeout * 1000), MAX_MILLISECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def _failure(sock: socket.socket) -> str | None:
    """Return why the connection, which is settled, is of no use; None if it is good."""
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        return os.strerror(error)
    try:
        # Where nobody listens on a port of this machine, a socket that the system happens to give
        # this very port connects to itself.
        if sock.getsockname() == sock.getpeername():
            return os.strerror(errno.ECONNREFUSED)
    except OSError as gone:
        return gone.strerror
    return None
