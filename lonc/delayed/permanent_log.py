"""The permanent log: the audit trail of commands that must get there."""

from __future__ import annotations

import errno
import os
import stat
import time

from lonc.delayed.system import System, sync_directory
from lonc.wire.dialects import VERSIONED
from lonc.wire.requests import command_word, parse

DELAYED = "D"
SENT = "S"
FAILED = "F"


class PermanentLog:
    """Appends records `<epoch>:<D|S|F>:<host>:<command>:<local time>` to a file.

    It is the one place where the arguments of a command are written down, so only its owner may
    read it; of a command to be encrypted it holds the command word alone. Several processes write
    to it, LON-CAPA's own client among them: a record is one write at the end of the file.
    """

    def __init__(self, path: str, system: System | None = None) -> None:
        self.path = path
        self._system = system or System()
        self._cut = False

    def check(self) -> None:
        """Make the file if it is not there; raises OSError where no record could be written."""
        self._system.close(self._open())

    def record(self, kind: str, host: str, command: bytes) -> None:
        """Write a record, and return when it is on the disk.

        kind: DELAYED, SENT or FAILED. host: the id of the peer. command: the whole request,
        without its line feed. Raises OSError, and then the record counts as not written.
        """
        now = self._system.time()
        data = b"%d:%b:%b:%b:%b\n" % (
            int(now),
            kind.encode(),
            host.encode(),
            _recorded(command),
            time.ctime(now).encode(),
        )
        if self._cut:
            data = b"\n" + data
        fd = self._open()
        try:
            written = self._system.write(fd, data)
            self._cut = 0 < written < len(data)
            if written < len(data):
                raise OSError(errno.ENOSPC, "only a part of the record could be written", self.path)
            self._system.fsync(fd)
        finally:
            self._system.close(fd)

    def _open(self) -> int:
        """Opened for each record: it may have been moved away, and records are few."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        try:
            fd = self._system.open(self.path, flags)
            is_new = False
        except FileNotFoundError:
            fd = self._system.open(self.path, flags | os.O_CREAT, 0o600)
            is_new = True
        try:
            if is_new:
                sync_directory(self._system, os.path.dirname(self.path) or ".")
            else:
                self._narrow(fd)
        except BaseException:
            self._system.close(fd)
            raise
        return fd

    def _narrow(self, fd: int) -> None:
        """Take others' permissions off a file of ours that an older program made."""
        status = self._system.fstat(fd)
        if stat.S_IMODE(status.st_mode) & 0o077 and status.st_uid == os.geteuid():
            self._system.fchmod(fd, 0o600)


def _recorded(command: bytes) -> bytes:
    # `encrypt:` is kept out of the log whatever the host's dialect makes of it.
    if parse(command, VERSIONED).encrypted:
        return command_word(command, VERSIONED).encode()
    return command
