"""`lonc delayed`: list, show, retry, drop."""

from __future__ import annotations

import fcntl
import threading

import pytest

from lonc.lond import Peer
from lonc.lond.faults import Fault
from tests.conftest import wait_until
from tests.daemon.site import DEADLINE, site

__all__ = ["site"]

FIRST, SECOND = "1000000001.0.77", "1000000002.0.77"


@pytest.fixture
def two(site):
    """Two messages, the second to be encrypted; no daemon."""
    site.configure({"msul1": ("127.0.0.1", 1)})
    site.delay("msul1", b"log:msu:korte:hunter2", 1)
    site.delay("msul1", b"encrypt:passwd:msu:korte:hunter2", 2)
    return site


def rows(done):
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split(maxsplit=6) for line in done.stdout.splitlines()[2:]]


def refused(done, status):
    assert (done.returncode, done.stdout) == (status, "")
    [line] = done.stderr.splitlines()
    return line.removeprefix("lonc: ")


def test_list(two):
    aside = two.delayed / "failed"
    aside.mkdir()
    (aside / "7.0.1.hunter2.msul1").write_bytes(b"put:msu:korte:hunter2")
    (two.delayed / "5.0.1.hunter2.\x1b[31mred").write_bytes(b"hunter2\n")
    done = two.run("delayed", "list")
    head, _, *lines = done.stdout.splitlines()
    assert head.split() == ["message", "host", "command", "bytes", "age", "state"]
    found = [[*row[:4], " ".join(row[6:])] for row in rows(done)]
    assert found == [
        ["5.0.1", "\\x1b[31mred", "hunter2", "8", "waiting"],
        [FIRST, "msul1", "log", "22", "waiting"],
        [SECOND, "msul1", "passwd", "33", "waiting"],
        ["7.0.1", "msul1", "put", "21", "set aside"],
    ]


def test_show_tells_no_arguments_unless_told_to(two):
    done = two.run("delayed", "show", SECOND)
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert done.returncode == 0
    assert lines["message"] == SECOND
    assert lines["host"] == "msul1"
    assert lines["command"] == "passwd"
    assert lines["state"] == "waiting"
    assert "hunter2" not in done.stdout
    done = two.run("delayed", "show", "--show-arguments", FIRST, SECOND)
    commands = [line for line in done.stdout.splitlines() if line.startswith("command")]
    assert commands == [
        "command  log:msu:korte:hunter2",
        "command  encrypt:passwd:msu:korte:hunter2",
    ]


@pytest.mark.parametrize("epoch", ["9" * 20, "9" * 17, "9" * 230])
def test_show_what_was_given_at_no_time(two, epoch):
    """A file's name may hold any number."""
    (two.delayed / f"{epoch}.1.2.log.msul1").write_bytes(b"log:msu:korte:hunter2\n")
    done = two.run("delayed", "show", f"{epoch}.1.2")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"given    {epoch}\n" in done.stdout


def test_drop(two):
    done = two.run("delayed", "drop", FIRST, f"{SECOND}.passwd.msul1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{FIRST} for msul1 was dropped.\n{SECOND} for msul1 was dropped.\n"
    assert two.messages() == []
    assert two.records() == ["F:msul1:log:msu:korte:hunter2", "F:msul1:passwd"]


def test_drop_what_can_never_be_sent(two):
    (two.delayed / "3.0.1.x.msul1").write_bytes(b"")
    aside = two.delayed / "failed"
    aside.mkdir()
    (aside / "4.0.1.x.msul1").write_bytes(b"a\nb\n")
    (aside / "5.0.1.x.msul1").write_bytes(b"log:a")
    assert two.run("delayed", "drop", "3.0.1", "4.0.1", "5.0.1").returncode == 0
    assert len(two.messages()) == 2
    assert list(aside.iterdir()) == []
    # What was set aside has been recorded then.
    assert two.records() == []


def test_what_is_being_sent_is_not_dropped(two):
    with open(two.delayed / f"{FIRST}.log.msul1", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "is being sent just now" in refused(two.run("delayed", "drop", FIRST), 1)
    assert len(two.messages()) == 2
    assert two.records() == []


def test_retry_without_a_daemon(two):
    done = two.run("delayed", "retry", FIRST)
    assert done.returncode == 0
    assert done.stdout == f"{FIRST} for msul1 waits to be sent.\n"
    assert "no daemon runs" in done.stderr


def test_retry_brings_back_what_was_set_aside(site):
    with Peer() as peer:
        peer.faults.add(Fault("say", command="log", text=b"refused", count=1))
        site.configure({"msul1": peer}, delayed_attempts=1, delayed_scan=3600)
        site.delay("msul1", b"log:msu:korte:again", 1)
        site.start()
        site.logged("was set aside")
        done = site.run("delayed", "retry", FIRST)
        assert (done.returncode, done.stderr) == (0, "")
        site.logged("delivered")
        wait_until(lambda: not site.messages(), DEADLINE)
        assert peer.executed == {b"log:msu:korte:again": 2}
    assert site.records() == ["F:msul1:log:msu:korte:again", "S:msul1:log:msu:korte:again"]
    assert list((site.delayed / "failed").iterdir()) == []


def test_drop_beside_a_running_daemon(site):
    """The daemon goes on with the next one."""
    asked, answer = threading.Event(), threading.Event()

    def handle(command):
        asked.set()
        answer.wait(DEADLINE)
        return b"ok"

    with Peer(handler=handle) as peer:
        site.configure({"msul1": peer}, delayed_scan=3600)
        for number in range(1, 4):
            site.delay("msul1", b"log:%d" % number, number)
        site.start()
        assert asked.wait(DEADLINE)
        assert site.run("delayed", "drop", FIRST).returncode == 1
        assert site.run("delayed", "drop", SECOND).returncode == 0
        answer.set()
        wait_until(lambda: not site.messages(), DEADLINE)
        assert peer.executed == {b"log:1": 1, b"log:3": 1}
    assert site.records() == ["F:msul1:log:2", "S:msul1:log:1", "S:msul1:log:3"]


def test_a_name_that_is_none_or_not_enough(two):
    assert refused(two.run("delayed", "show", "nothing"), 2) == (
        "MESSAGE nothing: there is none of this name"
    )
    two.delay("other", b"log:x", 1)
    assert refused(two.run("delayed", "drop", FIRST), 2) == (
        f"MESSAGE {FIRST}: there are 2; give the file's name"
    )
    assert len(two.messages()) == 3


def test_a_daemon_without_delayed_messages(site):
    site.configure({"msul1": ("127.0.0.1", 1)}, delayed_dir="")
    assert "delayed_dir is not set" in refused(site.run("delayed", "list"), 2)


def test_an_empty_directory_and_none(two):
    two.run("delayed", "drop", FIRST, SECOND)
    assert rows(two.run("delayed", "list")) == []
    two.delayed.rmdir()
    assert rows(two.run("delayed", "list")) == []


@pytest.mark.parametrize("words", [[], ["lsit"], ["show"], ["drop", "--all"]])
def test_words_that_are_wrong(two, words):
    done = two.run("delayed", *words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
