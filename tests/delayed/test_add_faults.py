"""A command that cannot be written down leaves nothing that would be sent."""

from __future__ import annotations

import os

import pytest

from lonc.delayed import Directory, System

from .disks import SimulatedDisk

COMMAND = b"put:msu:korte:environment:a=b"


@pytest.fixture
def disk():
    disk = SimulatedDisk()
    disk.mkdir("/delayed")
    return disk


@pytest.mark.parametrize("room", range(len(COMMAND) + 1))
def test_full_disk(disk, room):
    disk.capacity = room
    with pytest.raises(OSError, match="No space"):
        Directory("/delayed", disk).add(COMMAND, "msul1", "put")
    assert disk.listdir("/delayed") == []


def test_short_writes(disk):
    disk.short = 3
    name = Directory("/delayed", disk).add(COMMAND, "msul1", "put")
    assert disk.content(f"/delayed/{name}") == COMMAND + b"\n"


def test_read_only_directory(disk):
    disk.read_only = True
    with pytest.raises(OSError, match="Read-only"):
        Directory("/delayed", disk).add(COMMAND, "msul1", "put")


@pytest.mark.parametrize("call", ["write", "fsync", "link", "sync of the directory"])
def test_failing_call_leaves_nothing(tmp_path, call):
    """On a real disk, each call that can fail does."""

    class Failing(System):
        def _fail(self, *arguments):
            raise OSError(5, "Input/output error")

        def fsync(self, fd):
            if call == "sync of the directory" and os.path.isdir(f"/proc/self/fd/{fd}"):
                self._fail()

    if call != "sync of the directory":
        setattr(Failing, call, Failing._fail)
    with pytest.raises(OSError, match="Input/output"):
        Directory(str(tmp_path), Failing()).add(COMMAND, "msul1", "put")
    assert os.listdir(tmp_path) == []
