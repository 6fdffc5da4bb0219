"""System calls a request of a real daemon, counted by strace.

What they cost is nearly all that a request costs. What a request itself needs is the same on any
machine. How many requests share one wait is not: a broker that others keep from being busy waits
more often. So of some tries the best one counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import wait_until
from tests.daemon.running import environment
from tests.performance.load import Load

TRIES = 5
WAITS = ("epoll_wait", "epoll_pwait", "epoll_pwait2", "restart_syscall")
# The watchdog's question, the start of strace, and the opening of a connection that was not needed
# before, fall into some counts.
STRAY = 100


def hold(count, pids, ask, requests, *, each, with_waits):
    """Fail if `requests` made by `ask()` need more than `each` calls and, with waits, that many."""
    found = []
    for _ in range(TRIES):
        with count(pids) as calls:
            ask()
        assert calls.total(without=WAITS) <= each * requests + STRAY, calls
        found.append(calls.total() / requests)
        if found[-1] <= with_waits:
            return
    raise AssertionError(f"{min(found):.2f} calls a request: {calls}")


@pytest.fixture
def daemon(serve, load, compiled):
    """Start the daemon in front of the load; return its socket and its processes."""

    def daemon(behind=load, **settings):
        running = serve({"one": behind}, env=compiled, dialect="line", **settings)
        path = running.directory / "one"
        behind.ask_anew(path, 50, 200)
        return path, [running.pid, *running.children()]

    return daemon


@pytest.mark.parametrize("clients", [10, 100], ids=["on-the-spot", "queued"])
def test_kept_connections(daemon, load, count, clients):
    """Receive, send, receive, send, and a share of a wait: also while requests queue."""
    path, pids = daemon()
    kept = load.connect(path, clients)
    load.ask(kept, clients)
    hold(count, pids, lambda: load.ask(kept, 1000), 1000, each=4, with_waits=4.3)


def test_large_replies(daemon, compiled, count):
    """A reply of 64 KiB is received by one call, and sent by one."""
    with contextlib.closing(Load(b"x" * ((64 << 10) - 1) + b"\n")) as load:
        path, pids = daemon(load)
        kept = load.connect(path, 10)
        load.ask(kept, 10)
        hold(count, pids, lambda: load.ask(kept, 500), 500, each=4, with_waits=4.3)


def test_new_connections(daemon, load, count):
    """Beside those: accept, watch, see the end, close."""
    path, pids = daemon()
    hold(count, pids, lambda: load.ask_anew(path, 50, 1000), 1000, each=8.2, with_waits=8.5)


def test_new_connections_of_known_users(daemon, load, count):
    """One more: who the client is, where that is restricted."""
    path, pids = daemon(allow_users=[os.getuid()])
    hold(count, pids, lambda: load.ask_anew(path, 50, 1000), 1000, each=9.2, with_waits=9.5)


EMBEDDED = """
import json, signal, sys
from lonc.broker.broker import Broker
from lonc.broker.host import Host
from lonc.broker.settings import Settings
from lonc.net.listening import open_unix_listener
from lonc.reactor import Reactor

path, port = sys.argv[1], int(sys.argv[2])
reactor = Reactor()
broker = Broker(reactor, Host("one", "127.0.0.1", port, "line"), Settings(max_connections=1))
reactor.signal(signal.SIGUSR1, lambda event: print(json.dumps(broker.stats()), flush=True))
broker.listen(open_unix_listener(path))
reactor.run()
"""


def test_the_brokers_own_counters(directory, load, count, compiled):
    """What the statistics say was done is what the kernel was asked to do."""
    path = directory / "one"
    broker = subprocess.Popen(
        [sys.executable, "-c", EMBEDDED, str(path), str(load.address[1])],
        env=environment() | compiled,
        stdout=subprocess.PIPE,
        text=True,
    )

    def stats():
        broker.send_signal(signal.SIGUSR1)
        return json.loads(broker.stdout.readline())

    with broker:
        try:
            wait_until(path.exists)
            wait_until(
                lambda: (now := stats())["idle"] == 1 and not now["clients"],
                step=lambda: load.ask_anew(path, 10, 100),
            )
            before = stats()
            with count([broker.pid], more=0) as calls:
                load.ask_anew(path, 10, 500)
            after = stats()
        finally:
            broker.kill()
    assert after["accepted"] - before["accepted"] == calls.done["accept4"] == 500
    assert after["requests"] - before["requests"] == after["replies"] - before["replies"] == 500
    assert calls.done["sendto"] == 2 * 500
    # A request, its reply, and the end of each client.
    assert calls.done["recvfrom"] == 3 * 500
    assert "connect" not in calls.done
    assert after["idle"] == before["idle"] == 1
