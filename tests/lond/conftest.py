"""A client of the built-in peer that says exactly what a test wants, right or wrong."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from lonc.lond import Peer
from lonc.wire.cipher import Cipher, CipherUnavailable, new_cipher
from lonc.wire.dialects import DIALECTS
from lonc.wire.dialogue import Dialogue

PATIENCE = 20.0


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for has not come"
        time.sleep(0.002)


def cipher_or_skip(key: bytes) -> Cipher:
    try:
        return new_cipher(key)
    except CipherUnavailable as error:
        pytest.skip(str(error))


class Caller:
    """One connection to a peer."""

    def __init__(self, peer: Peer) -> None:
        self.socket = socket.create_connection(peer.address, timeout=PATIENCE)
        self._received = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> bytes:
        """The next line without its LF; what there was of it when the stream ends first."""
        while b"\n" not in self._received:
            chunk = self.socket.recv(65536)
            if not chunk:
                rest, self._received = self._received, b""
                return rest
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line

    def ask(self, line: bytes) -> bytes:
        self.send(line + b"\n")
        return self.read()

    def left(self) -> bytes:
        """All that comes until the peer closes."""
        data, self._received = self._received, b""
        while chunk := self.socket.recv(65536):
            data += chunk
        return data

    def greet(self, dialect: str, own_id: str = "msul2", peer_id: str = "msul1") -> Dialogue:
        """Hold the dialogue as lonc does."""
        dialogue = Dialogue(DIALECTS[dialect], own_id, peer_id)
        line = dialogue.begin()
        while not dialogue.done:
            line = dialogue.receive(self.ask(line[:-1]) + b"\n")
        return dialogue

    def close(self) -> None:
        self.socket.close()


class Bench:
    """A peer and the callers of one test."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.callers: list[Caller] = []

    def peer(self, **arguments: object) -> Peer:
        peer = Peer(**arguments)  # type: ignore[arg-type]
        self.peers.append(peer)
        peer.start()
        return peer

    def caller(self, peer: Peer, dialect: str | None = None) -> Caller:
        """A new connection; where a dialect is given, its dialogue has been held."""
        caller = Caller(peer)
        self.callers.append(caller)
        if dialect is not None:
            caller.greet(dialect)
        return caller

    def sealing(self, peer: Peer, dialect: str = "classic") -> tuple[Caller, Cipher]:
        """A new connection that is ready for requests, and the cipher of its session."""
        caller = self.caller(peer)
        key = caller.greet(dialect).key
        assert key is not None
        return caller, cipher_or_skip(key)

    def ended(self, peer: Peer) -> list[str]:
        """Close all callers, wait until the peer has noticed, return its complaints."""
        for caller in self.callers:
            caller.close()
        wait_until(lambda: peer.connections == 0)
        return [text.partition(": ")[2] for text in peer.complaints]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    for caller in bench.callers:
        caller.close()
    for peer in bench.peers:
        peer.close()
