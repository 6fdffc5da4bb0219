"""A process that dies, hangs, or cannot be started: what becomes of its host, and of the others."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import threading

import pytest

from lonc.broker.settings import Settings
from lonc.client import ClientError
from lonc.daemon import processes
from lonc.daemon.log import Log
from lonc.daemon.processes import LISTENING, PAUSES, RUNNING, WAITING, Processes
from lonc.daemon.settings import Configuration, DaemonSettings, HostConfig
from lonc.lond import Peer
from lonc.reactor import Reactor
from tests.conftest import wait_until
from tests.daemon.running import DEADLINE, wait_gone

HANGING = (sys.executable, "-m", "tests.daemon.hanging")


@pytest.mark.parametrize(
    ("signum", "words"),
    [
        (signal.SIGKILL, "was killed by signal 9 (Killed)"),
        (signal.SIGSEGV, "was killed by signal 11 (Segmentation fault)"),
    ],
)
def test_a_process_that_dies_is_started_again_for_its_host(serve, lond, signum, words):
    running = serve({"one": lond, "two": lond}, start="eager")
    one, two = running.process_of("one"), running.process_of("two")
    assert running.ask("one") == b"one"
    os.kill(one, signum)
    # A client that comes meanwhile waits in the backlog, and hears nothing of it.
    assert running.ask("one") == b"one"
    line = running.wait_for("CRITICAL")
    assert line.endswith(f"[one] CRITICAL: process {one} {words}\n")
    assert running.process_of("one") != one
    assert running.process_of("two") == two
    if signum == signal.SIGSEGV:
        assert any("Fatal Python error" in line for line in running.log)


def test_the_first_restart_is_at_once_and_the_next_after_a_pause(serve, lond):
    running = serve({"one": lond}, start="eager")
    first = running.process_of("one")
    os.kill(first, signal.SIGKILL)
    second = running.process_of("one", other_than=first)
    os.kill(second, signal.SIGKILL)
    running.wait_for("CRITICAL", count=2)
    assert running.children() == []
    # Clients do not wait for the parent to be asked: the pause is PAUSES[1].
    assert running.ask("one") == b"one"
    assert running.process_of("one") not in (first, second)


def test_a_process_that_stands_still_is_aborted_and_replaced(serve, lond):
    running = serve({"one": lond, "two": lond}, start="eager", watchdog=0.5)
    one, two = running.process_of("one"), running.process_of("two")
    for _ in range(2):
        os.kill(one, signal.SIGSTOP)
        assert running.ask("one") == b"one"
        running.wait_for(f"[one] CRITICAL: process {one} hangs: no answer for 0.5 s; aborted")
        running.wait_for(f"[one] CRITICAL: process {one} was killed by signal 6 (Aborted)")
        one = running.process_of("one", other_than=one)
        two = running.process_of("two")
    assert running.process_of("two") == two
    assert not any("[two]" in line for line in running.log)


def test_the_log_shows_where_a_process_hangs(serve, lond):
    running = serve({"one": lond}, command=HANGING, start="eager", watchdog=0.5)
    assert running.ask("one") == b"one"
    one = running.process_of("one")
    os.kill(one, signal.SIGHUP)
    running.wait_for(f"process {one} hangs")
    running.wait_for("Fatal Python error: Aborted")
    running.wait_for("in hang")
    running.wait_for(f"process {one} was killed by signal 6")
    assert running.ask("one") == b"one"


def test_a_host_s_trouble_is_its_own(serve, lond, part_env):
    """One crashes in a loop, one hangs, one has lost its peer; the fourth works at full rate."""
    with Peer(id="three") as leaving:
        hosts = {"one": lond, "two": lond, "three": leaving, "four": lond}
        running = serve(hosts, start="eager", watchdog=0.5, reply_timeout=5, env=part_env)
        four = running.process_of("four")
        assert running.ask("three") == b"three"
    ended = threading.Event()
    trouble = threading.Thread(target=make_trouble, args=(running, ended), daemon=True)
    trouble.start()
    answers = 0
    with running.client("four") as client:
        while not ended.is_set() or answers < 2000:
            assert client.request(b"echo:%d" % answers) == b"%d" % answers
            answers += 1
    trouble.join(DEADLINE)
    assert running.process_of("four") == four
    assert not any("[four]" in line and "SUCCESS" not in line for line in running.log)
    for host_id, words in (("one", "was killed"), ("two", "hangs"), ("three", "lost")):
        assert any(f"[{host_id}]" in line and words in line for line in running.log)


def make_trouble(running, ended):
    """Kill `one` whenever it is there, stop `two`, and ask `three`, until each has suffered."""
    try:
        killed = stopped = 0
        while killed < 3 or stopped < 2:
            for pid in running.serving("one"):
                os.kill(pid, signal.SIGKILL)
                killed += 1
                wait_gone(pid)
            for pid in running.serving("two"):
                os.kill(pid, signal.SIGSTOP)
                stopped += 1
                wait_gone(pid)
            with contextlib.suppress(ClientError):
                running.ask("three")
    finally:
        ended.set()


class Forks:
    """In the place of `os.fork`: fails so often, then makes a child that says nothing."""

    def __init__(self, failures=0, program=("true",)):
        self.failures = failures
        self.program = program
        self.tries = 0

    def __call__(self):
        self.tries += 1
        if self.tries <= self.failures:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return os.posix_spawnp(self.program[0], self.program, os.environ)


def nothing():
    """What a parent alone has to do for the daemon."""


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def world(monkeypatch, directory):
    """A parent with a clock that stands, of one host whose process cannot be forked."""
    clock = Clock()
    reactor = Reactor(clock=clock)
    log = Log()
    lines = []
    monkeypatch.setattr(Log, "_write", lambda log, severity, text: lines.append((severity, text)))
    configuration = Configuration(DaemonSettings(own_id="a", socket_dir=str(directory)), ())
    hosts = Processes(reactor, configuration, nothing, nothing, nothing, log)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "one"))
        listener.listen()
        hosts.add(HostConfig("one", "127.0.0.1", 1, Settings()), [listener])
        yield hosts, clock, lines
        hosts.stop(lambda: None)
        wait_until(lambda: not hosts._pids(), DEADLINE, lambda: passes(hosts, 3, clock))
        reactor.close()


def passes(hosts, seconds, clock):
    """Let time pass, and let the parent act on it."""
    clock.now += seconds
    for _ in range(3):
        hosts._reactor.run_once(0)
        hosts.start_wanted()


def test_a_failed_fork_is_tried_again_with_growing_pauses(world, monkeypatch):
    hosts, clock, lines = world
    forks = Forks(failures=len(PAUSES) + 2)
    monkeypatch.setattr(processes.os, "fork", forks)
    process = hosts._hosts["one"]
    # It lived long, long ago: that makes none of the failures the first one.
    process.started = clock.now - 1000
    hosts.need("one")
    hosts.start_wanted()
    passes(hosts, 0, clock)
    # The first pause is none.
    assert (forks.tries, process.state) == (2, WAITING)
    for number, pause in enumerate([*PAUSES[1:], PAUSES[-1]], start=3):
        passes(hosts, pause - 0.1, clock)
        assert forks.tries == number - 1
        passes(hosts, 0.2, clock)
        assert forks.tries == number
    text = "no process can be started: Resource temporarily unavailable"
    assert ("CRITICAL", text) in lines
    passes(hosts, PAUSES[-1] + 1, clock)
    wait_until(lambda: process.state == LISTENING, DEADLINE, lambda: passes(hosts, 0, clock))


# A daemon whose first two forks fail.
FAILING = """
import os, sys
from lonc.cli.main import main
fork, failures = os.fork, [1, 2]
def failing():
    if failures:
        failures.pop()
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()
os.fork = failing
sys.exit(main())
"""


def test_what_was_repeated_before_the_fork_is_counted_once(serve, lond):
    running = serve({"one": lond}, command=(sys.executable, "-c", FAILING))
    assert running.ask("one") == b"one"
    running.wait_for("connection to one ready")
    os.kill(running.process_of("one"), signal.SIGKILL)
    running.wait_for("was killed by signal 9")
    lines = [line for line in running.log if "no process can be started" in line]
    assert len(lines) == 2, lines
    assert all(f"({running.pid}) [one] CRITICAL" in line for line in lines)
    assert lines[1].endswith("(once more)\n")


def test_no_descriptors_for_a_channel_is_a_failed_fork(world, monkeypatch):
    hosts, clock, lines = world

    def socketpair():
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(processes.socket, "socketpair", socketpair)
    hosts.need("one")
    hosts.start_wanted()
    assert hosts._hosts["one"].state == WAITING
    assert ("CRITICAL", "no process can be started: Too many open files") in lines


@pytest.mark.parametrize("late", [False, True], ids=["hangs", "nobody ran"])
def test_silence_proves_nothing_where_the_parent_stood_still_itself(world, monkeypatch, late):
    hosts, clock, lines = world
    monkeypatch.setattr(processes.os, "fork", Forks(program=("sleep", "1000")))
    hosts.need("one")
    hosts.start_wanted()
    process = hosts._hosts["one"]
    pid, interval = process.pid, hosts._watchdog.interval
    assert process.state == RUNNING
    for questions in (1, 2):
        passes(hosts, interval + 0.001, clock)
        assert process.unanswered == questions
    passes(hosts, 1000 if late else interval + 0.001, clock)
    if late:
        assert (process.pid, process.unanswered) == (pid, 1)
        os.kill(pid, signal.SIGKILL)
    else:
        assert ("CRITICAL", f"process {pid} hangs: no answer for 30 s; aborted") in lines
        assert process.pid != pid
        os.kill(process.pid, signal.SIGKILL)
    wait_gone(pid)


def test_children_of_a_killed_parent_drain_and_the_next_parent_waits(serve, lond, stubborn):
    hosts = {"one": (stubborn, {"dialect": "line"}), "two": lond}
    first = serve(hosts, start="eager")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(first.directory / "one"))
        client.sendall(b"slow\n")
        assert stubborn.asked.wait(DEADLINE)
        one, two = first.process_of("one"), first.process_of("two")
        first.process.kill()
        wait_gone(two)
        second = serve(hosts, ready=False)
        first.wait_for(f"({one}) [one] WARNING: the parent is gone: finishing what is in flight")
        # The lock is the child's, and the number in the file the dead parent's.
        assert second.log == []
        assert (first.directory / "pid").read_text() == f"{first.pid}\n"
        stubborn.answer.set()
        assert client.recv(100) == b"slow\n"
        assert client.recv(100) == b""
    wait_gone(one)
    second.wait_for("ready in")
    assert (first.directory / "pid").read_text() == f"{second.pid}\n"
    assert (second.ask("one"), second.ask("two")) == (b"ping", b"two")
    assert second.end() == 0
