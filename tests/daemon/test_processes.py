"""A process for each host, or one for all: what clients see, and what processes there are."""

from __future__ import annotations

import fcntl
import os
import resource
import signal

from lonc.client import ClientError
from lonc.lond import Fault, Peer
from tests.conftest import wait_until
from tests.daemon.running import descriptors, wait_gone


def lost(running, host_id="one"):
    """Whether a request is answered `con_lost`."""
    try:
        running.ask(host_id)
    except ClientError as error:
        assert "con_lost" in str(error)
        return True
    return False


def test_clients_see_no_difference(serve, lond, stubborn, gone, mode, part_env):
    running = serve(
        {"one": lond, "two": (stubborn, {"dialect": "line"}), "off": gone},
        env=part_env,
        processes=mode,
    )
    one, two = running.client("one"), running.client("two")
    with one, two:
        for number in range(50):
            assert one.request(b"echo:%d" % number) == b"%d" % number
            assert two.request(b"%d" % number) == b"%d" % number
        big = b"x" * 1_000_000
        assert two.request(big) == big
    for _ in range(3):
        assert lost(running, "off")
    assert running.ask("one") == b"one"
    assert running.end() == 0
    assert sorted(os.listdir(running.directory)) == ["lonc.toml"]


def test_a_process_is_started_by_the_first_client_of_its_host(serve, lond):
    running = serve({"one": lond, "two": lond})
    assert running.children() == []
    assert running.ask("one") == b"one"
    assert len(running.serving("one")) == 1
    assert running.serving("two") == []
    # Nothing is started for a client that comes later.
    pids = running.children()
    assert running.ask("one") == b"one"
    assert running.children() == pids


def test_eager_processes_are_there_before_any_client(serve, lond):
    running = serve({"one": lond, "two": lond}, start="eager")
    assert running.process_of("one") != running.process_of("two")
    assert len(running.children()) == 2


def test_one_for_all_has_no_children(serve, lond):
    running = serve({"one": lond, "two": lond}, processes="single", start="eager")
    assert (running.ask("one"), running.ask("two")) == (b"one", b"two")
    assert running.children() == []


def test_a_process_has_only_what_is_its_own(serve, lond):
    running = serve(dict.fromkeys(("one", "two", "three"), lond), start="eager")
    listeners = {name: f"socket:[{inode}]" for name, inode in running.listeners().items()}
    for name in running.hosts:
        pid = running.process_of(name)
        # Standard streams, lock, poller, channel, wake-up pair, listener.
        wait_until(lambda pid=pid: len(descriptors(pid)) == 9)
        assert set(listeners.values()).intersection(descriptors(pid)) == {listeners[name]}


def test_a_process_is_started_with_the_last_two_descriptors(serve, lond):
    """What the parent holds for the other hosts is enough for the work of this one."""
    running = serve({"one": lond} | {f"other{number}": lond for number in range(20)})
    taken = {int(number) for number in os.listdir(f"/proc/{running.pid}/fd")}
    second_free = [number for number in range(len(taken) + 2) if number not in taken][1]
    hard = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (second_free + 1, hard))
    assert running.ask("one") == b"one"
    assert not any("CRITICAL" in line for line in running.log)


def test_nobody_who_locks_the_directory_is_waited_for_at_the_end(serve, lond, mode):
    running = serve(dict.fromkeys(("one", "two", "three"), lond), processes=mode)
    lock = os.open(running.directory, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert running.end() == 0
    finally:
        os.close(lock)
    assert os.listdir(running.directory) == ["lonc.toml"]
    assert not any("WARNING" in line and "socket" in line for line in running.log)


def test_a_process_without_work_ends_and_the_next_client_gets_another(serve, lond):
    running = serve({"one": lond}, child_idle=0.2, idle_timeout=0.1, idle_close_interval=0.05)
    with running.client("one") as client:
        assert client.request(b"ping") == b"one"
        first = running.process_of("one")
        # A client that is connected is work.
        running.wait_for("ready", count=2)
        assert not any("nothing to do" in line for line in running.log)
    wait_gone(first)
    running.wait_for("nothing to do")
    assert running.ask("one") == b"one"
    assert running.process_of("one") != first
    assert not any("CRITICAL" in line for line in running.log)


def test_a_process_that_was_told_to_end_leaves_the_budget_to_the_next(serve):
    """And nobody is let in that its host turned away: DEAD stays DEAD."""
    with Peer(id="one") as peer:
        peer.faults.add(Fault("close", step="init"))
        running = serve({"one": peer}, connection_retries=2, retry_first=0.01, probe_while_asked=0)
        wait_until(lambda: lost(running) and any("is DEAD" in line for line in running.log))
        accepted = peer.accepted
        for how in (signal.SIGTERM, signal.SIGKILL):
            pid = running.process_of("one")
            os.kill(pid, how)
            wait_gone(pid)
            assert lost(running)
            assert running.process_of("one", other_than=pid)
        assert peer.accepted == accepted
        peer.faults.clear()
        running.send(signal.SIGUSR1)
        wait_until(lambda: not lost(running))


def test_what_was_taken_from_the_budget_stays_taken(serve):
    with Peer(id="one") as peer:
        peer.faults.add(Fault("close", step="init"))
        settings = {"connection_retries": 4, "retry_first": 0.01, "retry_longest": 0.01}
        running = serve({"one": peer}, probe_while_asked=0, **settings)
        wait_until(lambda: lost(running) and peer.accepted == 2)
        pid = running.process_of("one")
        os.kill(pid, signal.SIGTERM)
        wait_gone(pid)
        wait_until(lambda: lost(running) and any("is DEAD" in line for line in running.log))
        assert peer.accepted == 4
