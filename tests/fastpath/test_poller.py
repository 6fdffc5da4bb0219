"""`Poller` of both parts: what it waits for, in what order it serves, what it must not mix up."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket

import pytest

from tests.reactor.conftest import in_child, readable


@pytest.fixture(params=["own", "given"])
def poller(parts, request):
    """One on an object of its own, and one on a selector that it is given."""
    selector = None if request.param == "own" else selectors.DefaultSelector()
    poller = parts.Poller(selector)
    yield poller
    poller.close()
    if selector is not None:
        assert not selector.get_map()
        selector.close()


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    yield left, right
    left.close()
    right.close()


def masks(found):
    return sorted(found)


def test_masks(parts):
    assert (parts.READ, parts.WRITE) == (selectors.EVENT_READ, selectors.EVENT_WRITE)
    assert parts.HANGUP not in (0, 1, 2, 3)


def test_watch_modify_discard(poller, pair):
    left, right = pair
    fd = left.fileno()
    poller.watch(fd, 1, "left")
    assert poller.wait(0) == []
    right.send(b"x")
    assert poller.wait(0) == [("left", 1)]
    assert poller.wait(0) == [("left", 1)], "as long as it is ready"
    poller.modify(fd, 3)
    assert poller.wait(0) == [("left", 3)]
    poller.modify(fd, 2)
    assert poller.wait(0) == [("left", 2)]
    poller.modify(fd, 0)
    assert poller.wait(0) == []
    poller.modify(fd, 0)
    poller.modify(fd, 1)
    assert poller.wait(0) == [("left", 1)]
    poller.discard(fd)
    assert poller.wait(0) == []
    poller.watch(fd, 1, "again")
    assert poller.wait(0) == [("again", 1)]


def test_a_mask_of_0_from_the_beginning(poller, pair):
    left, right = pair
    poller.watch(left.fileno(), 0, "left")
    right.send(b"x")
    assert poller.wait(0) == []
    right.close()
    assert poller.wait(0) == [], "a watcher is silent, whatever happens"
    poller.modify(left.fileno(), 1)
    assert poller.wait(0) == [("left", 1)]


@pytest.mark.parametrize("mask", [1, 2, 3])
def test_a_hang_up_is_all_that_was_asked_for(poller, pair, mask):
    left, right = pair
    poller.watch(left.fileno(), mask, "left")
    right.close()
    assert poller.wait(1) == [("left", mask)]


def test_what_is_not_watched(poller, pair):
    left, _ = pair
    fd = left.fileno()
    for call in (lambda: poller.modify(fd, 1), lambda: poller.discard(fd)):
        with pytest.raises(KeyError):
            call()
    for fd_too in (-1, 10_000):
        with pytest.raises(KeyError):
            poller.discard(fd_too)
    poller.watch(fd, 1, "left")
    with pytest.raises(KeyError):
        poller.watch(fd, 1, "again")
    poller.discard(fd)
    with pytest.raises(KeyError):
        poller.discard(fd)


def test_a_descriptor_that_cannot_be_watched(poller):
    with open(os.devnull, "rb") as other:
        fd = os.dup(other.fileno())
    os.close(fd)
    with pytest.raises(OSError):
        poller.watch(fd, 1, "closed")
    # It does not count as watched.
    with pytest.raises(KeyError):
        poller.discard(fd)


def test_many_descriptors(poller):
    pairs = [socket.socketpair() for _ in range(150)]
    for i, (left, _) in enumerate(pairs):
        poller.watch(left.fileno(), 1, i)
    for _, right in pairs[::3]:
        right.send(b"x")
    assert masks(poller.wait(0)) == [(i, 1) for i in range(0, 150, 3)]
    for left, right in pairs:
        poller.discard(left.fileno())
        left.close(), right.close()
    assert poller.wait(0) == []


def test_a_descriptor_that_was_given_out_again(poller, pair):
    """What was known of the one that had the number before does not reach the next."""
    left, right = pair
    fd = os.dup(left.fileno())
    poller.watch(fd, 1, "first")
    right.send(b"x")
    assert poller.wait(0) == [("first", 1)]
    reader, writer = os.pipe()
    poller.discard(fd)
    os.close(fd)
    os.dup2(reader, fd)
    poller.watch(fd, 1, "second")
    # `left` still has the bytes, and the kernel's object might still know of `first`.
    assert poller.wait(0) == []
    os.write(writer, b"y")
    assert poller.wait(0) == [("second", 1)]
    poller.discard(fd)
    for each in (fd, reader, writer):
        os.close(each)


def test_the_clock(parts):
    times = iter([10.0, 11.0, 12.0])
    poller = parts.Poller(None, lambda: next(times))
    assert poller.now == 10.0
    assert poller.wait(0) == []
    assert poller.now == 11.0
    assert poller.update() == 12.0 == poller.now
    poller.close()


def test_a_wait_is_not_over_before_its_time(parts):
    poller = parts.Poller()
    before = poller.update()
    poller.wait(0.0101)
    assert poller.now - before >= 0.0101
    poller.close()


def test_a_wait_without_end_ends_with_what_comes(poller, pair):
    left, right = pair
    poller.watch(left.fileno(), 1, "left")
    right.send(b"x")
    assert poller.wait(None) == [("left", 1)]
    poller.discard(left.fileno())


def test_fileno(parts, pair):
    left, right = pair
    poller = parts.Poller()
    poller.watch(left.fileno(), 1, "left")
    assert not readable(poller.fileno())
    right.send(b"x")
    assert readable(poller.fileno())
    poller.close()


def test_no_fileno(parts):
    selector = selectors.SelectSelector()
    poller = parts.Poller(selector)
    with pytest.raises(ValueError, match="SelectSelector"):
        poller.fileno()
    poller.close()


def test_a_selector_that_is_given_stays_open(parts, pair):
    selector = selectors.DefaultSelector()
    poller = parts.Poller(selector)
    poller.watch(pair[0].fileno(), 1, "left")
    poller.close()
    assert not selector.get_map()
    selector.register(pair[0], 2)
    assert selector.select(0)
    selector.close()


def test_after_a_fork(parts, pair):
    left, right = pair
    poller = parts.Poller()
    poller.watch(left.fileno(), 1, "left")
    silent, other = socket.socketpair()
    poller.watch(silent.fileno(), 0, "silent")

    def child():
        poller.renew()
        assert poller.wait(0) == []
        right.send(b"x")
        assert poller.wait(0) == [("left", 1)]
        poller.modify(silent.fileno(), 2)
        assert masks(poller.wait(0)) == [("left", 1), ("silent", 2)]
        poller.discard(left.fileno())
        poller.discard(silent.fileno())
        left.recv(1)

    in_child(child)
    # What the child took out of its own object is still in the parent's.
    assert poller.wait(0) == []
    right.send(b"x")
    assert poller.wait(0) == [("left", 1)]
    poller.close()
    silent.close(), other.close()


# Handlers of its own


class Policy:
    """Notes in which order the exchange asks."""

    def __init__(self, log):
        self.log = log
        self.fail = set()

    def heard(self, link, line):
        self.note("peer", line)

    def special(self, transaction):
        self.note("client", transaction.line)
        transaction.client.last = True

    def lost(self, link, reason, state, transaction):
        self.log.append(("lost", reason))

    def trouble(self, kind, number):
        self.log.append((kind, number))

    def note(self, who, line):
        self.log.append((who, line))
        if line in self.fail:
            raise ZeroDivisionError(line)


class Passive:
    """An exchange between ports that the test holds."""

    def __init__(self, parts, poller):
        self.parts = parts
        self.log = []
        self.policy = Policy(self.log)
        self.exchange = parts.Exchange(poller, self.policy)
        self.exchange.special = (b"",)
        self.exchange.admits = lambda uid, gid: bool(self.log.append(("listener", uid))) and False
        self.socks = []

    def pair(self):
        near, far = socket.socketpair()
        self.socks.append(far)
        return self.parts.Port(near.detach()), far

    def client(self):
        port, far = self.pair()
        self.exchange.add_client(port)
        return far

    def link(self):
        port, far = self.pair()
        self.exchange.dialling()
        self.exchange.add_link(port)
        return far

    def close(self):
        for client in list(self.exchange.clients):
            client.close()
        for link in list(self.exchange.links):
            self.exchange.lose(link, "the end")
        for sock in self.socks:
            sock.close()


@pytest.fixture
def passive(parts, poller):
    passive = Passive(parts, poller)
    yield passive
    passive.close()


def test_peers_then_clients_then_what_was_put_off_then_listeners(passive, poller, tmp_path):
    """In whatever order they were registered, and became ready."""

    class Resumed:
        def resume(self):
            passive.log.append(("resumed", None))

    listening = socket.socket(socket.AF_UNIX)
    listening.setblocking(False)
    listening.bind(str(tmp_path / "s"))
    listening.listen()
    listener = passive.exchange.listen(listening)
    fars = [passive.client(), passive.link(), passive.client(), passive.link()]
    outside = socket.socket(socket.AF_UNIX)
    outside.connect(str(tmp_path / "s"))
    for i, far in enumerate(fars):
        far.send(b"%d\n" % i)
    poller.resumed.append(Resumed())
    assert poller.wait(None) == []
    assert passive.log == [], "nothing is handled by waiting"
    assert poller.serve() is True
    order = [who for who, _ in passive.log]
    assert order == ["peer", "peer", "client", "client", "resumed", "listener"]
    listener.close()
    listening.close(), outside.close()


def test_serve_with_nothing_to_do(poller):
    poller.wait(0)
    assert poller.serve() is False


def test_an_exception_goes_to_died_and_the_others_have_their_turn(passive, poller):
    died = []
    poller.died = lambda handler, error: died.append((handler.fd, type(error)))
    fars = [passive.link() for _ in range(3)]
    for i, far in enumerate(fars):
        far.send(b"%d\n" % i)
    passive.policy.fail.add(b"1\n")
    poller.wait(0)
    poller.serve()
    assert sorted(line for _, line in passive.log) == [b"0\n", b"1\n", b"2\n"]
    assert [kind for _, kind in died] == [ZeroDivisionError]


def test_an_exception_without_died_is_raised(passive, poller):
    far = passive.link()
    far.send(b"1\n")
    passive.policy.fail.add(b"1\n")
    poller.wait(0)
    with pytest.raises(ZeroDivisionError):
        poller.serve()
    passive.policy.fail.clear()


def test_one_that_was_closed_by_another_in_the_same_pass(passive, poller):
    """Its descriptor is free again by then, and may be another's."""
    fars = [passive.link() for _ in range(4)]
    for i, far in enumerate(fars):
        far.send(b"%d\n" % i)
    links = list(passive.exchange.links)
    spoken = []

    def heard(link, line):
        spoken.append(link)
        for other in links:
            if other is not link and other.state != "closed":
                passive.exchange.lose(other, "by another")
                # The number is used again at once.
                passive.socks.append(socket.socket())

    passive.policy.heard = heard
    poller.wait(0)
    poller.serve()
    assert len(spoken) == 1
    assert len(passive.exchange.links) == 1


