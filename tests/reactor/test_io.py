"""Descriptors: real ones, and timeouts in simulated time."""

from __future__ import annotations

import os

from tests.reactor.conftest import run


def test_bytes_through_a_pipe(reactor):
    """Writing whenever there is room and reading whatever is there moves everything."""
    reader, writer = os.pipe()
    counts = {"r": 0, "w": 0}

    def read(event):
        assert event.got == "r"
        assert os.read(event.watcher.fd, 1) == b"."
        counts["r"] += 1
        if counts["r"] == 1000:
            reactor.unloop("enough")

    def write(event):
        assert event.got == "w"
        assert os.write(event.watcher.fd, b".") == 1
        counts["w"] += 1

    watchers = [reactor.io(reader, "r", read), reactor.io(writer, "w", write)]
    assert run(reactor) == "enough"
    assert counts["w"] >= counts["r"] == 1000
    for watcher in watchers:
        watcher.cancel()
    os.close(reader)
    os.close(writer)


def test_got_tells_what_happened_of_what_was_asked(reactor, pair):
    left, right = pair
    seen = []
    watcher = reactor.io(right, "rw", lambda event: seen.append(event.got))
    reactor.run_once(0)
    left.send(b"x")
    reactor.run_once(0)
    watcher.poll = "r"
    reactor.run_once(0)
    assert seen == ["w", "rw", "r"]


def test_level_triggered(reactor, pair):
    left, right = pair
    seen = []
    reactor.io(right, "r", seen.append)
    left.send(b"x")
    assert [reactor.run_once(0) for _ in range(3)] == [True] * 3
    right.recv(10)
    assert not reactor.run_once(0)
    assert len(seen) == 3


def test_several_watchers_of_one_descriptor(reactor, pair):
    """Each gets what it asked for, whatever the others do."""
    left, right = pair
    left.send(b"x")
    seen = []

    def watch(name, poll):
        return reactor.io(right, poll, lambda event: seen.append((name, event.got)))

    def noticed():
        seen.clear()
        reactor.run_once(0)
        return seen[:]

    first, second, both = watch("first", "r"), watch("second", "w"), watch("both", "wr")
    assert noticed() == [("first", "r"), ("second", "w"), ("both", "rw")]
    both.stop()
    assert noticed() == [("first", "r"), ("second", "w")]
    second.cancel()
    assert noticed() == [("first", "r")]
    first.poll = "w"
    assert noticed() == [("first", "w")]
    both.start()
    first.cancel()
    assert noticed() == [("both", "rw")]
    both.stop()
    assert noticed() == []
    both.start()
    assert noticed() == [("both", "rw")]


def test_the_poller_is_asked_for_no_more_than_is_needed(world):
    """A mask that was left behind would wake up the loop again and again."""
    reactor = world.reactor

    def asked():
        return {fd: key.events for fd, key in world.selector.keys.items()}

    first = reactor.io(3, "r", print)
    second = reactor.io(3, "rw", print)
    assert asked() == {3: 3}
    second.poll = "r"
    assert asked() == {3: 1}
    first.stop()
    second.poll = "w"
    assert asked() == {3: 2}
    first.poll = "rw"
    assert asked() == {3: 2}
    second.cancel()
    assert asked() == {}
    first.start()
    assert asked() == {3: 3}


def test_a_change_of_poll_holds_for_what_was_noticed(reactor, pair):
    left, right = pair
    left.send(b"x")
    seen = []
    first = reactor.io(right, "r", lambda event: setattr(second, "poll", "w"))
    second = reactor.io(right, "r", lambda event: seen.append(event.got))
    reactor.run_once(0)
    assert seen == []
    first.cancel()
    reactor.run_once(0)
    assert seen == ["w"]


def test_end_of_file_and_hang_up_are_noticed_by_all(reactor, pair):
    left, right = pair
    seen = []
    for poll in ("r", "w", "rw"):
        reactor.io(right, poll, lambda event, poll=poll: seen.append((poll, event.got)))
    left.close()
    reactor.run_once(0)
    assert seen == [("r", "r"), ("w", "w"), ("rw", "rw")]


