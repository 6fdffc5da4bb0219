"""Lines over a connected, blocking socket."""

from __future__ import annotations

import select
import socket
import struct

_CHUNK = 64 * 1024

# Where the system cannot report that the other side has ended its stream, it reports a hang-up.
_LEFT = getattr(select, "POLLRDHUP", 0)


class CutLine(Exception):
    """The stream ended in the middle of a line; `rest` is what there was of it."""

    def __init__(self, rest: bytes) -> None:
        super().__init__(f"{len(rest)} bytes")
        self.rest = rest


class LineTooLong(Exception):
    """A line passed the limit."""


class Lines:
    """Reads lines from a socket and writes to it. One thread uses it; any thread may `abort`.

    limit: bytes that a line may have, without its LF.
    Any method may raise OSError when the connection is gone.
    """

    def __init__(self, sock: socket.socket, limit: int) -> None:
        self._sock = sock
        self._limit = limit
        self._buffer = bytearray()
        self._aborted = False

    def next(self) -> bytes | None:
        """Wait for a line; return it without its LF, or None at the end of the stream.

        Raises CutLine for a line that the end of the stream cut, LineTooLong for one without end.
        """
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > self._limit:
                raise LineTooLong
            chunk = self._sock.recv(_CHUNK)
            if not chunk:
                return self._at_end()
            self._buffer += chunk
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        if len(line) > self._limit:
            raise LineTooLong
        return line

    def _at_end(self) -> bytes | None:
        rest = bytes(self._buffer)
        self._buffer.clear()
        # A line that our own `abort` cut is not the client's doing.
        if rest and not self._aborted:
            raise CutLine(rest)
        return None

    def waiting(self) -> bool:
        """Return whether there is more from the client than `next` has returned."""
        if self._buffer:
            return True
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    def send(self, text: bytes) -> None:
        """Send all of `text`, and wait as long as that takes."""
        self._sock.sendall(text)

    def hold(self, seconds: float | None) -> None:
        """Do nothing for so long, or (None) until the client has ended its stream.

        Ends early when the connection is gone altogether. Nothing is read meanwhile.
        """
        poll = select.poll()
        poll.register(self._sock, _LEFT if seconds is None else 0)
        poll.poll(None if seconds is None else seconds * 1000)

    def reset_on_close(self) -> None:
        """Make the client see a reset, not an end of the stream, when the socket is closed."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def abort(self) -> None:
        """End the connection at once: whoever reads, writes or holds it comes back."""
        self._aborted = True
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is gone already