def test_the_number_of_a_closed_one_given_to_a_watcher_meanwhile(passive, poller, pair):
    """Between `wait` and the next one: the event was for the one before."""
    far = passive.client()
    [client] = passive.exchange.clients
    fd = client.fd
    far.send(b"1\n")
    poller.wait(0)
    client.close()
    os.dup2(pair[0].fileno(), fd)
    poller.watch(fd, 1, "new")
    poller.serve()
    assert passive.log == []
    assert poller.wait(0) == []
    poller.discard(fd)
    os.close(fd)


def test_what_was_put_off_is_not_slept_over(poller):
    class Resumed:
        def resume(self):
            done.append(1)

    done = []
    poller.resumed.append(Resumed())
    poller.wait(None)
    assert poller.serve() is True
    assert done == [1]
    assert poller.serve() is False


def test_a_hang_up_behind_a_mask_of_0_is_seen(parts):
    """A client whose reading was taken off, on a poller of its own."""
    poller = parts.Poller()
    passive = Passive(parts, poller)
    passive.exchange.max_early = 1
    passive.policy.special = lambda transaction: None
    far = passive.client()
    far.send(b"1\nmore")
    for _ in range(3):
        poller.wait(0)
        poller.serve()
    [client] = passive.exchange.clients
    assert client.mask in (0, 1)
    far.send(b"x")
    poller.wait(0)
    poller.serve()
    assert client.mask == 0
    poller.wait(0)
    assert poller.serve() is False
    far.close()
    poller.wait(0)
    poller.serve()
    assert client.closed
    assert passive.exchange.abandoned == 1
    passive.close()
    poller.close()


