"""Listening Unix sockets: they appear whole, and never in the place of one that somebody answers.

The order of opening one:

    lock the directory      two starters take turns; the kernel drops the lock of one that dies
    probe the path          absent or dead goes on, anything else is an error
    bind a temporary name   in the same directory, so that the rename stays in one file system
    mode, owner, listen     nobody can connect before `listen`
    rename                  the socket stands under its name, replacing the dead one
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
import time

from lonc.errors import ListenError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_PATH = 107
"""Bytes of a Unix socket's path: Linux's `sun_path` has 108, the last one for the closing NUL."""

LOCK_WAIT = 5.0
"""Seconds to wait for another starter, which holds the directory for some system calls only."""

LOCK_POLL = 0.01
"""Seconds between two tries to lock the directory."""


class UnixListener(socket.socket):
    """A listening Unix socket that remembers the file it was bound to."""

    file: tuple[int, int, int]
    """Device, inode and time of making, in ns: an inode number alone is given out again."""


def open_unix_listener(
    path: str,
    *,
    mode: int = 0o660,
    owner: str | int | None = None,
    group: str | int | None = None,
    backlog: int = 4096,
) -> UnixListener:
    """Open a listening stream socket at `path`, and return it non-blocking and close-on-exec.

    `mode` is the file's permissions; `owner` and `group` are names or numbers, None for those of
    this process. `backlog` is how many clients the kernel keeps waiting, at most the system's
    `net.core.somaxconn`, whose own default is 4096. A socket file that nobody answers is replaced.
    The directory must be readable, because it is locked meanwhile; this blocks for `LOCK_WAIT`
    seconds at most.

    Raises ListenError, with one line that says what to do, if the path is too long, its directory
    is missing or others may write it, something there answers or is no socket, the owner or group
    does not exist or may not be given, or the system refuses. Nothing is left behind then.
    """
    directory, name = _split(path)
    uid = _account(owner, "socket_owner", lambda user: pwd.getpwnam(user).pw_uid)
    gid = _account(group, "socket_group", lambda group: grp.getgrnam(group).gr_gid)
    # A name of the same length: the longest path has no room for more.
    temporary = path[: -len(name)] + ("=" if name[0] == "~" else "~") + name[1:]
    try:
        check_directory(directory)
        with _locked(directory):
            _check_free(path)
            _check_free(temporary)
            _remove(temporary)
            return _open(path, temporary, mode, uid, gid, backlog)
    except UsageError as error:
        raise ListenError(f"socket {path}: {error}") from None
    except PermissionError as error:
        raise ListenError(
            f"socket {path}: {_reason(error)}: this user must be able to read and write {directory}"
        ) from error
    except OSError as error:
        raise ListenError(f"socket {path}: {_reason(error)}") from error


def remove_unix_listener(path: str, sock: socket.socket) -> bool:
    """Remove the file at `path` if it is the one that `sock` was bound to; return whether it was.

    `sock` is left as it is. It should still be open: as long as it answers no starter puts another
    in its place, so nothing need be locked, and nobody who locks the directory is waited for. If it
    is closed already this waits as opening does. A socket that `open_unix_listener` did not make
    owns no file: nothing is removed. Raises ListenError if the system refuses.
    """
    if not isinstance(sock, UnixListener):
        return False
    answers = sock.fileno() >= 0
    try:
        with contextlib.nullcontext() if answers else _locked(os.path.dirname(path) or "."):
            if _identity(path) != sock.file:
                return False
            os.unlink(path)
            return True
    except FileNotFoundError:
        return False
    except (UsageError, OSError) as error:
        raise ListenError(f"socket {path} cannot be removed: {_reason(error)}") from None


def is_in_place(path: str, sock: socket.socket) -> bool:
    """Return whether the file that `sock` was bound to, and that is open, still is at `path`.

    True for a socket that `open_unix_listener` did not make: whoever made it looks after its file.
    """
    if not isinstance(sock, UnixListener):
        return True
    try:
        # As long as it is open nobody else is given its inode number; and times can be set.
        return _identity(path)[:2] == sock.file[:2]
    except OSError:
        return False


def check_directory(path: str) -> None:
    """Raise UsageError unless `path` is a directory that the world may not write.

    The sticky bit is no excuse: it protects the files that are there, and not the names that are
    yet to come.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise UsageError(f"directory {path} does not exist: make it, or name another") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"directory {path!r} cannot be used: {_reason(error)}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{path} is not a directory")
    if status.st_mode & stat.S_IWOTH:
        mode = stat.S_IMODE(status.st_mode)
        raise UsageError(
            f"directory {path} may be written by every user (mode {mode:04o}): "
            f"run `chmod o-w {path}`, or name another"
        )


def _split(path: str) -> tuple[str, str]:
    """Return directory and name of a path that a socket can have."""
    directory, name = os.path.split(path)
    if not name or "\0" in path:
        raise ListenError(f"socket {path!r}: this is not the path of a file")
    size = len(os.fsencode(path))
    if size > MAX_PATH:
        raise ListenError(
            f"socket {path}: the path has {size} bytes and the system allows {MAX_PATH}: "
            f"{len(os.fsencode(directory))} of the directory {directory} "
            f"and {len(os.fsencode(name))} of the name {name}; use a shorter directory"
        )
    return directory or ".", name


def _account(account: str | int | None, setting: str, find: Callable[[str], int]) -> int:
    """Return the number of a user or group; -1, which changes nothing in `chown`, for None."""
    if account is None:
        return -1
    if isinstance(account, int):
        return account
    try:
        return find(account)
    except (KeyError, ValueError):
        if account.isdecimal():
            return int(account)
        raise ListenError(f"{setting}: this system does not know {account!r}") from None


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Hold `directory` locked against other starters; UsageError if one holds it for too long."""
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + LOCK_WAIT
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                raise UsageError(
                    f"another process keeps its directory locked: `fuser {directory}` shows which"
                )
            time.sleep(LOCK_POLL)
        yield
    finally:
        os.close(lock)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_free(path: str) -> None:
    """Raise UsageError if there is anything at `path` but a socket that nobody answers."""
    name = os.path.basename(path)
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise UsageError(f"{name} is there and is not a socket: move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        error = probe.connect_ex(path)
    if error in (errno.ECONNREFUSED, errno.ENOENT):
        return
    # EAGAIN: the backlog is full. EPROTOTYPE: it is bound, though not to a stream.
    if error in (0, errno.EAGAIN, errno.EPROTOTYPE):
        raise UsageError(f"something answers on {name} already: stop that first")
    raise UsageError(f"cannot tell whether anyone answers on {name}: {os.strerror(error)}")


def _open(path: str, temporary: str, mode: int, uid: int, gid: int, backlog: int) -> UnixListener:
    """Make the socket under its temporary name, whole, and rename it to `path`."""
    sock = UnixListener(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(temporary)
        os.chmod(temporary, mode)
        _give(temporary, uid, gid)
        sock.listen(backlog)
        sock.file = _identity(temporary)
        os.rename(temporary, path)
        return sock
    except BaseException:
        sock.close()
        _remove(temporary)
        raise


def _give(path: str, uid: int, gid: int) -> None:
    try:
        os.chown(path, uid, gid)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot be given to user {uid} and group {gid} (-1: unchanged): {_reason(error)}; "
            "only root may give it to another user, or to a group that this user is not in"
        ) from None


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _identity(path: str) -> tuple[int, int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
