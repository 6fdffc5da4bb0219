"""Delayed messages with a real daemon: from the directory to the peer, whatever is killed."""

from __future__ import annotations

import collections
import contextlib
import fcntl
import random
import signal
import socket
import threading
import time

import pytest

from lonc.client import Client, ConnectionLost
from lonc.lond import Peer
from lonc.lond.faults import Fault
from tests.conftest import wait_until
from tests.daemon.site import DEADLINE, children_of, kill


def delivered(site):
    """Wait until no message waits and each has been recorded."""
    wait_until(lambda: not site.messages(), DEADLINE)


@pytest.mark.parametrize("processes", ["per-host", "single"])
def test_a_message_is_delivered_recorded_and_removed(site_of_part, processes):
    site = site_of_part
    with Peer() as peer:
        site.configure({"msul1": peer, "other": peer}, processes=processes, delayed_scan=0.2)
        daemon = site.start()
        # Nobody needs the hosts yet.
        assert children_of(daemon.pid) == set()
        site.delay("msul1", b"log:msu:korte:hello")
        delivered(site)
        site.logged("SUCCESS: Delayed message 1000000000.0.77 (log) for msul1 delivered")
        assert peer.executed == {b"log:msu:korte:hello": 1}
        assert site.records() == ["S:msul1:log:msu:korte:hello"]
        assert site.perm_log.stat().st_mode & 0o777 == 0o600
        # The other host was left alone: nothing waits for it.
        assert len(children_of(daemon.pid)) == (processes == "per-host")
        assert peer.complaints == []


def test_what_waits_before_the_start_is_sent(site, peer):
    site.configure({"msul1": peer})
    site.delay("msul1", b"log:msu:korte:early")
    site.delay("stranger", b"log:msu:korte:nobody's")
    site.start()
    wait_until(lambda: site.messages() == ["1000000000.0.77.log.stranger"], DEADLINE)
    assert peer.executed == {b"log:msu:korte:early": 1}


def test_usr1_looks_at_once(site, peer):
    site.configure({"msul1": peer}, delayed_scan=3600)
    daemon = site.start()
    for number in range(3):
        site.delay("msul1", b"log:msu:korte:%d" % number, number)
        daemon.send_signal(signal.SIGUSR1)
        delivered(site)
    assert peer.served == 3


@pytest.mark.parametrize("processes", ["per-host", "single"])
@pytest.mark.parametrize("change", ["perm_log", "both taken out"])
def test_the_permanent_log_of_a_running_host_after_a_reload(site, peer, processes, change):
    """Another file is used at once. Without one, the old one as long as there are messages."""
    how = {"processes": processes, "delayed_scan": 3600}
    site.configure({"msul1": peer}, **how)
    daemon = site.start()
    site.delay("msul1", b"log:msu:korte:before")
    daemon.send_signal(signal.SIGUSR1)
    delivered(site)
    before = ["S:msul1:log:msu:korte:before"]
    assert site.records() == before
    if change == "perm_log":
        old, site.perm_log = site.perm_log, site.home / "other.log"
        site.configure({"msul1": peer}, **how)
    else:
        old = None
        site.configure({"msul1": peer}, delayed_dir="", perm_log="", **how)
    daemon.send_signal(signal.SIGHUP)
    site.logged("configuration read again")
    site.delay("msul1", b"log:msu:korte:after")
    daemon.send_signal(signal.SIGUSR1)
    delivered(site)
    after = ["S:msul1:log:msu:korte:after"]
    assert site.records() == (after if old else before + after)
    assert not old or old.read_text().count("\n") == 1


def test_the_first_connection_of_a_host_looks_at_once(site, peer):
    site.configure({"msul1": peer}, delayed_scan=3600)
    site.start()
    site.delay("msul1", b"log:msu:korte:waited")
    with Client(site.home / "msul1", DEADLINE) as client:
        assert client.request(b"ping") == b"msul1"
        delivered(site)
    assert peer.executed[b"log:msu:korte:waited"] == 1


def test_a_young_message_is_left_alone_until_it_has_settled(site, peer):
    site.configure({"msul1": peer}, delayed_settle=1, delayed_scan=3600)
    path = site.delay("msul1", b"log:msu:korte:half")
    site.start()
    with Client(site.home / "msul1", DEADLINE) as client:
        assert client.request(b"ping") == b"msul1"
    # Its writer goes on in place, as LON-CAPA's client does.
    path.write_bytes(b"log:msu:korte:whole\n")
    written = time.time()
    delivered(site)
    assert time.time() - written >= 0.9
    assert peer.executed == {b"ping": 1, b"log:msu:korte:whole": 1}


