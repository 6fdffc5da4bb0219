"""Messages between the parent and a child: plain values, whole and in order, on a socket pair.

A message is a tuple: a word, and what belongs to it.  On the socket it is its length in four
bytes and its form in `marshal`, which both ends read alike because they are one program; nothing
from outside ever comes here.
"""

from __future__ import annotations

import marshal

from lonc.reactor import PRIO_URGENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

    from lonc.reactor import Event, Reactor

_LENGTH = 4
# What may wait for the other end.  A process that lets more pile up hangs, and the watchdog sees to
# it; what it does not read is not worth the memory.
_MAX_UNSENT = 1 << 20


class Channel:
    """One end.  `received(*message)` gets each message, `closed()` is told once of the end.

    The channel owns `sock`, which it makes non-blocking.
    """

    __slots__ = ("_closed", "_incoming", "_received", "_sock", "_unsent", "_watcher")

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        received: Callable[..., object],
        closed: Callable[[], object],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._received = received
        self._closed = closed
        self._incoming = bytearray()
        self._unsent = bytearray()
        # Before the clients of a pass: one that is told to drain takes no more of them.
        self._watcher = reactor.io(sock, "r", self._ready, prio=PRIO_URGENT, desc="channel")

    def send(self, *message: Any) -> None:
        """Send a message of plain values; one that finds too many unread before it is dropped."""
        if len(self._unsent) > _MAX_UNSENT or not self._watcher.is_active:
            return
        body = marshal.dumps(message)
        self._unsent += len(body).to_bytes(_LENGTH, "big") + body
        self._flush()

    def close(self) -> None:
        """Close this end, without a word to `closed`."""
        self._watcher.cancel()
        self._sock.close()

    def _ready(self, event: Event) -> None:
        if "w" in event.got:
            self._flush()
        if "r" in event.got and self._watcher.is_active:
            self._receive()

    def _flush(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            # The other end has gone: reading will say so.
            sent = len(self._unsent)
        del self._unsent[:sent]
        self._watcher.poll = "rw" if self._unsent else "r"

    def read_rest(self) -> None:
        """Take what a process that has ended sent before its end."""
        while self._watcher.is_active and self._receive():
            pass

    def _receive(self) -> bool:
        """Take what is there; return whether there may be more."""
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            self._closed()
            return False
        self._incoming += data
        while len(self._incoming) >= _LENGTH:
            end = _LENGTH + int.from_bytes(self._incoming[:_LENGTH], "big")
            if len(self._incoming) < end:
                break
            message = marshal.loads(bytes(self._incoming[_LENGTH:end]))
            del self._incoming[:end]
            self._received(*message)
        return True
