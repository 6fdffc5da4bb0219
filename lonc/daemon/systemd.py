"""What systemd and a service say to each other: sockets handed in, and notes about the state.

Both are plain: descriptors from 3 on, named in the environment, and datagrams to a Unix socket.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from lonc.reactor import Event, Reactor, Watcher

_FIRST = 3


def passed_sockets(environment: MutableMapping[str, str] | None = None) -> dict[str, socket.socket]:
    """Return the listening Unix sockets that systemd has opened, by the path they are bound to.

    They are made non-blocking and are not inherited by programs that are started; sockets of
    another kind are closed.  The variables
    are taken out of `environment` (by default the process's own), so that nobody else finds them.
    """
    if environment is None:
        environment = os.environ
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    found: dict[str, socket.socket] = {}
    if pid != str(os.getpid()) or not count.isdecimal():
        return found
    for fd in range(_FIRST, _FIRST + int(count)):
        try:
            sock = socket.socket(fileno=fd)
        except OSError:
            # Something else was passed, or nothing.
            continue
        path = _listens_at(sock)
        if path:
            sock.set_inheritable(False)
            sock.setblocking(False)
            found[path] = sock
        else:
            sock.close()
    return found


def _listens_at(sock: socket.socket) -> str:
    """Return the path of a listening Unix stream socket; nothing for any other socket."""
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM or not listens:
        return ""
    path = sock.getsockname()
    # Names outside of the file system are bytes.
    return path if isinstance(path, str) else ""


class Unclaimed:
    """Passed sockets that no host has.

    systemd holds each one too, so a client can always connect.  Those that do are turned away at
    once: they would wait for ever.
    """

    __slots__ = ("_reactor", "_sockets", "_watchers")

    def __init__(self, reactor: Reactor, sockets: dict[str, socket.socket]) -> None:
        self._reactor = reactor
        self._sockets: dict[str, socket.socket] = {}
        self._watchers: dict[str, Watcher] = {}
        for path, sock in sockets.items():
            self.give_back(path, sock)

    def claim(self, path: str) -> socket.socket | None:
        """Return the socket that is bound to a path, for a host; None if there is none."""
        sock = self._sockets.pop(path, None)
        if sock is not None:
            self._watchers.pop(path).cancel()
        return sock

    def give_back(self, path: str, sock: socket.socket) -> None:
        """Keep a socket until a host claims it."""

        def turn_away(event: Event) -> None:
            # OSError: the client has gone already.
            with contextlib.suppress(OSError):
                sock.accept()[0].close()

        self._sockets[path] = sock
        self._watchers[path] = self._reactor.io(sock, "r", turn_away, desc=f"unclaimed {path}")

    def close(self) -> None:
        """Close this process's copies, when its reactor is closed."""
        for sock in self._sockets.values():
            sock.close()


class Notifier:
    """Tells the service manager how the daemon does; silent where none asked for it."""

    __slots__ = ("_address", "watchdog")

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Take address and watchdog out of `environment`, by default the process's own.

        `watchdog` is how often, in seconds, `alive` is to be called: half of what the manager
        waits; None if it does not.
        """
        if environment is None:
            environment = os.environ
        address = environment.pop("NOTIFY_SOCKET", "")
        pid = environment.pop("WATCHDOG_PID", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        # An @ stands for the NUL byte of a name outside of the file system.
        self._address = "\0" + address[1:] if address[:1] == "@" else address
        self.watchdog: float | None = None
        if microseconds.isdecimal() and int(microseconds) and pid in ("", str(os.getpid())):
            self.watchdog = int(microseconds) / 2e6

    def ready(self, status: str) -> None:
        """The daemon serves."""
        self._send(f"READY=1\nSTATUS={status}\nMAINPID={os.getpid()}")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` ends that."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """The daemon ends."""
        self._send("STOPPING=1")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={status}")

    def alive(self) -> None:
        """Keep the manager's watchdog quiet."""
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode(), self._address)
        except OSError:
            # The manager has gone, or has no time: serving is more important.
            pass
