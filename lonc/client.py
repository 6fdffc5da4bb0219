"""A blocking client of lonc's Unix sockets, for programs that have a request to send."""

from __future__ import annotations

import os
import select
import socket
import struct
import time

from lonc.delayed import Directory, PermanentLog
from lonc.delayed.permanent_log import DELAYED, FAILED
from lonc.errors import LoncError, UsageError
from lonc.wire.dialects import DIALECTS
from lonc.wire.requests import command_word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_CHUNK = 64 * 1024


class ClientError(LoncError):
    """A request got no reply.

    `may_have_been_executed` is False only where no whole request line left this process, so that
    it is certain that nobody executed it; then sending it again is safe.
    """

    def __init__(self, text: str, *, may_have_been_executed: bool) -> None:
        super().__init__(text)
        self.may_have_been_executed = may_have_been_executed


class ConnectFailed(ClientError):
    """Nobody listens on the socket, or this process may not use it."""


class ConnectionLost(ClientError):
    """lonc answered `con_lost`, or its connection ended before the reply was whole."""


class RequestTimeout(ClientError):
    """The reply did not come within the client's timeout."""


class Client:
    """Sends requests to one host, one at a time, over one kept connection.

    `path` is the host's Unix socket. `timeout` is the number of seconds that one request may take
    altogether, connecting included; None waits as long as lonc does, which always answers in the
    end or closes.

    The connection is opened by the first request, and opened again by the next request after any
    error; a kept connection that lonc has closed meanwhile is noticed before anything is sent on
    it. Use it in one thread at a time. It is a context manager that closes at the end.
    """

    def __init__(self, path: str | os.PathLike[str], timeout: float | None = None) -> None:
        if timeout is not None and timeout <= 0:
            raise ValueError("timeout must be a number of seconds above 0, or None")
        self.path = os.fspath(path)
        self.timeout = timeout
        self.why_failed: Exception | None = None
        self._socket: socket.socket | None = None
        self._pid = 0  # of the process that made the connection

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, if there is one. The next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def request(self, line: bytes) -> bytes:
        """Send one request and return its reply, both without their line feed.

        Raises ValueError when `line` holds a line feed; ConnectFailed, ConnectionLost (also for the
        reply `con_lost`) or RequestTimeout when there is no reply. After any of these three the
        connection is closed.
        """
        if b"\n" in line:
            raise ValueError("a request is one line: it cannot hold a line feed")
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        whole = False
        try:
            connection = self._connected(deadline)
            _send(connection, line + b"\n", deadline)
            whole = True
            reply = self._receive(connection, deadline)
        except TimeoutError as error:
            self.close()
            raise RequestTimeout(
                f"{self.path}: no reply within {self.timeout:g} s", may_have_been_executed=whole
            ) from error
        except OSError as error:
            self.close()
            raise ConnectionLost(
                f"{self.path}: the connection was lost: {error.strerror or error}",
                may_have_been_executed=whole,
            ) from error
        except BaseException:
            # Interrupted between a request and its reply: the next reply would be this one's.
            self.close()
            raise
        if reply == b"con_lost":
            self.close()
            raise ConnectionLost(
                f"{self.path}: lonc could not get a reply (con_lost)", may_have_been_executed=True
            )
        return reply

    def critical(
        self,
        command: bytes,
        permanent_log: str | os.PathLike[str],
        *,
        host: str | None = None,
        directory: str | os.PathLike[str] | None = None,
        dialect: str = "versioned",
    ) -> bytes:
        """Send a command that must get there: now, or, where there is no reply, later.

        command        the request, without line feed
        permanent_log  the file that the daemon records delayed commands in (`perm_log`)
        host           the id of the peer; None takes the name of the socket, which is the id
                       unless sockets are named by host name
        directory      the delayed directory (`delayed_dir`); None takes `delayed` beside the socket
        dialect        the host's dialect

        Returns the reply; or `con_delayed`, when the command is safe on the disk and the daemon
        will send it until it is answered; or `con_failed`, when it could not be written there
        either, and `why_failed` says why. The permanent log then has a record of it, if it can be
        written. A command that may have been executed already is delayed too: it is executed at
        least once. Raises ValueError for an empty command or a line feed in it.

        The daemon must be able to read and remove the file: run this as the user that it runs as.
        """
        if not command:
            raise ValueError("an empty line is no command")
        try:
            return self.request(command)
        except ClientError:
            pass
        socket_dir, name = os.path.split(self.path)
        host = host or name
        word = command_word(command, DIALECTS[dialect])
        store = Directory(os.fspath(directory or os.path.join(socket_dir, "delayed")))
        self.why_failed = None
        try:
            store.check()
            store.add(command, host, word if word.isidentifier() else "command")
        except (OSError, UsageError) as error:
            self.why_failed = error
        log = PermanentLog(os.fspath(permanent_log))
        try:
            log.record(FAILED if self.why_failed else DELAYED, host, command)
        except OSError:
            pass  # the command's fate does not hang on its record
        return b"con_failed" if self.why_failed else b"con_delayed"

    def _connected(self, deadline: float | None) -> socket.socket:
        """The kept connection, or a new one. Raises ConnectFailed or TimeoutError."""
        if self._socket is not None:
            # A process that was forked has a copy only: replies to both would get mixed up. And
            # between requests there is nothing to read but the end of the stream.
            if self._pid == os.getpid() and not _readable(self._socket):
                return self._socket
            self.close()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(None)
        self._pid = os.getpid()
        try:
            if deadline is not None:
                # A connect waits for room in the listener's backlog. A socket in Python's timeout
                # mode would not wait at all there; the kernel's own send timeout does.
                self._socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(_remaining(deadline))
                )
            self._socket.connect(self.path)
        except (BlockingIOError, TimeoutError) as error:
            raise TimeoutError from error
        except OSError as error:
            self.close()
            raise ConnectFailed(
                f"{self.path}: cannot connect: {error.strerror or error}; "
                "is the daemon running, and does it serve this host?",
                may_have_been_executed=False,
            ) from error
        return self._socket

    def _receive(self, connection: socket.socket, deadline: float | None) -> bytes:
        """One line without its line feed. Raises OSError when the stream ends before it."""
        received = bytearray()
        end = -1
        while end < 0:
            connection.settimeout(_remaining(deadline))
            data = connection.recv(_CHUNK)
            if not data:
                raise ConnectionResetError("lonc closed it before the reply was whole")
            end = data.find(b"\n")
            received += data
            if end >= 0:
                end += len(received) - len(data)
        if end != len(received) - 1:
            # Out of step: what follows the reply belongs to nobody.
            self.close()
        return bytes(received[:end])


def _send(connection: socket.socket, data: bytes, deadline: float | None) -> None:
    connection.settimeout(_remaining(deadline))
    connection.sendall(data)


def _remaining(deadline: float | None) -> float | None:
    """Seconds until `deadline` (monotonic), None for no limit. Raises TimeoutError when passed."""
    if deadline is None:
        return None
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining


def _timeval(seconds: float | None) -> bytes:
    whole = int(seconds or 0)
    return struct.pack("ll", whole, max(1, int(((seconds or 0) - whole) * 1e6)))


def _readable(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
