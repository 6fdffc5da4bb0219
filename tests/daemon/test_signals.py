"""What each signal does to the parent and to a child, on real processes."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest

from lonc.client import ConnectFailed
from tests.conftest import wait_until
from tests.daemon.running import DEADLINE, wait_gone

ORDERLY = (signal.SIGTERM, signal.SIGINT)
REREAD = (signal.SIGHUP, signal.SIGUSR2)
ANY = (*ORDERLY, signal.SIGQUIT, *REREAD, signal.SIGUSR1)


def asking(running, host_id, request):
    """A client that has sent a request."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(DEADLINE)
    client.connect(str(running.directory / host_id))
    client.sendall(request)
    return client


def all_of(client):
    """What comes until the end of the stream; the client is closed then."""
    with client:
        received = b""
        while data := client.recv(65536):
            received += data
        return received


def nothing_left(running):
    """Whether all that the daemon made is gone."""
    return sorted(os.listdir(running.directory)) in (["lonc.toml"], ["lonc.toml", "status"])


def status(running, host_id):
    """The line of a host in the status file, as a list of its fields; None if there is none."""
    try:
        lines = (running.directory / "status").read_text().splitlines()
    except FileNotFoundError:
        return None
    found = [line.split("\t") for line in lines[2:] if line.split("\t")[1:2] == [host_id]]
    return found[0] if found else None


# The parent


@pytest.mark.parametrize("signum", ORDERLY)
def test_an_orderly_end_of_the_parent(serve, stubborn, lond, mode, signum, part_env):
    hosts = {"one": (stubborn, {"dialect": "line"}), "two": lond, "three": lond}
    running = serve(hosts, processes=mode, env=part_env)
    assert running.ask("two") == b"two"
    with asking(running, "one", b"slow\n") as client:
        assert stubborn.asked.wait(DEADLINE)
        running.send(signum)
        running.wait_for("ending")
        # The second time changes nothing.
        running.send(signum)
        with pytest.raises(ConnectFailed):
            running.ask("two")
        stubborn.answer.set()
        assert all_of(client) == b"slow\n"
    assert running.ended() == 0
    assert nothing_left(running)
    assert not any(word in line for line in running.log for word in ("CRITICAL", "WARNING: 1"))


def test_a_drain_says_what_it_could_not_finish(serve, stubborn, mode):
    running = serve(
        {"one": (stubborn, {"dialect": "line", "drain_timeout": 0.2})}, processes=mode
    )
    with asking(running, "one", b"slow\n") as client:
        assert stubborn.asked.wait(DEADLINE)
        running.send(signal.SIGTERM)
        assert all_of(client) == b"con_lost\n"
    assert running.ended() == 0
    [line] = [line for line in running.log if "not finished" in line]
    assert "[one] WARNING: 1 requests to one were not finished" in line


@pytest.mark.parametrize("before", [None, signal.SIGTERM, signal.SIGQUIT])
def test_an_end_at_once_of_the_parent(serve, stubborn, lond, mode, before):
    hosts = {"one": (stubborn, {"dialect": "line", "drain_timeout": 1000}), "two": lond}
    running = serve(hosts, processes=mode)
    with asking(running, "one", b"slow\n") as client:
        assert stubborn.asked.wait(DEADLINE)
        if before:
            running.send(before)
            running.wait_for("ending")
        running.send(signal.SIGQUIT)
        assert all_of(client) == b"con_lost\n"
    assert running.ended() == 0
    assert nothing_left(running)
    assert "CRITICAL" not in "".join(running.log)


@pytest.mark.parametrize("signum", REREAD)
def test_the_parent_reads_its_configuration_again(serve, lond, mode, signum):
    running = serve({"one": lond}, processes=mode)
    running.hosts["two"] = lond
    assert "1 hosts new" in running.reload(signum)
    assert running.ask("two") == b"two"
    del running.hosts["two"]
    assert "1 gone" in running.reload(signum)
    with pytest.raises(ConnectFailed):
        running.ask("two")
    assert running.ask("one") == b"one"


def test_the_parent_reports_and_revives(serve, lond, mode):
    lond.stop()
    running = serve({"one": lond}, processes=mode, connection_retries=1, probe_while_asked=0)
    with asking(running, "one", b"ping\n") as client:
        assert client.recv(100) == b"con_lost\n"
    running.wait_for("is DEAD")
    lond.start()
    for _ in range(2):
        (running.directory / "status").unlink(missing_ok=True)
        running.send(signal.SIGUSR1)
        pid, _, text, last = wait_until(lambda: status(running, "one"), DEADLINE)
        assert int(pid) == (running.pid if mode == "single" else running.process_of("one"))
        assert "DEAD" not in text
        assert last.startswith(("WARNING: ", "SUCCESS: "))
        assert running.ask("one") == b"one"
    head = (running.directory / "status").read_text().splitlines()[0]
    assert head.endswith(f" - parent {running.pid}")


# A child


def test_an_orderly_end_of_a_child(serve, stubborn):
    running = serve({"one": (stubborn, {"dialect": "line"})})
    for _ in range(2):
        stubborn.asked.clear()
        stubborn.answer.clear()
        with asking(running, "one", b"slow\n") as client:
            assert stubborn.asked.wait(DEADLINE)
            pid = running.process_of("one")
            for _ in range(2):
                os.kill(pid, signal.SIGTERM)
                running.wait_for(f"({pid}) [one] INFO: ending")
            # The next client does not wait in vain for the one that ends.
            with asking(running, "one", b"next\n") as other:
                stubborn.answer.set()
                assert all_of(client) == b"slow\n"
                assert other.recv(100) == b"next\n"
        wait_gone(pid)
    assert "CRITICAL" not in "".join(running.log)