def test_one_after_another_in_the_order_of_their_time(site):
    order = []
    running = []

    def handle(command):
        running.append(command)
        assert len(running) == 1
        order.append(command)
        running.remove(command)
        return b"ok"

    numbers = list(range(60))
    with Peer(handler=handle) as peer:
        site.configure({"msul1": peer}, delayed_scan=3600)
        for number in random.Random(7).sample(numbers, len(numbers)):
            # Ten digits and fewer: their order is that of numbers, not of texts.
            site.delay("msul1", b"log:msu:korte:%d" % number, (number - 20) * 40_000_000)
        site.start()
        delivered(site)
        assert peer.complaints == []
    assert order == [b"log:msu:korte:%d" % number for number in numbers]
    assert site.records() == [f"S:msul1:log:msu:korte:{number}" for number in numbers]


def test_clients_go_first(site):
    """A message gets the connection when no client wants it, even if it came first."""
    order = []
    busy, go_on = threading.Event(), threading.Event()

    def handle(command):
        order.append(command)
        busy.set()
        go_on.wait(DEADLINE)
        return b"ok"

    with Peer(handler=handle) as peer, contextlib.ExitStack() as clients:

        def ask(request):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(DEADLINE)
            client.connect(str(site.home / "msul1"))
            client.sendall(request)
            return client

        site.configure({"msul1": peer}, max_connections=1, delayed_scan=0.1)
        site.start()
        asking = [ask(b"client\n")]
        assert busy.wait(DEADLINE)
        path = site.delay("msul1", b"message")
        wait_until(lambda: _is_locked(path), DEADLINE)
        asking += [ask(b"client\n") for _ in range(4)]
        for _ in range(2):
            # Answered by lonc itself, after it has taken what came before.
            assert ask(b"reset_retries\n").recv(100) == b"ok\n"
        go_on.set()
        for client in asking:
            assert client.recv(100) == b"ok\n"
        delivered(site)
    assert order == 5 * [b"client"] + [b"message"]


def _is_locked(path):
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@pytest.mark.parametrize("answer", [b"error: no disk", b"refused", b"unknown_cmd"])
def test_an_error_is_tried_again_then_set_aside(site, answer):
    with Peer() as peer:
        peer.faults.add(Fault("say", command="log", text=answer, count=3))
        site.configure({"msul1": peer}, delayed_attempts=3, delayed_scan=0.1)
        bad = site.delay("msul1", b"log:msu:korte:bad", 1)
        site.delay("msul1", b"put:msu:korte:space:k=v", 2)
        site.start()
        delivered(site)
        # The later one was held until the earlier one was set aside.
        assert peer.executed == {b"log:msu:korte:bad": 3, b"put:msu:korte:space:k=v": 1}
    assert site.records() == ["F:msul1:log:msu:korte:bad", "S:msul1:put:msu:korte:space:k=v"]
    failed = site.delayed / "failed" / bad.name
    assert failed.read_bytes() == b"log:msu:korte:bad\n"
    log = site.logged("CRITICAL: Delayed message 1000000001.0.77 (log) for msul1 was set aside")
    assert "attempt 2 of 3" in log
    assert "korte" not in log


def test_a_dead_host_is_tried_as_long_as_a_message_waits(site, peer):
    address = peer.address
    peer.stop()
    site.configure(
        {"msul1": peer},
        connection_retries=1,
        retry_first=0.05,
        retry_longest=0.05,
        delayed_scan=0.1,
        probe_while_asked=0.001,
    )
    site.start()
    site.delay("msul1", b"log:msu:korte:patience")
    site.logged("is DEAD")
    assert site.messages() != []
    peer.start()
    assert peer.address == address
    delivered(site)
    site.logged("is not DEAD any more")
    assert peer.executed[b"log:msu:korte:patience"] == 1


def test_a_file_that_can_never_be_sent_is_set_aside_and_the_rest_goes_on(site, peer):
    site.configure({"msul1": peer}, max_request=100)
    (site.delayed / "1.0.1.put.msul1").write_bytes(b"")
    (site.delayed / "2.0.1.put.msul1").write_bytes(b"a\nb\n")
    (site.delayed / "3.0.1.put.msul1").write_bytes(b"log:" + 101 * b"x")
    (site.delayed / "4.0.1.put.msul1").symlink_to("/etc/passwd")
    (site.delayed / "notes.txt").write_text("somebody's")
    site.delay("msul1", b"log:msu:korte:good")
    site.start()
    wait_until(lambda: peer.served == 1, DEADLINE)
    site.logged("cannot be sent", 3)
    failed = {path.name for path in (site.delayed / "failed").iterdir()}
    assert failed == {"1.0.1.put.msul1", "2.0.1.put.msul1", "3.0.1.put.msul1"}
    assert (site.delayed / "notes.txt").exists()


