"""Disks for the delayed directory that can be full, read-only, stopped, or without power.

A `Disk` stands for one process's view of the operating system: `stop_after` ends the process by
raising Stopped after that many calls, `restart` begins the next process.
"""

from __future__ import annotations

import errno
import os
import stat
from types import SimpleNamespace

from lonc.delayed import System

CALLS = (
    "close fchmod flock fstat fsync link listdir lstat mkdir open read rename stat unlink writable"
    " write"
).split()


class Stopped(BaseException):
    """The process was killed. No code under test catches this."""


def _counted(name):
    def call(self, *arguments):
        if self.stopped:
            raise Stopped  # a `finally` of a process that is dead
        result = getattr(super(self.counting, self), name)(*arguments)
        self.calls += 1
        if self.calls == self.stop_after:
            self.stopped = True
            raise Stopped
        return result

    return call


def stoppable(cls):
    """Make of a System one that counts its calls and stops after the `stop_after`-th."""

    def restart(self, stop_after=None):
        """The process is gone with its descriptors and locks; the next one begins."""
        super(counting, self).restart()
        self.calls, self.stop_after, self.stopped = 0, stop_after, False

    calls = {name: _counted(name) for name in CALLS}
    counting = type("Stoppable" + cls.__name__, (cls,), calls | {"restart": restart})
    counting.counting = counting
    counting.calls, counting.stop_after, counting.stopped = 0, None, False
    return counting


@stoppable
class RealDisk(System):
    """The file system of this machine. What is not synced survives a process, so nothing is."""

    def __init__(self):
        self._open = set()

    def restart(self):
        for fd in self._open:
            os.close(fd)
        self._open = set()

    def open(self, *arguments):
        fd = os.open(*arguments)
        self._open.add(fd)
        return fd

    def close(self, fd):
        self._open.discard(fd)
        os.close(fd)

    def fsync(self, fd):
        os.fstat(fd)


class _Node:
    def __init__(self, number, mode, time):
        self.number = number
        self.mode = mode
        self.changed = time
        self.readable = True
        self.data = b""
        self.kept_data = b""
        self.names = {}
        self.kept_names = {}
        self.locked_by = None