def test_an_end_at_once_of_a_child(serve, stubborn):
    running = serve({"one": (stubborn, {"dialect": "line", "drain_timeout": 1000})})
    for before in (None, signal.SIGTERM):
        stubborn.asked.clear()
        with asking(running, "one", b"slow\n") as client:
            assert stubborn.asked.wait(DEADLINE)
            pid = running.process_of("one")
            if before:
                os.kill(pid, before)
            os.kill(pid, signal.SIGQUIT)
            assert all_of(client) == b"con_lost\n"
        wait_gone(pid)
    assert running.ask("one") == b"ping"
    assert "CRITICAL" not in "".join(running.log)


def test_a_child_switches_its_debug_log(serve, lond):
    running = serve({"one": lond, "two": lond}, start="eager")
    pid = running.process_of("one")
    for level, count in ((10, 1), (0, 1), (10, 2), (0, 2)):
        os.kill(pid, signal.SIGINT)
        line = running.wait_for(f"New debugging level for one now {level}", count=count)
        assert f"({pid}) [one] SUCCESS" in line
    assert running.process_of("one") == pid


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGUSR1])
def test_a_child_gets_a_fresh_budget(serve, lond, signum):
    running = serve({"one": lond}, connection_retries=1, probe_while_asked=0)
    for count in (1, 2):
        lond.stop()
        with asking(running, "one", b"ping\n") as client:
            assert client.recv(100) == b"con_lost\n"
        running.wait_for("is DEAD", count=count)
        lond.start()
        pid = running.process_of("one")
        with asking(running, "one", b"ping\n") as client:
            assert client.recv(100) == b"con_lost\n"
        os.kill(pid, signum)

        def alive():
            with asking(running, "one", b"ping\n") as client:
                return client.recv(100) == b"one\n"

        wait_until(alive, DEADLINE)
        assert running.process_of("one") == pid


def test_a_child_has_the_status_file_written(serve, lond):
    running = serve({"one": lond, "two": lond})
    assert running.ask("one") == b"one"
    pid = running.process_of("one")
    for _ in range(2):
        (running.directory / "status").unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR1)
        fields = wait_until(lambda: status(running, "one"), DEADLINE)
        assert fields[0] == str(pid)
        assert fields[2].startswith("one Connection count: ")
    assert status(running, "two") is None


def test_a_child_ignores_what_is_for_the_parent(serve, lond):
    running = serve({"one": lond})
    assert running.ask("one") == b"one"
    pid = running.process_of("one")
    for _ in range(2):
        os.kill(pid, signal.SIGUSR2)
        assert running.ask("one") == b"one"
    assert running.process_of("one") == pid


# Any time


@pytest.mark.parametrize("signum", ANY)
def test_during_start_up(serve, lond, mode, signum):
    """The handlers are there before anything that a signal could leave half done."""
    hosts = {"one": lond} | {f"host{number}": lond for number in range(50)}
    running = serve(hosts, ready=False, processes=mode, start="eager")
    handled = 1 << signal.SIGUSR1 - 1 | 1 << signum - 1

    def has_handlers():
        with open(f"/proc/{running.pid}/status") as lines:
            caught = next(line for line in lines if line.startswith("SigCgt:"))
        return int(caught.split()[1], 16) & handled == handled

    wait_until(has_handlers, DEADLINE)
    for _ in range(2):
        running.send(signum)
    if signum in (*ORDERLY, signal.SIGQUIT):
        assert running.ended() == 0
        assert nothing_left(running)
    else:
        running.wait_for("ready in")
        assert running.ask("one") == b"one"
        assert running.end() == 0
    assert "CRITICAL" not in "".join(running.log)


def test_reports_and_reloads_during_a_drain(serve, stubborn, mode):
    running = serve({"one": (stubborn, {"dialect": "line"})}, processes=mode)
    with asking(running, "one", b"slow\n") as client:
        assert stubborn.asked.wait(DEADLINE)
        running.send(signal.SIGTERM)
        running.wait_for("ending")
        for _ in range(2):
            for signum in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, *ORDERLY):
                running.send(signum)
        for pid in running.children():
            for signum in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
                os.kill(pid, signum)
        stubborn.answer.set()
        assert all_of(client) == b"slow\n"
    assert running.ended() == 0
    assert "CRITICAL" not in "".join(running.log)


def test_a_storm_of_a_thousand(serve, lond, mode, part_env):
    """Everything that does not end it, at parent and child, while a client works."""
    running = serve({"one": lond, "two": lond}, processes=mode, start="eager", env=part_env)
    ended = threading.Event()
    child = running.process_of("one") if mode == "per-host" else None

    def storm():
        for number in range(1000):
            running.send((*REREAD, signal.SIGUSR1)[number % 3])
            if child:
                os.kill(child, (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)[number % 3])
        ended.set()

    thread = threading.Thread(target=storm, daemon=True)
    thread.start()
    with running.client("one") as client:
        number = 0
        while not ended.is_set() or number < 100:
            assert client.request(b"echo:%d" % number) == b"%d" % number
            number += 1
    thread.join()
    assert child is None or running.process_of("one") == child
    running.send(signal.SIGUSR1)
    assert running.end() == 0
    assert nothing_left(running)
    assert "CRITICAL" not in "".join(running.log)
