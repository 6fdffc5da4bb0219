"""Who is let in, how many, and what happens when the system has no descriptor left."""

from __future__ import annotations

import errno
import os
import resource
import selectors
import socket

import pytest

from lonc.broker.broker import SPARE_DESCRIPTORS
from tests.broker.conftest import descriptors
from tests.broker.world import World
from tests.reactor.conftest import in_child


def test_max_clients(world):
    peer = world.peer()
    broker = world.start(peer, max_clients=3)
    clients = [world.client() for _ in range(6)]
    world.settle()
    assert broker.stats()["clients"] == 3
    # Those outside can write, and wait; they are neither refused nor answered.
    for client in clients[3:]:
        client.send(b"out\n")
    assert [client.silent() for client in clients] == [True] * 6
    assert not any(world.reactor.run_once(0.001) for _ in range(10)), "no spinning"
    # Those inside are served.
    clients[0].send(b"in\n")
    link = peer.accept()
    assert link.line() == b"in\n"
    link.send(b"yes\n")
    assert clients[0].line() == b"yes\n"
    assert broker.stats()["clients"] == 3
    # One goes, one comes: the kernel's backlog is served in its order.
    clients[1].close()
    assert link.line() == b"out\n"
    link.send(b"now\n")
    assert clients[3].line() == b"now\n"
    assert broker.stats()["clients"] == 3
    for client in (clients[0], clients[2], clients[3]):
        client.close()
    world.until(lambda: broker.stats()["accepted"] == 6)


def test_max_clients_live(world):
    broker = world.start(world.peer(), max_clients=2)
    for _ in range(5):
        world.client()
    world.settle()
    assert broker.stats()["clients"] == 2
    broker.reconfigure(broker.settings.replace(max_clients=4))
    world.settle()
    assert broker.stats()["clients"] == 4
    broker.reconfigure(broker.settings.replace(max_clients=1))
    world.settle()
    assert broker.stats()["clients"] == 4, "clients already in are served"
    for client in world.wires[:3]:
        client.close()
        world.settle()
    assert broker.stats()["clients"] == 1
    world.wires[3].close()
    world.settle()
    assert (broker.stats()["clients"], broker.stats()["accepted"]) == (1, 5)


def test_max_clients_0_is_the_limit_of_descriptors(world):
    broker = world.start(max_connections=7)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert SPARE_DESCRIPTORS == 32
    assert world.exchange.max_clients == soft - 7 - 32
    broker.reconfigure(broker.settings.replace(max_connections=9))
    assert world.exchange.max_clients == soft - 9 - 32


def test_under_a_limit_of_descriptors_a_peer_always_finds_one(parts, directory):
    """More clients than descriptors, each with a request, and every one is served."""

    def scenario():
        world = World(parts, directory)
        # The test's own ends are in another process, which has its own limit.
        port, answering = echo_in_child()
        count = 60
        room = descriptors() + 8 + 32 + 20
        resource.setrlimit(resource.RLIMIT_NOFILE, (room, room))
        broker = world.start(port=port, max_connections=8, max_clients=0)
        assert world.exchange.max_clients == room - 40
        clients = connecting_child(world.path, count)
        done = []
        world.until(lambda: os.waitpid(clients, os.WNOHANG) != (0, 0) and done.append(1) or done)
        assert broker.stats()["replies"] == count
        assert broker.stats()["con_lost"] == 0
        assert world.log.having("accept") == []
        os.kill(answering, 9)

    in_child(scenario)


def test_no_descriptor_for_an_accept(parts, directory):
    """Accepting pauses, is tried again after a second, and who is in is served meanwhile."""

    def scenario():
        world = World(parts, directory, simulated=True)
        peer = world.peer()
        broker = world.start(peer, max_clients=1000)
        client, link = world.acquainted(peer)
        late = world.client(b"late\n")  # connected; not accepted yet
        kept = []
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 20, limit))
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                kept.append(socket.socket())
        world.settle()
        assert broker.stats()["clients"] == 1
        assert not any(world.reactor.run_once(0.001) for _ in range(10)), "no spinning"
        [(severity, text)] = world.log.having("accepted")
        assert severity == "WARNING" and os.strerror(errno.EMFILE) in text
        client.send(b"ping\n")
        assert link.line() == b"ping\n"
        link.send(b"pong\n")
        assert client.line() == b"pong\n"
        for sock in kept:
            sock.close()
        assert late.silent(), "it is not tried again before a second has passed"
        world.pass_time(0.9)
        assert late.silent()
        world.pass_time(0.2)
        assert link.line() == b"late\n"
        link.send(b"at last\n")
        assert late.line() == b"at last\n"
        assert len(world.log.having("accepted")) == 1

    in_child(scenario)


def test_no_descriptor_for_a_connection(parts, directory):
    """Then its requests get con_lost, as for any attempt that fails."""

    def scenario():
        world = World(parts, directory)
        world.start(world.peer())
        client = world.client()
        world.settle()
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 20, limit))
        kept = []
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                kept.append(socket.socket())
        client.send(b"ping\n")
        assert client.line() == b"con_lost\n"
        assert os.strerror(errno.EMFILE) in world.log.having("cannot be reached")[0][1]

    in_child(scenario)