@pytest.mark.parametrize("how", ["term", "address", "removed"])
def test_a_message_in_flight_is_finished_before_an_orderly_end(site_of_part, how):
    """Its reply is waited for: else it would be sent twice for no reason."""
    site = site_of_part
    asked, answer = threading.Event(), threading.Event()

    def handle(command):
        asked.set()
        answer.wait(DEADLINE)
        return b"ok"

    with Peer(handler=handle) as peer, Peer() as other:
        site.configure({"msul1": peer, "rest": other}, delayed_scan=0.1)
        site.delay("msul1", b"log:msu:korte:once", 1)
        site.delay("msul1", b"log:msu:korte:next", 2)
        daemon = site.start()
        assert asked.wait(DEADLINE)
        if how == "term":
            daemon.terminate()
            site.logged("ending: finishing")
        else:
            hosts = {"rest": other} if how == "removed" else {"msul1": other, "rest": other}
            site.configure(hosts, delayed_scan=0.1)
            daemon.send_signal(signal.SIGHUP)
            site.logged("configuration read again")
            if how == "address":
                # There is a successor, and it finds the message locked.
                wait_until(lambda: _pings(site.home / "msul1"), DEADLINE)
        assert other.executed[b"log:msu:korte:once"] == 0
        answer.set()
        site.logged("(log) for msul1 delivered")
        if how == "address":
            delivered(site)
            assert other.executed[b"log:msu:korte:next"] == 1
        else:
            assert [name[:10] for name in site.messages()] == ["1000000002"]
        if how == "term":
            assert daemon.wait(DEADLINE) == 0
        assert peer.executed[b"log:msu:korte:once"] == 1
        assert peer.executed[b"log:msu:korte:next"] == 0
        assert other.executed[b"log:msu:korte:once"] == 0
    assert site.records()[0] == "S:msul1:log:msu:korte:once"


def _pings(path):
    """Whether a host answers; one that just now began to drain closes instead."""
    with Client(path, DEADLINE) as client:
        try:
            return client.request(b"ping") == b"msul1"
        except ConnectionLost:
            return False


def test_critical_hands_over_to_the_daemon(site, peer):
    """While the peer is away a command is delayed; when it is back it arrives, once."""
    site.configure({"msul1": peer}, retry_first=0.02, retry_longest=0.05, delayed_scan=0.2)
    site.start()
    with Client(site.home / "msul1", DEADLINE) as client:
        assert client.critical(b"log:msu:korte:now", site.perm_log) == b"ok"
        peer.stop()
        assert client.critical(b"log:msu:korte:later", site.perm_log) == b"con_delayed"
        assert client.critical(b"log:msu:korte:last", site.perm_log) == b"con_delayed"
        assert len(site.messages()) == 2
        peer.start()
        delivered(site)
    assert peer.executed == {b"log:msu:korte:%b" % word: 1 for word in (b"now", b"later", b"last")}
    kinds = collections.Counter(record[0] for record in site.records())
    assert kinds == {"D": 2, "S": 2}


def test_critical_without_a_daemon(site, peer):
    site.configure({"msul1": peer})
    with Client(site.home / "msul1", DEADLINE) as client:
        assert client.critical(b"log:msu:korte:early", site.perm_log) == b"con_delayed"
    site.start()
    delivered(site)
    assert peer.executed == {b"log:msu:korte:early": 1}


class Counting:
    """What a peer executed, in the order in which it did."""

    def __init__(self):
        self.order = collections.defaultdict(list)
        self._lock = threading.Lock()

    def handle(self, command):
        _, host, number = command.split(b":")
        with self._lock:
            self.order[host.decode()].append(int(number))
        return b"ok"


def test_nothing_is_lost_whatever_is_killed_and_whenever(site_of_part):
    """Processes are killed at random moments, hundreds of times, while each host has messages.

    One message of a host is on its way at a time: so the end of a host's process can have one sent
    once more, and no other. And none is ever overtaken.
    """
    site = site_of_part
    chance = random.Random()
    hosts = [f"h{number}" for number in range(20)]
    counting = Counting()
    given = 0
    ends = 0
    with Peer(handler=counting.handle, also=hosts) as peer:
        site.configure(dict.fromkeys(hosts, peer), delayed_scan=0.3, drain_timeout=0.2)
        for _ in range(6):
            for number in range(given, given + 10):
                for host in hosts:
                    site.delay(host, b"log:%b:%d" % (host.encode(), number), number)
            given += 10
            daemon = site.start()
            for _ in range(20):
                time.sleep(chance.uniform(0, 0.03))
                children = children_of(daemon.pid)
                if children:
                    kill(chance.choice(list(children)))
                    ends += 1
            children = children_of(daemon.pid)
            site.orphans |= children
            ends += len(children)
            if chance.random() < 0.5:
                # As when the machine goes down. Otherwise they notice, and end by themselves.
                for pid in children:
                    kill(pid)
            daemon.kill()
            daemon.wait()
        site.start()
        delivered(site)
        assert peer.complaints == []
    sent = collections.Counter(site.records())
    again = 0
    for host in hosts:
        order = counting.order[host]
        first = list(dict.fromkeys(order))
        assert first == list(range(given)), host
        again += len(order) - given
        assert all(sent[f"S:{host}:log:{host}:{number}"] for number in first)
    assert ends > 150
    assert again <= ends
