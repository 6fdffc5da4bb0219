"""The broker of bench/c/broker.c on asyncio's protocols: ``asyncio_broker.py SOCKET PORT``.

One line from a client, one line back from the service; at most ten connections to it, opened for
work only, one request at a time on each, the last one used first, and one queue.
"""

from __future__ import annotations

import asyncio
import collections
import resource
import sys

MAX_LINKS = 10
MAX_DIALLING = 3
MAX_EARLY = 64 << 10

# Everybody receives into this one: what is in it is taken out before anyone else runs.
RECEIVED = memoryview(bytearray(256 << 10))


class Broker:
    def __init__(self, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self.loop = loop
        self.port = port
        self.idle: list[Link] = []
        self.queue: collections.deque[tuple[Client, bytes]] = collections.deque()
        self.links = 0
        self.dialling = 0
        self.dials: set[asyncio.Task[None]] = set()

    def submit(self, client: Client, line: bytes) -> None:
        if self.idle:
            self.idle.pop().send(client, line)
        else:
            self.queue.append((client, line))
            self.dial_for_work()

    def dial_for_work(self) -> None:
        while (
            self.links < MAX_LINKS
            and self.dialling < MAX_DIALLING
            and self.dialling < len(self.queue)
        ):
            self.links += 1
            self.dialling += 1
            task = self.loop.create_task(self.dial())
            self.dials.add(task)
            task.add_done_callback(self.dials.discard)

    async def dial(self) -> None:
        try:
            await self.loop.create_connection(lambda: Link(self), "127.0.0.1", self.port)
        except OSError:
            self.dialling -= 1
            self.lost_link()

    def ready(self, link: Link) -> None:
        self.dialling -= 1
        self.release(link)
        self.dial_for_work()

    def release(self, link: Link) -> None:
        if self.queue:
            link.send(*self.queue.popleft())
        else:
            self.idle.append(link)

    def lost_link(self) -> None:
        self.links -= 1
        while self.queue and not self.links:
            client, _ = self.queue.popleft()
            client.reply(b"con_lost\n")


class Client(asyncio.BufferedProtocol):
    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.kept = b""
        self.waiting = False
        self.finished = False
        self.paused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return RECEIVED

    def buffer_updated(self, size: int) -> None:
        data = bytes(RECEIVED[:size])
        self.kept = self.kept + data if self.kept else data
        if not self.waiting:
            self.next_line()
        elif len(self.kept) > MAX_EARLY and not self.paused:
            self.paused = True
            self.transport.pause_reading()

    def next_line(self) -> None:
        end = self.kept.find(b"\n") + 1
        if end:
            line, self.kept = self.kept[:end], self.kept[end:]
            self.waiting = True
            self.broker.submit(self, line)

    def reply(self, line: bytes | bytearray) -> None:
        self.waiting = False
        if self.transport.is_closing():
            return
        self.transport.write(line)
        if self.finished:
            self.transport.close()
            return
        if self.paused:
            self.paused = False
            self.transport.resume_reading()
        if self.kept:
            self.next_line()

    def eof_received(self) -> bool:
        self.finished = True
        return self.waiting


class Link(asyncio.BufferedProtocol):
    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.client: Client | None = None
        self.kept = bytearray()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.broker.ready(self)

    def send(self, client: Client, line: bytes) -> None:
        self.client = client
        self.transport.write(line)

    def get_buffer(self, sizehint: int) -> memoryview:
        return RECEIVED

    def buffer_updated(self, size: int) -> None:
        data = bytes(RECEIVED[:size])
        end = data.find(b"\n") + 1
        client = self.client
        if client is None or (end and end != len(data)):
            self.transport.abort()
            return
        if not end:
            self.kept += data
            return
        reply: bytes | bytearray = data
        if self.kept:
            self.kept += data
            reply, self.kept = self.kept, bytearray()
        self.client = None
        client.reply(reply)
        self.broker.release(self)

    def connection_lost(self, reason: Exception | None) -> None:
        if self.client is not None:
            self.client.reply(b"con_lost\n")
        elif self in self.broker.idle:
            self.broker.idle.remove(self)
        self.broker.lost_link()


async def serve(path: str, port: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loop = asyncio.get_running_loop()
    broker = Broker(loop, port)
    server = await loop.create_unix_server(lambda: Client(broker), path, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
