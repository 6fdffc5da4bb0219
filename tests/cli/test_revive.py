"""`lonc revive`, with a real daemon."""

from __future__ import annotations

import pytest

from lonc.client import Client, ClientError
from lonc.lond import Peer
from tests.daemon.site import DEADLINE, site

__all__ = ["site"]


def make_dead(site, name):
    while f"{name} >>> DEAD" not in site.log() and "is DEAD" not in site.log():
        with Client(site.home / name, DEADLINE) as client:
            try:
                client.request(b"ping")
            except ClientError:
                pass


def configure(site, peer, dialect):
    site.configure(
        {"msul1": peer},
        connection_retries=1,
        retry_first=3600,
        retry_longest=3600,
        dialect=dialect,
    )


@pytest.mark.parametrize("dialect", ["classic", "versioned", "line"])
def test_a_dead_host_is_tried_at_once(site, dialect):
    with Peer(dialect=dialect) as peer:
        peer.stop()
        configure(site, peer, dialect)
        daemon = site.start()
        make_dead(site, "msul1")
        peer.start()
        done = site.run("revive", "msul1")
        assert (done.returncode, done.stderr) == (0, "")
        if dialect == "line":
            expected = f"USR1 was sent to the daemon (pid {daemon.pid}): all hosts get a fresh"
        else:
            expected = "msul1 has a fresh"
        assert done.stdout == f"{expected} budget of retries.\n"
        while not _answers(site):
            pass
        # The peer has never seen the word: it is between lonc and this command.
        assert b"reset_retries" not in peer.executed


def _answers(site):
    with Client(site.home / "msul1", DEADLINE) as client:
        try:
            return client.request(b"ping") == b"msul1"
        except ClientError:
            return False


@pytest.mark.parametrize("dialect", ["versioned", "line"])
def test_without_a_daemon(site, dialect):
    configure(site, ("127.0.0.1", 1), dialect)
    # A number that was left behind is nobody to send a signal to.
    site.pid_file.write_text("1\n")
    done = site.run("revive", "msul1")
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    nobody = f"no daemon runs: nobody holds {site.pid_file}"
    assert (nobody if dialect == "line" else "cannot connect") in line


def test_a_host_that_is_not_there(site):
    configure(site, ("127.0.0.1", 1), "line")
    done = site.run("revive", "msul2")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lonc: HOST msul2: there is no such host; there are msul1\n"
