"""How much memory a host may take, and that large replies cost what they must and no more."""

from __future__ import annotations

import pytest

from tests.broker.world import World
from tests.reactor.conftest import in_child

MIB = 1 << 20


@pytest.mark.parametrize("size", [64 << 10, 32 * MIB])
def test_a_large_reply_to_a_client_that_reads_slowly(world, size):
    peer = world.peer()
    world.start(peer, max_connections=1)
    client, link = world.acquainted(peer)
    client.send(b"ping\n")
    assert link.line() == b"ping\n"
    reply = bytes(range(11, 139)) * (size // 128 - 1) + b"\n"
    link.post(reply)
    world.until(lambda: link.pump() or not link.unsent)
    received = bytearray()
    while len(received) < len(reply):
        received += client.bytes(min(size // 16, len(reply) - len(received)))
        assert world.exchange.held <= len(reply)
    assert bytes(received) == reply
    assert world.exchange.held == 0
    client.send(b"again\n")
    assert link.line() == b"again\n"


def test_a_client_that_never_reads_keeps_nobody_waiting(world):
    peer = world.peer()
    world.start(peer, max_connections=1)
    client, link = world.acquainted(peer)
    reply = b"x" * (2 * MIB) + b"\n"
    client.send(b"ping\n" * 10)
    assert link.line() == b"ping\n"
    link.send(reply)
    world.settle()
    # It gets no second request served before it has taken its reply, so it cannot pile them up.
    assert link.silent()
    held = world.exchange.held
    assert held <= len(reply) + 50
    for i in range(20):
        other = world.client(b"%d\n" % i)
        assert link.line() == b"%d\n" % i
        link.send(b"ok %d\n" % i)
        assert other.line() == b"ok %d\n" % i
    assert world.exchange.held == held


@pytest.mark.parametrize("ends", [True, False])
def test_max_reply(world, ends):
    peer = world.peer()
    world.start(peer, max_connections=1, max_reply=100_000)
    client, link = world.acquainted(peer)
    client.send(b"ping\n")
    assert link.line() == b"ping\n"
    link.send(b"r" * 100_000 + b"\n")
    assert client.line() == b"r" * 100_000 + b"\n"
    client.send(b"secret\n")
    assert link.line() == b"secret\n"
    link.send(b"r" * (100_002 - ends) + b"\n" * ends)
    assert client.line() == b"con_lost\n"
    world.until(lambda: not world.exchange.links)
    [(severity, text)] = world.log.having("longer than max_reply:")
    assert severity == "WARNING" and "100001" in text or "100002" in text
    assert not world.log.having("secret:")
    # The client goes on.
    client.send(b"again\n")
    assert peer.accept().line() == b"again\n"


def test_max_buffered_by_a_reply(world):
    peer = world.peer()
    world.start(peer, max_buffered=1_000_000, max_connections=2)
    client, link = world.acquainted(peer)
    other = world.client(b"me too\n")
    assert link.line() == b"me too\n"
    client.send(b"ping\n")
    second = peer.accept()
    assert second.line() == b"ping\n"
    second.send(b"r" * 999_000)
    world.settle()
    assert client.silent()
    second.post(b"r" * 5_000)
    second.pump()
    assert client.line() == b"con_lost\n"
    assert world.log.only("would have crossed it") == "WARNING"
    assert world.exchange.held <= 20
    # Only the one that would have crossed it fails.
    link.send(b"fine\n")
    assert other.line() == b"fine\n"


def test_max_buffered_by_requests(world):
    peer = world.peer()
    world.start(peer, max_buffered=1_000_000, max_connections=1)
    client, link = world.acquainted(peer)
    client.send(b"ping\n")
    assert link.line() == b"ping\n"
    waiting = world.client(b"x" * 900_000 + b"\n")
    world.settle()
    assert waiting.silent()
    greedy = world.client(b"y" * 200_000)
    world.settle()
    assert greedy.bytes(9) == b"con_lost\n"
    assert world.exchange.held <= 1_000_000
    assert world.log.having("max_buffered is used up")[0][0] == "WARNING"
    small = world.client(b"small\n")
    world.settle()
    assert small.silent()
    link.send(b"pong\n")
    assert client.line() == b"pong\n"
    assert link.bytes(900_001) == b"x" * 900_000 + b"\n"
    link.send(b"x\n")
    assert waiting.line() == b"x\n"
    assert link.line() == b"small\n"


def test_max_buffered_by_a_whole_request(world):
    """The line itself fitted into one read; its end closes."""
    peer = world.peer()
    world.start(peer, max_buffered=1000)
    client = world.client(b"x" * 2000 + b"\n")
    assert client.bytes(9) == b"con_lost\n"
    world.settle()
    assert world.broker.stats()["clients"] == 0
    assert peer.take() is None
    assert world.log.only("would have crossed it") == "WARNING"


def test_max_buffered_by_replies_that_nobody_reads(world):
    peer = world.peer()
    world.start(peer, max_buffered=8 * MIB, max_connections=1)
    reply = b"x" * (3 * MIB) + b"\n"
    clients = []
    for _ in range(5):
        client = world.client(b"ping\n")
        clients.append(client)
        link = next((wire for wire in peer.wires if wire.sock.fileno() >= 0), None)
        link = link or peer.accept()
        assert link.line() == b"ping\n"
        link.post(reply)
        deliver(world, link, lambda: world.exchange.replies + world.exchange.con_lost)
        assert world.exchange.held <= 8 * MIB
        if world.broker.stats()["con_lost"]:
            break
    assert world.broker.stats()["con_lost"] == 1
    assert len(clients) in (3, 4)
    assert clients[0].bytes(len(reply)) == reply
    assert clients[-1].line() == b"con_lost\n"


@pytest.mark.parametrize("reader", ["slow client", "gone client", "in process"])
def test_what_large_replies_leave_behind(parts, directory, reader):
    """Ten connections that have each brought 16 MiB keep next to nothing of that."""

    def scenario():
        world = World(parts, directory)
        peer = world.peer()
        broker = world.start(peer, max_connections=10, max_dialling=10)
        ended = []
        if reader == "in process":
            for _ in range(10):
                broker.submit(b"ping", lambda transaction: ended.append(len(transaction.reply)))
        else:
            clients = [world.client(b"ping\n") for _ in range(10)]
        links = [peer.accept() for _ in range(10)]
        before = resident()
        reply = b"x" * (16 * MIB) + b"\n"
        base = resident() - before
        for link in links:
            assert link.line() == b"ping\n"
        if reader == "gone client":
            for client in clients:
                client.close()
        for i, link in enumerate(links):
            link.post(reply)
            deliver(world, link, lambda: broker.exchange.replies)
            if reader == "slow client":
                for _ in range(16):
                    clients[i].bytes(MIB)
                assert clients[i].line() == b"\n"
        if reader == "in process":
            assert ended == [16 * MIB] * 10
        assert broker.stats()["idle"] == 10
        assert broker.exchange.held == 0
        left = resident() - before - base
        assert left < 40 * MIB, f"{left >> 20} MiB"

    in_child(scenario)


def test_resident_memory_stays_within_the_limit(parts, directory):
    """Thirty replies of 8 MiB for clients that do not read: some are kept, the rest refused."""

    def scenario():
        world = World(parts, directory)
        peer = world.peer()
        broker = world.start(peer, max_connections=3, max_buffered=32 * MIB, connection_retries=99)
        reply = b"x" * (8 * MIB) + b"\n"
        client, link = world.acquainted(peer)
        before = peak()
        links = {link}
        for _ in range(30):
            world.client(b"ping\n")
        world.until(lambda: broker.exchange.requests == 31)

        def serve():
            while (wire := peer.take()) is not None:
                links.add(wire)
            for wire in list(links):
                try:
                    if wire._receive() == "end":
                        raise ConnectionResetError
                    if wire.kept:
                        wire.kept = b""
                        wire.post(reply)
                    wire.pump()
                except OSError:
                    wire.close()
                    links.discard(wire)
            assert broker.exchange.held <= 32 * MIB
            return not broker.exchange.outstanding

        world.until(serve)
        assert broker.exchange.con_lost > 20
        # The limit, what was being received when it was crossed, and some for the allocator.
        grown = peak() - before
        assert grown < 32 * MIB + 3 * 2 * 8 * MIB + 16 * MIB, f"{grown >> 20} MiB"

    in_child(scenario)


def deliver(world, link, count):
    """Send what was posted on a link, until the count of ended requests has gone up."""
    before = count()
    world.until(lambda: link.pump() or count() > before)
    world.settle()


def resident():
    return status("VmRSS")


def peak():
    return status("VmHWM")


def status(name):
    with open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith(name + ":"):
                return int(line.split()[1]) << 10
    raise AssertionError(name)
