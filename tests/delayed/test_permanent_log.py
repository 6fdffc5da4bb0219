"""Records in the form that LON-CAPA's own tools read, one write each."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import time

import pytest

from lonc.delayed import PermanentLog, System

from .disks import SimulatedDisk


class Clock(System):
    time = staticmethod(lambda: 1062000000.75)


def test_record_byte_for_byte(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    path = tmp_path / "lonnet.perm.log"
    log = PermanentLog(str(path), Clock())
    log.record("D", "msul1", b"put:msu:korte:environment:a=b%3a")
    log.record("S", "msul1", b"\xff\x00")
    log.record("F", "l.2", b"ping")
    assert path.read_bytes() == (
        b"1062000000:D:msul1:put:msu:korte:environment:a=b%3a:Wed Aug 27 16:00:00 2003\n"
        b"1062000000:S:msul1:\xff\x00:Wed Aug 27 16:00:00 2003\n"
        b"1062000000:F:l.2:ping:Wed Aug 27 16:00:00 2003\n"
    )
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("command", "recorded"),
    [
        (b"encrypt:passwd:msu:korte:secret", b"passwd"),
        (b"sethost:msul1:encrypt:passwd:msu:korte:secret", b"passwd"),
        (b"encrypt:se-cret", b"?"),
        (b"encrypt:", b"?"),
        (b"sethost:msul1:put:msu:korte:a=b", b"sethost:msul1:put:msu:korte:a=b"),
    ],
)
def test_encrypted_command_leaves_its_word_only(tmp_path, command, recorded):
    path = tmp_path / "log"
    PermanentLog(str(path), Clock()).record("S", "msul1", command)
    assert path.read_bytes().startswith(b"1062000000:S:msul1:" + recorded + b":")
    assert b"secret" not in path.read_bytes()


def test_only_the_owner_may_read_it(tmp_path):
    path = tmp_path / "log"
    before = os.umask(0)
    try:
        PermanentLog(str(path)).record("D", "msul1", b"ping")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_file_of_an_older_program_is_narrowed_and_continued(tmp_path):
    path = tmp_path / "log"
    path.write_text("1:D:msul1:old:Thu Jan  1 00:00:01 1970\n")
    path.chmod(0o644)
    PermanentLog(str(path)).record("D", "msul1", b"ping")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text().splitlines()) == 2


def test_check_makes_the_file_and_writes_nothing(tmp_path):
    log = PermanentLog(str(tmp_path / "log"))
    log.check()
    assert (tmp_path / "log").read_bytes() == b""
    with pytest.raises(FileNotFoundError):
        PermanentLog(str(tmp_path / "none" / "log")).check()


def test_file_that_was_moved_away_is_made_anew(tmp_path):
    log = PermanentLog(str(tmp_path / "log"))
    log.record("D", "msul1", b"first")
    (tmp_path / "log").rename(tmp_path / "log.1")
    log.record("D", "msul1", b"second")
    assert b"first" in (tmp_path / "log.1").read_bytes()
    assert b"second" in (tmp_path / "log").read_bytes()


def test_one_write_for_a_record(tmp_path):
    written = []

    class Watching(System):
        def write(self, fd, data):
            written.append(bytes(data))
            return os.write(fd, data)

    log = PermanentLog(str(tmp_path / "log"), Watching())
    log.record("S", "msul1", b"x" * 100_000)
    assert len(written) == 1


def test_full_disk_is_an_error():
    disk = SimulatedDisk()
    disk.capacity = 0
    with pytest.raises(OSError, match="No space"):
        PermanentLog("/log", disk).record("S", "msul1", b"ping")


def test_short_write_is_an_error_and_spoils_no_later_record():
    disk = SimulatedDisk()
    log = PermanentLog("/log", disk)
    disk.short = 10
    with pytest.raises(OSError, match="part of the record"):
        log.record("S", "msul1", b"ping")
    disk.short = 1 << 30
    log.record("S", "msul1", b"pong")
    log.record("S", "msul1", b"load")
    cut, *whole = disk.content("/log").split(b"\n")
    assert len(cut) == 10
    assert [bool(re.match(rb"\d+:S:msul1:(pong|load):", line)) for line in whole[:2]] == [True] * 2


def test_processes_share_the_file(tmp_path):
    path = str(tmp_path / "log")
    program = (
        "import sys; from lonc.delayed import PermanentLog\n"
        "log = PermanentLog(sys.argv[1])\n"
        "for n in range(200): log.record('S', sys.argv[2], b'x' * 500)"
    )
    hosts = ("msul1", "msul2", "msul3")
    writers = [subprocess.Popen([sys.executable, "-c", program, path, host]) for host in hosts]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    with open(path, "rb") as file:
        lines = file.read().splitlines()
    assert len(lines) == 600
    record = re.compile(rb"\d+:S:msul[123]:x{500}:\w\w\w \w\w\w [ \d]\d \d\d:\d\d:\d\d \d{4}")
    assert all(record.fullmatch(line) for line in lines)