@stoppable
class SimulatedDisk(System):
    """A disk that forgets, when the power is cut, what was not synced.

    capacity    bytes that all files may have together
    read_only   no name can be made or removed
    now         the clock
    short       a write takes at most this many bytes
    """

    def __init__(self):
        self.now = 1_000_000.0
        self.capacity = 1 << 30
        self.short = 1 << 30
        self.read_only = False
        self._numbers = 0
        self._root = self._node(stat.S_IFDIR | 0o755)
        self._fds = {}

    def restart(self):
        for node, _, fd in list(self._fds.values()):
            if node.locked_by == fd:
                node.locked_by = None
        self._fds = {}

    def cut_power(self, keep):
        """Lose what was not synced; `keep` says which of {"data", "names"} survive all the same."""
        for node in self._all():
            if "data" not in keep:
                node.data = node.kept_data
            if "names" not in keep:
                node.names = dict(node.kept_names)
            node.kept_data, node.kept_names = node.data, dict(node.names)

    def put(self, path, data, *, readable=True, age=1000.0):
        """A file that somebody wrote some time ago, safe on the disk."""
        parent, name = self._parent(path)
        node = self._node(stat.S_IFREG | 0o600)
        node.data = node.kept_data = data
        node.readable = readable
        node.changed = self.now - age
        parent.names[name] = parent.kept_names[name] = node

    def append(self, path, data):
        """Another program writes to the end of a file, which is made if it is not there."""
        parent, name = self._parent(path)
        if name not in parent.names:
            parent.names[name] = self._node(stat.S_IFREG | 0o600)
        parent.names[name].data += data
        parent.names[name].changed = self.now

    def content(self, path):
        return self._find(path).data

    # The calls

    def time(self):
        return self.now

    def open(self, path, flags, mode=0o777):
        parent, name = self._parent(path)
        node = parent.names.get(name) if name else parent
        if node is None:
            if not flags & os.O_CREAT:
                raise _error(errno.ENOENT, path)
            self._check_names(path)
            node = parent.names[name] = self._node(stat.S_IFREG | mode)
        elif flags & os.O_CREAT and flags & os.O_EXCL:
            raise _error(errno.EEXIST, path)
        elif not node.readable:
            raise _error(errno.EACCES, path)
        self._numbers += 1
        self._fds[self._numbers] = [node, 0, self._numbers]
        return self._numbers

    def close(self, fd):
        node, _, _ = self._fds.pop(fd)
        if node.locked_by == fd:
            node.locked_by = None

    def flock(self, fd):
        node = self._fds[fd][0]
        if node.locked_by not in (None, fd):
            return False
        node.locked_by = fd
        return True

    def read(self, fd, size):
        node, at, _ = self._fds[fd]
        data = node.data[at : at + size]
        self._fds[fd][1] += len(data)
        return data

    def write(self, fd, data):
        node = self._fds[fd][0]
        room = self.capacity - sum(len(other.data) for other in self._all())
        taken = min(len(data), room, self.short)
        if taken <= 0:
            raise _error(errno.ENOSPC)
        node.data += bytes(data[:taken])
        node.changed = self.now
        return taken

    def fsync(self, fd):
        node = self._fds[fd][0]
        node.kept_data, node.kept_names = node.data, dict(node.names)

    def fchmod(self, fd, mode):
        node = self._fds[fd][0]
        node.mode = stat.S_IFMT(node.mode) | mode

    def fstat(self, fd):
        return self._status(self._fds[fd][0])

    def lstat(self, path):
        return self._status(self._find(path))

    stat = lstat

    def writable(self, path):
        return not self.read_only

    def listdir(self, path):
        return list(self._find(path).names)

    def mkdir(self, path, mode=0o777):
        parent, name = self._parent(path)
        if name in parent.names:
            raise _error(errno.EEXIST, path)
        self._check_names(path)
        parent.names[name] = self._node(stat.S_IFDIR | mode)

    def link(self, source, target):
        node = self._find(source)
        parent, name = self._parent(target)
        if name in parent.names:
            raise _error(errno.EEXIST, target)
        self._check_names(target)
        parent.names[name] = node

    def rename(self, source, target):
        node = self._find(source)
        self._check_names(target)
        parent, name = self._parent(source)
        del parent.names[name]
        parent, name = self._parent(target)
        parent.names[name] = node

    def unlink(self, path):
        self._find(path)
        self._check_names(path)
        parent, name = self._parent(path)
        del parent.names[name]

    # Inside

    def _node(self, mode):
        self._numbers += 1
        return _Node(self._numbers, mode, self.now)

    def _check_names(self, path):
        if self.read_only:
            raise _error(errno.EROFS, path)

    def _parent(self, path):
        *directories, name = path.strip("/").split("/")
        node = self._root
        for directory in directories:
            node = node.names.get(directory)
            if node is None:
                raise _error(errno.ENOENT, path)
        return node, name

    def _find(self, path):
        parent, name = self._parent(path)
        if name and name not in parent.names:
            raise _error(errno.ENOENT, path)
        return parent.names[name] if name else parent

    def _all(self):
        found, waiting = {}, [self._root]
        while waiting:
            node = waiting.pop()
            if node.number not in found:
                found[node.number] = node
                waiting += [*node.names.values(), *node.kept_names.values()]
        return found.values()

    def _status(self, node):
        links = sum(1 for other in self._all() for named in other.names.values() if named is node)
        return SimpleNamespace(
            st_mode=node.mode,
            st_ino=node.number,
            st_dev=1,
            st_uid=os.geteuid(),
            st_nlink=links,
            st_size=len(node.data),
            st_mtime=node.changed,
        )


def _error(number, path=None):
    return OSError(number, os.strerror(number), path)