@pytest.mark.parametrize("what", ["user", "group"])
def test_who_is_allowed(world, what):
    peer = world.peer()
    mine = {f"allow_{what}s": [os.getuid() if what == "user" else os.getgid()]}
    world.start(peer, **mine)
    client = world.client(b"ping\n")
    assert peer.accept().line() == b"ping\n"
    assert client.silent()
    assert not world.log.having("turned away")


@pytest.mark.parametrize("setting", ["allow_users", "allow_groups"])
def test_who_is_not_allowed(timed, setting):
    world = timed
    peer = world.peer()
    number = os.getuid() if setting == "allow_users" else os.getgid()
    broker = world.start(peer, **{setting: [number + 1]})
    clients = [world.client(b"secret\n") for _ in range(3)]
    for client in clients:
        with pytest.raises(ConnectionResetError):
            assert client.rest() == b""
    world.settle()
    assert peer.take() is None
    assert broker.stats()["accepted"] == 0
    [(severity, text)] = world.log.having("turned away")
    assert severity == "WARNING"
    assert f"uid {os.getuid()} and gid {os.getgid()}" in text and "secret" not in text
    # Live: from now on everybody may.
    broker.reconfigure(broker.settings.replace(**{setting: []}))
    world.client(b"ping\n")
    assert peer.accept().line() == b"ping\n"


def test_credentials_are_asked_for_only_where_they_matter(world):
    broker = world.start()
    assert world.exchange.admits is None
    broker.reconfigure(broker.settings.replace(allow_groups=[1]))
    assert world.exchange.admits is not None
    broker.reconfigure(broker.settings.replace(allow_groups=[]))
    assert world.exchange.admits is None


def echo_in_child():
    """A server that answers each line with itself, in a process of its own: (port, its pid)."""
    server = socket.create_server(("127.0.0.1", 0))
    pid = os.fork()
    if pid == 0:
        import selectors

        selector = selectors.DefaultSelector()
        selector.register(server, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is server:
                    selector.register(server.accept()[0], selectors.EVENT_READ)
                elif data := key.fileobj.recv(100):
                    key.fileobj.sendall(data)
                else:
                    selector.unregister(key.fileobj)
    port = server.getsockname()[1]
    server.close()
    return port, pid


def connecting_child(path, count):
    """Clients in a process of its own: all connect, then each sends, reads its reply, and goes."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            clients = [socket.socket(socket.AF_UNIX) for _ in range(count)]
            for i, client in enumerate(clients):
                client.connect(path)
                client.sendall(b"%d\n" % i)
            for i, client in enumerate(clients):
                assert client.recv(100) == b"%d\n" % i
                client.close()
            status = 0
        finally:
            os._exit(status)
    return pid


class NoRoom:
    """Has the selector of a world refuse the next descriptors, as a kernel without memory does."""

    def __init__(self, world, monkeypatch, mask):
        self.refusals = 0
        self.mask = mask
        self._register = world._selector.register
        monkeypatch.setattr(world._selector, "register", self.register)

    def register(self, fd, mask, data=None):
        if self.refusals and mask == self.mask:
            self.refusals -= 1
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return self._register(fd, mask, data)


def test_no_memory_to_watch_a_connection(timed, monkeypatch):
    """The attempt has failed, as any other: it is not counted for ever."""
    world = timed
    peer = world.peer()
    broker = world.start(peer)
    client = world.client()
    world.settle()
    NoRoom(world, monkeypatch, selectors.EVENT_READ).refusals = 1
    client.send(b"ping\n")
    assert client.line() == b"con_lost\n"
    assert os.strerror(errno.ENOMEM) in world.log.having("cannot be reached")[0][1]
    assert broker.stats()["attempts"] == 0
    peer.accept()
    world.pass_time(1)
    client.send(b"ping\n")
    link = peer.accept()
    assert link.line() == b"ping\n"
    link.send(b"pong\n")
    assert client.line() == b"pong\n"


def test_no_memory_to_watch_a_client(timed, monkeypatch):
    """Accepting pauses as it does without descriptors."""
    world = timed
    world.start(world.peer())
    NoRoom(world, monkeypatch, selectors.EVENT_READ).refusals = 1
    client = world.client()
    world.settle()
    assert client.rest() == b""
    assert world.log.only(os.strerror(errno.ENOMEM)) == "WARNING"
    waiting = world.client()
    world.settle()
    assert world.broker.stats()["clients"] == 0
    world.pass_time(1.1)
    assert world.broker.stats()["clients"] == 1
    assert waiting.silent()


def test_a_failure_to_tell_who_may_connect(world):
    """Whoever it was about is turned away, and nothing of it is left."""
    world.start(world.peer())

    def admits(uid, gid):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    world.exchange.admits = admits
    client = world.client()
    assert client.rest() == b""
    assert world.log.only(os.strerror(errno.ENOSPC)) == "WARNING"
