"""Clients of a broker and the line server behind it, in one loop, on real sockets."""

from __future__ import annotations

import selectors
import socket
import time

DEADLINE = 30.0


class Load:
    """A closed loop: each client asks, takes the whole reply, and asks again.

    Every request is answered with `reply`, a line with its LF. `address` is the server's.
    """

    def __init__(self, reply: bytes = b"pong\n") -> None:
        self._reply = reply
        self._selector = selectors.DefaultSelector()
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._watch(listener, self._accept)
        self.address = listener.getsockname()
        self._received: dict[socket.socket, int] = {}  # bytes of the reply, by client
        self._unasked = 0
        self._answered = 0

    def close(self) -> None:
        """Close all sockets."""
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()

    def connect(self, path, count: int) -> list[socket.socket]:
        """Connect so many more clients to the broker's socket at `path`; return them."""
        return [self._connect(path) for _ in range(count)]

    def ask(self, clients: list[socket.socket], requests: int) -> None:
        """Have clients that `connect` returned ask, until so many requests are answered."""
        self._run(clients, requests, self._ask)

    def ask_anew(self, path, clients: int, requests: int) -> None:
        """The same with so many clients at a time, and a new connection for each request."""

        def again(client: socket.socket) -> None:
            self.drop(client)
            if self._unasked:
                self._ask(self._connect(path))

        self._run(self.connect(path, clients), requests, again)

    def _run(self, clients, requests, again) -> None:
        self._unasked, self._answered, self._again = requests, 0, again
        for client in clients:
            self._ask(client)
        deadline = time.monotonic() + DEADLINE
        while self._answered < requests:
            assert time.monotonic() < deadline, f"{self._answered} of {requests} are answered"
            for key, _ in self._selector.select(1.0):
                key.data(key.fileobj)

    def _ask(self, client: socket.socket) -> None:
        if self._unasked:
            self._unasked -= 1
            client.sendall(b"ping\n")

    def _hear(self, client: socket.socket) -> None:
        data = client.recv(1 << 20)
        begin = self._received[client]
        end = begin + len(data)
        assert data and data == self._reply[begin:end], "not the reply, byte for byte"
        self._received[client] = end % len(self._reply)
        if end == len(self._reply):
            self._answered += 1
            self._again(client)

    def _connect(self, path) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(path))
        self._received[client] = 0
        self._watch(client, self._hear)
        return client

    def drop(self, client: socket.socket) -> None:
        """Close a client's connection."""
        del self._received[client]
        self._selector.unregister(client)
        client.close()

    def _accept(self, listener: socket.socket) -> None:
        link, _ = listener.accept()
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch(link, self._serve)

    def _serve(self, link: socket.socket) -> None:
        asked = link.recv(1 << 16)
        if asked:
            assert asked == b"ping\n", "one request at a time on each connection"
            link.sendall(self._reply)
        else:
            self._selector.unregister(link)
            link.close()

    def _watch(self, sock: socket.socket, handler) -> None:
        self._selector.register(sock, selectors.EVENT_READ, handler)
