"""What the tests of the reactor share: both parts, a real reactor, and one in simulated time."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import signal
import socket
import traceback
import warnings

import pytest

from lonc.reactor import Reactor

# For real descriptors and signals: a test that waits longer than this has failed.
PATIENCE = 20.0


@pytest.fixture
def reactor(parts, pair):
    """A reactor on real descriptors; a callback that raises fails the test.

    It is closed before the pair is: watchers end before their descriptors do.
    """
    raised = []
    reactor = Reactor(parts)
    reactor.died = lambda event, error: raised.append(error)
    yield reactor
    reactor.close()
    for error in raised:
        raise error


@pytest.fixture
def world(parts):
    world = World(parts)
    yield world
    world.reactor.close()


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    yield left, right
    left.close()
    right.close()


@pytest.fixture
def usual_signals():
    """Fails if a test leaves handlers or a wake-up descriptor behind."""
    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    left = [signal.getsignal(number) for number in numbers]
    wakeup = signal.set_wakeup_fd(-1)
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    assert left == before
    assert wakeup == -1


def run(reactor):
    """Run until `unloop`, and fail if that does not come."""
    guard = reactor.timer(lambda event: reactor.unloop(guard), after=PATIENCE)
    result = reactor.run()
    guard.cancel()
    assert result is not guard, "the loop was not ended in time"
    return result


def readable(fd, timeout=0):
    """Tell whether `fd` is readable within `timeout` seconds."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def fork():
    with warnings.catch_warnings():
        # Newer Pythons warn of threads, which another test may have left.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def in_child(function):
    """Call `function` in a forked child; fail with its traceback if it raises."""
    reader, writer = os.pipe()
    pid = fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(int(PATIENCE))
            function()
            status = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader) as lines:
        said = lines.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, said or f"the child ended with {status}"


@contextlib.contextmanager
def sending(function):
    """Have another process call `function` with the number of this one."""
    receiver = os.getpid()
    sender = fork()
    if sender == 0:
        function(receiver)
        os._exit(0)
    yield
    os.waitpid(sender, 0)


class World:
    """A reactor whose clock moves only while it waits, and whose descriptors are ready on command.

    `served` is what the poller's own handlers report to have done in each pass; `handlers` are what
    the poller was given for descriptors.
    """

    def __init__(self, parts):
        self.time = 1000.0
        self.ready = {}
        self.served = 0
        self.waits = []
        self.log = []
        self.handlers = {}
        self.selector = SimulatedSelector(self)
        spying = type("parts", (), {"Poller": lambda *args: SpiedPoller(parts, self, *args)})
        self.reactor = Reactor(spying, selector=self.selector, clock=lambda: self.time)

    def note(self, name, action=None):
        """Return a callback that writes `name` into the log, and then does `action(event)`."""

        def callback(event):
            self.log.append(name)
            if action is not None:
                action(event)

        return callback

    def run_until(self, time):
        """Make passes until the clock has `time`."""
        while True:
            left = time - self.time
            self.reactor.run_once(max(left, 0))
            if left <= 0:
                return

    def steps(self):
        """Make passes that do not wait until one has nothing to do; return how many had."""
        count = 0
        while self.reactor.run_once(0):
            count += 1
        return count


class SpiedPoller:
    """The poller of one of the parts, which also writes "serve" into the log of a world."""

    def __init__(self, parts, world, *args):
        vars(self).update(poller=parts.Poller(*args), world=world)

    def __getattr__(self, name):
        return getattr(self.poller, name)

    def __setattr__(self, name, value):
        setattr(self.poller, name, value)

    def watch(self, fd, mask, handler):
        self.world.handlers[fd] = handler
        self.poller.watch(fd, mask, handler)

    def serve(self):
        self.world.log.append("serve")
        self.poller.serve()
        return self.world.served


class SimulatedSelector(selectors.BaseSelector):
    """Passes the time of its world instead of waiting."""

    def __init__(self, world):
        self.world = world
        self.keys = {}

    def register(self, fileobj, events, data=None):
        self.keys[fileobj] = selectors.SelectorKey(fileobj, fileobj, events, data)
        return self.keys[fileobj]

    def unregister(self, fileobj):
        return self.keys.pop(fileobj)

    def modify(self, fileobj, events, data=None):
        return self.register(fileobj, events, data)

    def get_map(self):
        return self.keys

    def select(self, timeout=None):
        self.world.waits.append(timeout)
        ready = [
            (self.keys[fd], mask & self.keys[fd].events)
            for fd, mask in self.world.ready.items()
            if fd in self.keys and mask & self.keys[fd].events
        ]
        if not ready:
            assert timeout is not None, "the loop would wait for ever"
            self.world.time += max(timeout, 0)
        return ready
