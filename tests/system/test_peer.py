"""The daemon between real clients and a peer that is killed, stopped, and comes back."""

from __future__ import annotations

import os
import re

import pytest

from tests.conftest import wait_until
from tests.system.conftest import CONT, DEADLINE, INT, QUIT, STOP, TERM, Traffic


def nothing_wrong(traffic):
    assert (traffic.replies["wrong"], traffic.replies["cut"]) == (0, 0), traffic.replies


@pytest.mark.parametrize("dialect", ["classic", "versioned", "line"])
def test_requests_and_replies(site, dialect):
    lond = site.lond("--dialect", dialect)
    site.serve(dialect)
    with Traffic(site) as traffic:
        traffic.wait_for("right", 300)
    assert traffic.replies == dict.fromkeys(traffic.replies, 0) | {
        "right": traffic.replies["right"]
    }
    assert len(site.ask(b"blob:65536")) == 65536
    # The peer is strict, and has nothing to complain of.
    assert len(lond.said.splitlines()) == 1, lond.said


@pytest.mark.parametrize("revision", ["1.489", "1.100"])
def test_encrypted_requests_and_other_hosts(site, revision):
    lond = site.lond("--also", "other", "--revision", revision)
    site.serve(max_connections=2)
    with Traffic(site, clients=4):
        for i in range(20):
            assert site.ask(b"encrypt:echo:%d" % i) == b"%d" % i
            assert site.ask(b"sethost:other:encrypt:echo:%d" % i) == b"%d" % i
            assert site.ask(b"sethost:other:ping") == b"other"
            assert site.ask(b"ping") == b"msul1"
        assert site.ask(b"encrypt:makeuser:msu:korte:internal:secret") == b"ok"
    assert len(lond.said.splitlines()) == 1, lond.said


def test_the_peer_is_killed_and_comes_back(site):
    lond = site.lond()
    daemon = site.serve(retry_longest=0.2, connection_retries=3)
    with Traffic(site, size=2000) as traffic:
        traffic.wait_for("right", 200)
        for _ in range(2):
            lond.kill()
            traffic.wait_for("con_lost", 50)
            lond = site.lond()
            traffic.wait_for("right", 200)
    nothing_wrong(traffic)
    assert traffic.replies["closed"] == 0
    daemon.wait_for("WARNING: .*cannot be reached|CRITICAL: .*DEAD")
    assert "xxxx" not in daemon.said, "no argument of a request in the log"
    assert not re.search(r"the middle of a line", lond.said)


def test_a_dead_host_is_found_again_without_a_request(site):
    daemon = site.serve(retry_longest=0.2, connection_retries=1)
    assert site.ask(b"ping") == b"con_lost"
    daemon.wait_for("CRITICAL: .*is DEAD")
    site.lond()
    daemon.wait_for("SUCCESS: .*not DEAD any more")
    assert site.ask(b"ping") == b"msul1"


def test_reset_retries(site):
    daemon = site.serve(retry_first=60, connection_retries=1)
    assert site.ask(b"ping") == b"con_lost"
    daemon.wait_for("CRITICAL: .*is DEAD")
    site.lond()
    assert site.ask(b"ping") == b"con_lost"
    assert site.ask(b"reset_retries") == b"ok"
    assert site.ask(b"ping") == b"msul1"


def test_a_peer_that_stands_still(site):
    """Its clients hear con_lost; its late answers go to nobody."""
    lond = site.lond()
    daemon = site.serve(
        reply_timeout=0.5, dialogue_timeout=0.5, connection_retries=99, retry_longest=0.2
    )
    with Traffic(site) as traffic:
        traffic.wait_for("right", 100)
        lond.signal(STOP)
        traffic.wait_for("con_lost", 8)
        lond.signal(CONT)
        traffic.wait_for("right", 200)
    nothing_wrong(traffic)
    daemon.wait_for("reply_timeout")


@pytest.mark.parametrize("signum", [TERM, INT], ids=["TERM", "INT"])
def test_an_orderly_end_in_the_middle_of_traffic(site, signum):
    site.lond()
    daemon = site.serve(drain_timeout=20)
    with Traffic(site) as traffic:
        traffic.wait_for("right", 200)
        daemon.signal(signum)
        assert daemon.end() == 0
    nothing_wrong(traffic)
    # What was taken was finished.
    assert traffic.replies["con_lost"] == 0
    assert not os.path.exists(site.path)


def test_an_end_at_once_in_the_middle_of_traffic(site):
    lond = site.lond()
    daemon = site.serve()
    with Traffic(site) as traffic:
        traffic.wait_for("right", 200)
        daemon.signal(QUIT)
        assert daemon.end() == 0
    nothing_wrong(traffic)
    assert not os.path.exists(site.path)
    assert "the middle of a line" not in lond.said


def test_the_daemon_is_killed_and_started_again(site):
    """Its socket file is stale; connections to the peer end, and nothing of it is left."""
    site.lond()
    site.serve().kill()
    assert os.path.exists(site.path)
    site.serve()
    assert site.ask(b"ping") == b"msul1"


def test_rubbish(site):
    """From many clients at once, while others work."""
    lond = site.lond()
    daemon = site.serve(client_timeout=0.5, max_request=100_000)
    chance = os.urandom(1 << 20)
    with Traffic(site) as traffic:
        for i in range(60):
            start = i * 10_000
            with site.connect() as sock:
                sock.setblocking(False)
                try:
                    sock.send(chance[start : start + (10, 1000, 60_000)[i % 3]])
                    sock.send(b"\n" * (i % 2))
                except OSError:
                    pass
        with site.connect() as sock:
            try:
                sock.sendall(b"x" * 300_000)
            except OSError:
                pass
            assert sock.recv(100) == b"con_lost\n"
        with site.connect() as sock:
            sock.sendall(b"never ended")
            assert sock.recv(100) == b""
        traffic.wait_for("right", 100)
    nothing_wrong(traffic)
    daemon.wait_for("max_request")
    assert daemon.popen.poll() is None
    assert lond.popen.poll() is None
    # Nobody is left in it.
    descriptors = f"/proc/{daemon.popen.pid}/fd"
    wait_until(lambda: len(os.listdir(descriptors)) < 30, DEADLINE)
