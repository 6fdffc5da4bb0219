"""What is a delayed message, in which order, and what happens to its file."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from lonc.delayed import Directory, System
from lonc.delayed.directory import Busy, Unusable
from lonc.errors import UsageError


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "delayed"
    path.mkdir()
    return Directory(str(path))


def put(directory, name, content=b"ping\n", changed=1000.0):
    path = os.path.join(directory.path, name)
    with open(path, "wb") as file:
        file.write(content)
    os.utime(path, (changed, changed))
    return path


def names(directory, host=None):
    return [entry.name for entry in directory.entries(host)]


def claim(directory, largest=1000):
    return directory.claim(directory.entries()[0], largest)


def test_added_command_is_one_file_for_its_owner(directory):
    name = directory.add(b"put:msu:korte:environment:a=b", "msul1", "put")
    assert os.listdir(directory.path) == [name]
    path = os.path.join(directory.path, name)
    with open(path, "rb") as file:
        assert file.read() == b"put:msu:korte:environment:a=b\n"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.stat(path).st_nlink == 1
    (entry,) = directory.entries("msul1")
    assert entry.label.endswith(f".0.{os.getpid()}")


def test_added_commands_never_share_a_name(directory, monkeypatch):
    monkeypatch.setattr(System, "time", staticmethod(lambda: 5.0))
    added = [directory.add(b"%d" % n, "msul1", "put") for n in range(20)]
    assert sorted(os.listdir(directory.path)) == sorted(set(added))
    assert [claim_and_remove(directory) for _ in added] == [b"%d" % n for n in range(20)]


def claim_and_remove(directory):
    message = claim(directory)
    directory.remove(message)
    return message.command


def test_name_that_another_writer_holds_is_not_replaced(directory, monkeypatch):
    monkeypatch.setattr(System, "time", staticmethod(lambda: 5.0))
    theirs = put(directory, f"5.0.{os.getpid()}.put.msul1", b"theirs")
    assert directory.add(b"ours", "msul1", "put") == f"5.1.{os.getpid()}.put.msul1"
    with open(theirs, "rb") as file:
        assert file.read() == b"theirs"


@pytest.mark.parametrize("host", ["", "../msul1", "a/b"])
def test_host_that_cannot_be_in_a_name(directory, host):
    with pytest.raises(ValueError, match="id of a host"):
        directory.add(b"ping", host, "ping")
    assert os.listdir(directory.path) == []


def test_host_is_all_that_follows_the_fourth_dot(directory):
    put(directory, "1062000000.0.4711.put.l.2.msu-x_1")
    put(directory, "1062000000.0.4711.put.2")
    assert names(directory, "l.2.msu-x_1") == ["1062000000.0.4711.put.l.2.msu-x_1"]
    assert names(directory, "2") == ["1062000000.0.4711.put.2"]
    assert directory.hosts() == {"l.2.msu-x_1", "2"}


@pytest.mark.parametrize(
    "name",
    ["README", "1.2.3.put", "1.2.3.put.", "x.2.3.put.msul1", "1.-2.3.put.msul1", "1..3.put.msul1",
     ".1.2.3.put.msul1.tmp", "1.2.3x.put.msul1", "\u0661.2.3.put.msul1"],
)  # fmt: skip
def test_files_of_others_are_let_be(directory, name):
    put(directory, name)
    assert directory.entries() == []
    assert directory.hosts() == set()


def test_what_is_no_regular_file_is_let_be(directory, tmp_path):
    target = tmp_path / "secret"
    target.write_text("put:a\n")
    os.symlink(target, os.path.join(directory.path, "1.0.1.put.msul1"))
    os.mkdir(os.path.join(directory.path, "2.0.1.put.msul1"))
    os.mkfifo(os.path.join(directory.path, "3.0.1.put.msul1"))
    assert directory.entries() == []


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/etc/hostname", path)])
def test_file_replaced_by_something_else_is_not_followed(directory, make):
    path = put(directory, "1.0.1.put.msul1")
    (entry,) = directory.entries()
    os.unlink(path)
    make(path)
    with pytest.raises((Unusable, Busy)):
        directory.claim(entry, 1000)


def test_file_replaced_by_another_message_is_listed_anew(directory):
    path = put(directory, "1.0.1.put.msul1", b"old")
    (entry,) = directory.entries()

    class Replacing(System):
        def flock(self, fd):
            os.unlink(path)
            put(directory, "1.0.1.put.msul1", b"new")
            return super().flock(fd)

    with pytest.raises(FileNotFoundError):
        Directory(directory.path, Replacing()).claim(entry, 1000)


def test_order_is_epoch_then_time_of_change_then_count(directory):
    put(directory, "999.5.1.put.msul1", changed=9999)
    put(directory, "1000.10.1.put.msul1", changed=50)
    put(directory, "1000.9.1.put.msul1", changed=50)
    put(directory, "1000.11.1.put.msul1", changed=40)
    put(directory, "1000.0.2.put.msul1", changed=60)
    assert names(directory) == [
        "999.5.1.put.msul1",
        "1000.11.1.put.msul1",
        "1000.9.1.put.msul1",
        "1000.10.1.put.msul1",
        "1000.0.2.put.msul1",
    ]


@pytest.mark.parametrize(
    ("age", "wait"), [(0, 5), (4.5, 0.5), (5, 0), (100, 0), (-1, 4), (-100_000, 0)]
)
def test_settling(directory, age, wait):
    put(directory, "1.0.1.put.msul1", changed=1000.0)

    class Clock(System):
        time = staticmethod(lambda: 1000.0 + age)

    (entry,) = directory.entries()
    assert Directory(directory.path, Clock()).unsettled(entry, 5.0) == pytest.approx(wait)


@pytest.mark.parametrize("content", [b"ping", b"ping\n"])
def test_command_with_or_without_line_feed(directory, content):
    put(directory, "1.0.1.ping.msul1", content)
    message = claim(directory)
    assert message.command == b"ping"
    directory.release(message)


def test_any_bytes_but_a_line_feed(directory):
    command = bytes(byte for byte in range(256) if byte != 10)
    put(directory, "1.0.1.put.msul1", command + b"\n")
    message = claim(directory)
    assert message.command == command
    directory.release(message)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"x" * 101, "longer than the 100 bytes"),
        (b"x" * 101 + b"\n", "longer than the 100 bytes"),
        (b"x" * 5000, "longer than the 100 bytes"),
        (b"ping\npong\n", "more than one line"),
        (b"ping\n\n", "more than one line"),
    ],
)
def test_files_that_cannot_be_sent(directory, content, why):
    put(directory, "1.0.1.ping.msul1", content)
    with pytest.raises(Unusable, match=why):
        claim(directory, largest=100)


@pytest.mark.parametrize("content", [b"x" * 100, b"x" * 100 + b"\n"])
def test_longest_command(directory, content):
    put(directory, "1.0.1.ping.msul1", content)
    message = claim(directory, largest=100)
    assert len(message.command) == 100
    directory.release(message)


def test_huge_file_is_not_read_whole(directory):
    path = put(directory, "1.0.1.put.msul1", b"")
    os.truncate(path, 1 << 40)
    read = []

    class Counting(System):
        def read(self, fd, size):
            data = os.read(fd, size)
            read.append(len(data))
            return data

    (entry,) = directory.entries()
    with pytest.raises(Unusable, match="longer"):
        Directory(directory.path, Counting()).claim(entry, 1000)
    assert sum(read) <= 1002


def test_claimed_file_is_locked_until_it_is_let_go(directory):
    put(directory, "1.0.1.ping.msul1")
    message = claim(directory)
    with pytest.raises(Busy):
        claim(directory)
    directory.release(message)
    again = claim(directory)
    directory.remove(again)
    assert os.listdir(directory.path) == []


def test_lock_of_another_process(directory):
    path = put(directory, "1.0.1.ping.msul1")
    program = (
        "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(Busy):
            claim(directory)
        holder.stdin.close()
    directory.release(claim(directory))


def test_lock_goes_with_an_executed_program(directory):
    put(directory, "1.0.1.ping.msul1")
    message = claim(directory)
    assert not os.get_inheritable(message.fd)
    directory.release(message)


def test_file_that_changed_since_it_was_listed_is_let_be(directory):
    path = put(directory, "1.0.1.ping.msul1", b"pi")
    (entry,) = directory.entries()
    with open(path, "ab") as file:
        file.write(b"ng\n")
    with pytest.raises(Busy):
        directory.claim(entry, 1000)


def test_file_that_is_gone(directory):
    path = put(directory, "1.0.1.ping.msul1")
    (entry,) = directory.entries()
    os.unlink(path)
    with pytest.raises(FileNotFoundError):
        directory.claim(entry, 1000)


def test_move_aside_and_back(directory):
    put(directory, "1.0.1.ping.msul1", b"ping\n")
    directory.move(directory.entries()[0], directory.failed)
    assert names(directory) == []
    assert names(directory.failed) == ["1.0.1.ping.msul1"]
    assert stat.S_IMODE(os.stat(directory.failed.path).st_mode) == 0o700
    directory.failed.move(directory.failed.entries()[0], directory)
    assert names(directory) == ["1.0.1.ping.msul1"]
    assert names(directory.failed) == []


def test_move_replaces_nothing(directory):
    for content in (b"first", b"second", b"third"):
        put(directory, "1.0.1.ping.l.2", content)
        directory.move(directory.entries()[0], directory.failed)
    assert names(directory.failed, "l.2") == [
        "1.0.1.ping.l.2",
        "1.1.1.ping.l.2",
        "1.2.1.ping.l.2",
    ]
    found = [claim_and_remove(directory.failed) for _ in range(3)]
    assert found == [b"first", b"second", b"third"]


def test_missing_directory_has_no_messages(tmp_path):
    directory = Directory(str(tmp_path / "none"))
    assert directory.entries() == []
    assert directory.hosts() == set()


def test_check(directory, tmp_path):
    directory.check()
    os.chmod(directory.path, 0o777)
    with pytest.raises(UsageError, match="chmod o-w"):
        directory.check()
    with pytest.raises(UsageError, match="No such file"):
        Directory(str(tmp_path / "none")).check()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="not a directory"):
        Directory(str(tmp_path / "file")).check()
