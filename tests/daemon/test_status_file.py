"""The file that LON-CAPA's status pages read."""

from __future__ import annotations

import os
import time

import pytest

from lonc.daemon.status_file import write_status_file

ROWS = [
    (4711, "msul1", "msul1 Connection count: 3 Retries remaining: 5 (insecure)", "SUCCESS: ready"),
    (0, "msul3", "not started", ""),
    (4712, "msul2", "msul2 >>> DEAD !!!! <<<", "CRITICAL: msul2 is DEAD"),
]


def test_layout_byte_for_byte(tmp_path, monkeypatch):
    path = tmp_path / "loncstatus.txt"
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(time, "ctime", lambda: time.asctime(time.gmtime(1062000000)))
    write_status_file(str(path), ROWS)
    monkeypatch.undo()
    time.tzset()
    assert (
        path.read_bytes()
        == (
            f"LONC status Wed Aug 27 16:00:00 2003 - parent {os.getpid()}\n"
            "\n"
            "4711\tmsul1\tmsul1 Connection count: 3 Retries remaining: 5 (insecure)"
            "\tSUCCESS: ready\n"
            "4712\tmsul2\tmsul2 >>> DEAD !!!! <<<\tCRITICAL: msul2 is DEAD\n"
        ).encode()
    )


def test_the_web_server_may_read_it(tmp_path):
    path = tmp_path / "loncstatus.txt"
    before = os.umask(0o077)
    try:
        write_status_file(str(path), ROWS)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_old_file_is_replaced_whole(tmp_path):
    path = tmp_path / "loncstatus.txt"
    path.write_text("old " * 1000)
    with path.open() as reader:
        write_status_file(str(path), [])
        assert reader.read() == "old " * 1000, "a reader saw a part of the new file"
    assert path.read_text().count("\n") == 2
    assert os.listdir(tmp_path) == ["loncstatus.txt"]


@pytest.mark.parametrize("what", ["symlink", "FIFO", "file"])
def test_what_stands_at_the_temporary_name_is_replaced(tmp_path, what):
    """The name can be guessed: what somebody put there is neither followed nor waited for."""
    path, target = tmp_path / "loncstatus.txt", tmp_path / "target"
    target.write_text("somebody's")
    temporary = tmp_path / f"loncstatus.txt.{os.getpid()}"
    if what == "symlink":
        temporary.symlink_to(target)
    elif what == "FIFO":
        os.mkfifo(temporary)
        # A broken program must not wait for a reader for ever.
        reader = os.open(temporary, os.O_RDONLY | os.O_NONBLOCK)
    else:
        os.link(target, temporary)
    write_status_file(str(path), ROWS)
    if what == "FIFO":
        os.close(reader)
    assert path.is_file()
    assert not path.is_symlink()
    assert path.read_text().startswith("LONC status ")
    assert target.read_text() == "somebody's"
    assert sorted(os.listdir(tmp_path)) == ["loncstatus.txt", "target"]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "loncstatus.txt"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_status_file(str(path), ROWS)
    assert os.listdir(tmp_path) == ["loncstatus.txt"]
    with pytest.raises(FileNotFoundError):
        write_status_file(str(tmp_path / "none" / "loncstatus.txt"), ROWS)
