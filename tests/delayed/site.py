"""A delayed directory with a permanent log on a disk, and a peer that answers what is delivered."""

from __future__ import annotations

import collections
import contextlib
import os

from lonc.delayed import Delivery, Directory, PermanentLog
from lonc.wire.dialects import VERSIONED


class Settings:
    delayed_scan = 60.0
    delayed_settle = 5.0
    delayed_attempts = 3


class Lines(list):
    """A log that keeps its lines."""

    def log(self, severity, text):
        self.append(f"{severity}: {text}")


class Site:
    """Everything that outlives a process: the disk, the peer, and what clients were promised.

    executed   how often the peer executed each command
    exposed    how often each command's fate was open when its process was stopped or its reply was
               lost: sent, but not yet gone from the disk. So often it may be executed again
    promised   the commands that a client was told con_delayed for
    replies    what the peer answers to a command, in turn, the last of them for ever; `ok` if none.
               None stands for a reply that is lost on its way
    """

    def __init__(self, disk, root="/site"):
        self.disk = disk
        self.path = os.path.join(root, "delayed")
        self.failed_path = os.path.join(self.path, "failed")
        self.perm_path = os.path.join(root, "perm.log")
        self.log = Lines()
        self.now = 0.0
        self.executed = collections.Counter()
        self.exposed = collections.Counter()
        self.promised = []
        self.replies = {}
        for path in (root, self.path):
            with contextlib.suppress(FileExistsError):
                disk.mkdir(path, 0o700)
        for path in (os.path.dirname(root), root, self.path):
            fd = disk.open(path, os.O_RDONLY)
            disk.fsync(fd)
            disk.close(fd)

    @property
    def directory(self):
        return Directory(self.path, self.disk)

    @property
    def permanent_log(self):
        return PermanentLog(self.perm_path, self.disk)

    def delivery(self, host="msul1", max_request=1000):
        return Delivery(
            host,
            VERSIONED,
            self.directory,
            self.permanent_log,
            Settings(),
            self.log,
            max_request=max_request,
        )

    def add(self, command, host="msul1"):
        """A client is told con_delayed when this returns."""
        self.directory.add(command, host, "put")
        self.promised.append(command)
        self.permanent_log.record("D", host, command)

    def wait(self, seconds):
        self.now += seconds
        if hasattr(self.disk, "now"):
            self.disk.now += seconds

    def deliver(self, delivery, until=None):
        """Drive a delivery until nothing waits for its host, or for so many seconds.

        Its time is simulated, so that the pauses cost nothing.
        """
        end = self.now + (100_000 if until is None else until)
        while self.now < end:
            message = delivery.next(self.now)
            if message is not None:
                self.send(delivery, message)
            elif until is None and not delivery.waiting:
                return
            else:
                self.wait(max(min(delivery.due, end) - self.now, 0.001))
        assert until is not None, f"still waiting: {self.log}"

    def send(self, delivery, message):
        """Send one message; the peer answers, or its answer is lost."""
        command = message.command
        replies = self.replies.get(command, [b"ok"])
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        if reply is None or not reply.startswith(b"error:"):
            self.executed[command] += 1
        self.exposed[command] += 1
        if reply is None:
            delivery.lost(message, self.now)
        else:
            delivery.answered(message, reply, self.now)
            if delivery.due == self.now:
                self.exposed[command] -= 1

    def waiting(self):
        return [entry.name for entry in self.directory.entries()]

    def failed(self):
        return [entry.name for entry in self.directory.failed.entries()]

    def read(self, path):
        fd = self.disk.open(path, os.O_RDONLY)
        data = b""
        while chunk := self.disk.read(fd, 65536):
            data += chunk
        self.disk.close(fd)
        return data

    def failed_commands(self):
        return [
            self.read(os.path.join(self.failed_path, name)).removesuffix(b"\n")
            for name in self.failed()
        ]

    def records(self):
        """The permanent log as (kind, command) pairs."""
        try:
            lines = self.read(self.perm_path).splitlines()
        except FileNotFoundError:
            return []
        records = []
        for line in lines:
            if line.count(b":") < 4:
                continue  # cut short by a full disk
            _, kind, _, rest = line.split(b":", 3)
            # The local time has two colons of its own.
            records.append((kind.decode(), rest.rsplit(b":", 3)[0]))
        return records
