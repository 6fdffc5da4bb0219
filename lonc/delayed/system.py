"""The system calls that delayed messages go through."""

from __future__ import annotations

import fcntl
import os
import time

# Descriptors must not reach a program that is executed: each one may hold a lock.
READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC


class System:
    """The operating system, as far as delayed messages need it.

    Each method is the call of that name, with its arguments and its OSError. A test puts another
    object in its place: one that stops after a given call, fails a call, or keeps a disk of its own
    that forgets what was not synced.
    """

    close = staticmethod(os.close)
    fchmod = staticmethod(os.fchmod)
    fstat = staticmethod(os.fstat)
    fsync = staticmethod(os.fsync)
    getpid = staticmethod(os.getpid)
    link = staticmethod(os.link)
    listdir = staticmethod(os.listdir)
    lstat = staticmethod(os.lstat)
    mkdir = staticmethod(os.mkdir)
    open = staticmethod(os.open)
    read = staticmethod(os.read)
    rename = staticmethod(os.rename)
    stat = staticmethod(os.stat)
    time = staticmethod(time.time)
    unlink = staticmethod(os.unlink)
    write = staticmethod(os.write)

    def flock(self, fd: int) -> bool:
        """Take the lock of an open file for as long as it is open; False where another has it."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def writable(self, directory: str) -> bool:
        """Whether names can be made in and removed from `directory`, as far as this can be told."""
        return os.access(directory, os.W_OK | os.X_OK)


def write_all(system: System, fd: int, data: bytes) -> None:
    """Write `data` however many calls it takes. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[system.write(fd, rest) :]


def sync_directory(system: System, path: str) -> None:
    """Make the names in a directory outlive a power cut. Raises OSError."""
    fd = system.open(path, READ_FLAGS | os.O_DIRECTORY)
    try:
        system.fsync(fd)
    finally:
        system.close(fd)
