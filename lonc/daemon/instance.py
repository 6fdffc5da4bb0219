"""The pid file, and the lock on it that keeps a second instance away."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

from lonc.errors import LoncError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lonc.daemon.settings import DaemonSettings

# Seconds between two tries to get the lock of children that outlive their parent.
_POLL = 0.05

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class AnotherInstance(LoncError):
    """Another daemon holds the pid file; the text says which."""


class PidFile:
    """A file that holds `<pid>\\n` and is locked for as long as a process of the daemon lives.

    Children inherit the lock.  So those of a parent that was killed keep it until they have
    drained, and the next parent waits for them.
    """

    __slots__ = ("_fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1

    def acquire(self, patience: float) -> None:
        """Lock the file and write this process's number into it.

        Where the process whose number is in the file is gone, and only its children hold the lock,
        waits for them, `patience` seconds at most.

        Raises AnotherInstance, or UsageError if the file cannot be made.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                fd = os.open(self.path, _FLAGS, 0o644)
            except OSError as error:
                raise UsageError(
                    f"pid_file {self.path} cannot be made: {error.strerror}"
                ) from None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(fd), os.stat(self.path)):
                    break
            except BlockingIOError:
                holder = _read_pid(fd)
                if _is_alive(holder):
                    os.close(fd)
                    raise AnotherInstance(
                        f"another instance runs (pid {holder}): it holds {self.path}"
                    ) from None
                if time.monotonic() > deadline:
                    os.close(fd)
                    raise AnotherInstance(
                        f"processes of an instance that was killed (pid {holder or 'unknown'}) do"
                        f" not end: `fuser {self.path}` shows them"
                    ) from None
                time.sleep(_POLL)
            except FileNotFoundError:
                # Its last holder removed it between our opening and locking it.
                pass
            os.close(fd)
        self._fd = fd
        self.write()

    def write(self) -> None:
        """Write this process's number, as after it has moved to the background."""
        line = b"%d\n" % os.getpid()
        # In this order nobody ever finds the file empty.
        os.pwrite(self._fd, line, 0)
        os.ftruncate(self._fd, len(line))

    def release(self) -> None:
        """Remove the file and give the lock back; children that are left keep theirs.

        A file that is not the one that was locked is another daemon's, and stays.
        """
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(self._fd), os.stat(self.path)):
                    os.unlink(self.path)
            os.close(self._fd)
            self._fd = -1


def pid_file_path(settings: DaemonSettings) -> str:
    """Return where the pid file is; without the setting `pid_file`, beside the sockets."""
    return settings.pid_file or os.path.join(settings.socket_dir, ".lonc.pid")


def running_pid(path: str) -> int | None:
    """Return the process that holds the pid file at `path`; None if no daemon runs.

    A number that a killed daemon left behind is not believed: somebody else may have it by now.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = _read_pid(fd)
        return pid if _is_alive(pid) else None
    finally:
        os.close(fd)
    return None


def _read_pid(fd: int) -> int | None:
    text = os.pread(fd, 20, 0).strip()
    return int(text) if text.isdigit() else None


def _is_alive(pid: int | None) -> bool:
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