def test_a_hang_up_that_the_poller_reports_as_such(world):
    """It is neither readable nor writable: everybody gets what was asked for."""
    hangup = 4
    seen = []
    for poll in ("r", "w", "rw"):
        world.reactor.io(3, poll, lambda event: seen.append(event.got))
    vars(world.reactor.poller)["wait"] = lambda timeout: [(world.handlers[3], hangup)]
    assert world.reactor.run_once()
    assert seen == ["r", "w", "rw"]


def test_a_broken_pipe_is_noticed_by_its_writer(reactor):
    reader, writer = os.pipe()
    try:
        while True:
            os.set_blocking(writer, False)
            os.write(writer, bytes(65536))
    except BlockingIOError:
        pass
    seen = []
    watcher = reactor.io(writer, "w", lambda event: seen.append(event.got))
    assert not reactor.run_once(0)
    os.close(reader)
    assert reactor.run_once(0)
    assert seen == ["w"]
    watcher.cancel()
    os.close(writer)


def test_one_event_only(reactor, pair):
    left, right = pair
    left.send(b"x")
    seen = []
    watcher = reactor.io(right, "r", seen.append, repeat=False)
    assert reactor.run_once(0)
    assert not reactor.run_once(0)
    assert not watcher.is_active
    watcher.again()
    assert reactor.run_once(0)
    assert len(seen) == 2


def test_a_timeout_comes_again_and_again(world):
    reactor = world.reactor
    seen = []
    reactor.io(3, "r", lambda event: seen.append((event.got, world.time)), timeout=10)
    world.run_until(1035)
    assert seen == [("t", 1010), ("t", 1020), ("t", 1030)]


def test_an_event_puts_the_timeout_off(world):
    reactor = world.reactor
    seen = []
    reactor.io(3, "r", lambda event: seen.append((event.got, world.time)), timeout=10)
    for time in (1004, 1008, 1012):
        world.run_until(time)
        world.ready[3] = 1
        reactor.run_once(0)
        world.ready.clear()
    world.run_until(1030)
    assert seen == [("r", 1004), ("r", 1008), ("r", 1012), ("t", 1022)]


def test_an_event_at_the_last_moment_is_no_timeout(world):
    seen = []
    world.reactor.io(3, "r", lambda event: seen.append(event.got), timeout=10)
    world.time += 10
    world.ready[3] = 1
    world.reactor.run_once(0)
    assert seen == ["r"]


def test_a_timeout_once(world):
    seen = []
    watcher = world.reactor.io(
        3, "r", lambda event: seen.append(event.got), timeout=10, repeat=False
    )
    world.run_until(1050)
    assert seen == ["t"]
    assert not watcher.is_active
    watcher.start()
    world.ready[3] = 1
    world.reactor.run_once(0)
    world.ready.clear()
    world.run_until(1100)
    assert seen == ["t", "r"], "the timeout ended with the watcher"


def test_a_timeout_can_be_changed_and_taken_away(world):
    reactor = world.reactor
    seen = []
    watcher = reactor.io(3, "r", lambda event: seen.append(world.time))
    assert watcher.timeout is None
    assert reactor.deadline() is None
    watcher.timeout = 10
    assert (watcher.timeout, reactor.deadline()) == (10, 1010)
    world.run_until(1005)
    watcher.timeout = 20
    world.run_until(1030)
    watcher.timeout = None
    assert reactor.deadline() is None
    world.run_until(1100)
    assert seen == [1025]


def test_a_stopped_watcher_has_no_timeout_and_a_started_one_all_of_it(world):
    reactor = world.reactor
    seen = []
    watcher = reactor.io(3, "r", lambda event: seen.append(world.time), timeout=10)
    world.run_until(1008)
    watcher.stop()
    assert reactor.deadline() is None
    world.run_until(1050)
    watcher.timeout = 5
    assert reactor.deadline() is None
    watcher.start()
    world.run_until(1057)
    assert seen == [1055]


def test_events_do_not_grow_the_heap(world):
    watcher = world.reactor.io(3, "r", world.note("io"), timeout=10)
    world.ready[3] = 1
    for _ in range(500):
        world.reactor.run_once(0)
    assert len(world.reactor._alarms.heap) == 1
    watcher.cancel()