class Resumed:
    """Waits in `resumed`; `error` is what it raises there."""

    def __init__(self, error=None):
        self.error = error
        self.count = 0

    def resume(self):
        self.count += 1
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [SystemExit(), KeyboardInterrupt(), ValueError()])
def test_what_ends_the_loop_leaves_the_others_to_the_next_pass(poller, error):
    """Without `died` any exception does."""
    before, culprit, *after = everybody = [Resumed(), Resumed(error), Resumed(), Resumed()]
    poller.resumed.extend(everybody)
    with pytest.raises(type(error)):
        poller.serve()
    assert poller.resumed == after
    assert poller.serve()
    assert [each.count for each in everybody] == [1, 1, 1, 1]


def test_serving_again_after_an_exception(parts, poller):
    class Policy:
        def dial(self):
            raise ZeroDivisionError

        def arm(self):
            pass

    exchange = parts.Exchange(poller, Policy())
    pairs = [socket.socketpair() for _ in range(3)]
    for near, far in pairs:
        exchange.add_client(parts.Port(near.detach()))
        far.send(b"ping\n")
    poller.wait(1)
    for _ in range(5):
        with contextlib.suppress(ZeroDivisionError):
            poller.serve()
    assert exchange.requests >= 1
    for client in list(exchange.clients):
        client.close()
    for _, far in pairs:
        far.close()


@pytest.mark.parametrize("timeout", [1e7, 1e12, 1e300])
def test_a_wait_longer_than_the_kernel_knows(poller, pair, timeout):
    left, right = pair
    poller.watch(left.fileno(), 1, "left")
    right.send(b"x")
    assert poller.wait(timeout) == [("left", 1)]
    poller.discard(left.fileno())


class Copied:
    """A port of Python that somebody has a copy of, as of a file made of it."""

    def __init__(self, sock):
        self.sock = sock
        self.copy = os.dup(sock.fileno())

    def __getattr__(self, name):
        return getattr(self.sock, name)


def test_a_port_that_is_closed_while_there_is_a_copy(parts, poller):
    """The kernel would go on telling of it."""
    exchange = parts.Exchange(poller, None)
    near, far = socket.socketpair()
    port = Copied(near)
    client = exchange.add_client(port)
    far.close()
    poller.wait(1)
    poller.serve()
    assert client.closed
    assert not readable(poller.fileno())
    os.close(port.copy)
