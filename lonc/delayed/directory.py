"""The directory of delayed commands: a file for each, `<epoch>.<count>.<pid>.<word>.<host id>`.

LON-CAPA's own client writes such files in place, under their final name; `add` writes them whole.
A file stays where it is until its command was answered, and is removed or set aside in `failed/`
then; whoever handles it holds its lock.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat

from lonc.delayed.system import READ_FLAGS, System, sync_directory, write_all
from lonc.errors import UsageError

FAILED_DIRECTORY = "failed"

_NAME_PARTS = 5
# What is wrong with the file itself; any other error of a call is the system's, and passes.
_FAULTS_OF_A_FILE = frozenset((errno.EACCES, errno.EPERM, errno.ELOOP, errno.EIO))


class Unusable(Exception):
    """A file that can never be sent; the text says why."""


class Busy(Exception):
    """A file that another process is handling, or is still writing."""


class Entry:
    """One delayed command as its directory shows it.

    name     the file's name
    label    its first three parts, which are enough to tell it from others. The fourth may hold
             letters of an argument when another program chose it, so the whole name is not for logs
    host     the id of the peer that it is for
    changed  when the file was last written, in seconds since the epoch
    size     in bytes
    """

    __slots__ = ("changed", "count", "epoch", "host", "label", "name", "size")

    def __init__(self, name: str, status: os.stat_result) -> None:
        epoch, count, pid, _, self.host = name.split(".", _NAME_PARTS - 1)
        self.name = name
        self.label = f"{epoch}.{count}.{pid}"
        self.epoch = int(epoch)
        self.count = int(count)
        self.changed = status.st_mtime
        self.size = status.st_size

    def order(self) -> tuple[int, float, int, str]:
        """What entries are sorted by: the order in which their commands were given."""
        return self.epoch, self.changed, self.count, self.name


class Message:
    """A delayed command that this process holds the lock of. `command` has no line feed."""

    __slots__ = ("command", "entry", "fd", "links")

    def __init__(self, entry: Entry, command: bytes, fd: int, links: int) -> None:
        self.entry = entry
        self.command = command
        self.fd = fd
        self.links = links


class Directory:
    """The delayed directory at `path`, which need not be there."""

    def __init__(self, path: str, system: System | None = None) -> None:
        self.path = path
        self._system = system or System()

    @property
    def failed(self) -> Directory:
        """The directory below this one where commands are kept that were set aside."""
        return Directory(os.path.join(self.path, FAILED_DIRECTORY), self._system)

    def check(self) -> None:
        """Raises UsageError where the directory is missing, or open for others to write."""
        try:
            status = self._system.stat(self.path)
        except OSError as error:
            raise UsageError(f"delayed directory {self.path}: {error.strerror}") from error
        if not stat.S_ISDIR(status.st_mode):
            raise UsageError(f"delayed directory {self.path}: it is not a directory")
        if status.st_mode & stat.S_IWOTH:
            raise UsageError(
                f"delayed directory {self.path}: others may write to it, so anyone could send"
                f" commands; take that away (chmod o-w {self.path})"
            )

    def check_writable(self) -> None:
        """Raises PermissionError where a file could not be taken out of the directory."""
        if not self._system.writable(self.path):
            raise PermissionError(errno.EACCES, "the directory is not writable", self.path)

    # Listing

    def entries(self, host: str | None = None) -> list[Entry]:
        """List the commands for one host, or for all, in the order in which they are to be sent.

        Files with other names, and what is not a regular file, are not listed. A directory that is
        not there has none. Raises OSError.
        """
        try:
            names = self._system.listdir(self.path)
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            if not is_message_name(name) or (host is not None and host_of(name) != host):
                continue
            try:
                status = self._system.lstat(self._path(name))
            except FileNotFoundError:
                continue  # delivered since the listing
            if stat.S_ISREG(status.st_mode):
                found.append(Entry(name, status))
        return sorted(found, key=Entry.order)

    def hosts(self) -> set[str]:
        """The ids of the peers that a command waits for. Raises OSError."""
        try:
            names = self._system.listdir(self.path)
        except FileNotFoundError:
            return set()
        return {host_of(name) for name in names if is_message_name(name)}

    def unsettled(self, entry: Entry, settle: float) -> float:
        """How many seconds it takes until a file was left alone for `settle` seconds; 0 if it was.

        A time of change far in the future means that the clock was set back since.
        """
        age = abs(self._system.time() - entry.changed)
        return max(0.0, settle - age)

    # One command's life

    def add(self, command: bytes, host: str, word: str) -> str:
        """Write a command down, and return its file's name when it is safe on the disk.

        command: the whole request, without line feed. word: its command word, for the name.
        The file can be read by its owner alone, so the caller runs as the user that the daemon
        runs as. Raises OSError; then the command will not be sent. Raises ValueError where no file
        can be named for the host.
        """
        system = self._system
        epoch = int(system.time())
        for count in itertools.count():
            name = f"{epoch}.{count}.{system.getpid()}.{word}.{host}"
            if "/" in name or not is_message_name(name):
                raise ValueError(f"{host!r} cannot be the id of a host")
            try:
                self._add_as(name, command)
            except FileExistsError:
                continue
            return name
        raise AssertionError("counting does not end")

    def _add_as(self, name: str, command: bytes) -> None:
        """Raises FileExistsError where the name is taken."""
        system = self._system
        temporary, final = self._temporary(name), self._path(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = system.open(temporary, flags, 0o600)
        linked = False
        try:
            try:
                write_all(system, fd, command + b"\n")
                system.fsync(fd)
            finally:
                system.close(fd)
            system.link(temporary, final)
            linked = True
            system.unlink(temporary)
            sync_directory(system, self.path)
        except OSError:
            # The caller will be told that the command is not delayed: then it must not be sent.
            if linked:
                self._remove(final)
            self._remove(temporary)
            raise

    def claim(self, entry: Entry, largest: int) -> Message:
        """Take the lock of a file and read its command, of at most `largest` bytes.

        Raises FileNotFoundError when it is gone, Busy, Unusable, or another OSError when the system
        is in trouble. The lock is held until `release` or `remove`.
        """
        system = self._system
        path = self._path(entry.name)
        try:
            # A name may be anything by now; opening it must neither wait nor lead elsewhere.
            fd = system.open(path, READ_FLAGS | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in _FAULTS_OF_A_FILE:
                raise Unusable(f"it cannot be read ({error.strerror})") from error
            raise
        try:
            if not system.flock(fd):
                raise Busy
            opened, named = system.fstat(fd), system.lstat(path)
            if (opened.st_dev, opened.st_ino) != (named.st_dev, named.st_ino):
                raise FileNotFoundError(errno.ENOENT, "replaced while it was opened", path)
            if (opened.st_mtime, opened.st_size) != (entry.changed, entry.size):
                raise Busy
            return Message(entry, self._read(fd, largest), fd, opened.st_nlink)
        except BaseException:
            system.close(fd)
            raise

    def _read(self, fd: int, largest: int) -> bytes:
        data = bytearray()
        try:
            # A line feed and one byte too many are read at most.
            while chunk := self._system.read(fd, largest + 2 - len(data)):
                data += chunk
        except OSError as error:
            if error.errno in _FAULTS_OF_A_FILE:
                raise Unusable(f"it cannot be read ({error.strerror})") from error
            raise
        command = bytes(data).removesuffix(b"\n")
        if not command:
            raise Unusable("it is empty")
        if len(command) > largest:
            raise Unusable(f"it is longer than the {largest} bytes of max_request")
        if b"\n" in command:
            raise Unusable("it holds more than one line")
        return command

    def release(self, message: Message) -> None:
        """Let others have the file: it stays where it is."""
        self._system.close(message.fd)

    def remove(self, message: Message) -> None:
        """Remove a claimed file, for good; then its lock is free. Raises OSError: it is held still.

        May be called again after an error.
        """
        if message.links > 1:
            # Its writer was stopped between giving it this name and taking off the first.
            self._remove(self._temporary(message.entry.name))
        try:
            self._system.unlink(self._path(message.entry.name))
        except FileNotFoundError:
            pass  # an earlier call got as far as this
        sync_directory(self._system, self.path)
        self.release(message)

    def set_aside(self, message: Message) -> None:
        """Move a claimed file to `failed`; otherwise as `remove`."""
        try:
            self.move(message.entry, self.failed)
        except FileNotFoundError:
            pass  # an earlier call got as far as this
        self.release(message)

    def move(self, entry: Entry, to: Directory) -> None:
        """Move a file to another directory of the same disk, which is made if it is not there.

        Where the name is taken there the count in it is raised until one is free: nothing is ever
        replaced. Raises OSError.
        """
        try:
            self._system.mkdir(to.path, 0o700)
        except FileExistsError:
            pass
        epoch, count, rest = entry.name.split(".", 2)
        numbers = itertools.count(int(count))
        name = entry.name
        while to._holds(name):
            name = f"{epoch}.{next(numbers)}.{rest}"
        self._system.rename(self._path(entry.name), to._path(name))
        sync_directory(self._system, to.path)
        sync_directory(self._system, self.path)

    def _holds(self, name: str) -> bool:
        try:
            self._system.lstat(self._path(name))
        except FileNotFoundError:
            return False
        return True

    def _path(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _temporary(self, name: str) -> str:
        return self._path(f".{name}.tmp")

    def _remove(self, path: str) -> None:
        try:
            self._system.unlink(path)
        except OSError:
            pass


def is_message_name(name: str) -> bool:
    """Whether a file of this name is a delayed command's."""
    parts = name.split(".", _NAME_PARTS - 1)
    if len(parts) < _NAME_PARTS or not parts[-1]:
        return False
    return all(number.isascii() and number.isdigit() for number in parts[:3])


def host_of(name: str) -> str:
    """The id in a delayed command's name: all that follows the fourth dot."""
    return name.split(".", _NAME_PARTS - 1)[-1]
