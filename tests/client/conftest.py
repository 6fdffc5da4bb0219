"""A daemon's socket, played by the test."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


class Daemon:
    """Listens on a host's socket; each accepted connection is handed to a function of the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.received: list[bytes] = []
        self.accepted = 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(8)
        self._threads: list[threading.Thread] = []

    def serve(self, *connections: Callable[[socket.socket], None]) -> None:
        """Handle one connection after another, each with the next function."""
        thread = threading.Thread(target=self._serve, args=(connections,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, connections: tuple[Callable[[socket.socket], None], ...]) -> None:
        for handle in connections:
            connection = self.listener.accept()[0]
            self.accepted += 1
            # A client may be gone before its reply is written.
            with connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                handle(connection)

    def line(self, connection: socket.socket) -> bytes:
        """Read one request; what came before the end of the stream, when it ends first."""
        data = b""
        while not data.endswith(b"\n"):
            chunk = connection.recv(65536)
            if not chunk:
                break
            data += chunk
        self.received.append(data)
        return data

    def answers(self, *replies: bytes) -> Callable[[socket.socket], None]:
        """A connection on which each request gets the next of these, as it stands."""

        def handle(connection: socket.socket) -> None:
            for reply in replies:
                self.line(connection)
                connection.sendall(reply)

        return handle

    def finish(self) -> None:
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "the test's daemon still waits for something"

    def close(self) -> None:
        self.listener.close()


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short path: a socket's path has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="lonc"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def daemon(directory: Path) -> Iterator[Daemon]:
    daemon = Daemon(directory / "msul1")
    yield daemon
    daemon.finish()
    daemon.close()
