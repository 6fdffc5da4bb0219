"""`lonc delayed`: look after the messages that must get there."""

from __future__ import annotations

import os
import sys
import time

from lonc.cli.options import add_configuration, configuration_of
from lonc.cli.revive import signal_daemon
from lonc.cli.table import table
from lonc.daemon.log_lines import printable
from lonc.daemon.privileges import drop_root
from lonc.delayed import Directory, PermanentLog
from lonc.delayed.directory import Busy, Unusable
from lonc.delayed.permanent_log import FAILED
from lonc.errors import LoncError, UsageError
from lonc.wire.dialects import DIALECTS, VERSIONED
from lonc.wire.requests import command_word

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from lonc.daemon.settings import Configuration
    from lonc.delayed.directory import Entry

HELP = "list, show, retry or drop the messages that must get there"

_EPILOG = """\
A message has the first three numbers of its file's name, as `list` shows them, for its name here.
It waits until it is answered; `retry` brings one back that was set aside, and has the daemon look
at once; `drop` gives it up, which the permanent log keeps. Nothing shows what a command says, for
it may be a password, unless `show` is told to.
"""

WAITING = "waiting"
SET_ASIDE = "set aside"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes."""
    parser.epilog = _EPILOG
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for name, act, text in (
        ("list", _list, "list all messages, in the order in which they are to be sent"),
        ("show", _show, "show what is known of messages"),
        ("retry", _retry, "have messages sent again, also those that were set aside"),
        ("drop", _drop, "give messages up, for good"),
    ):
        action = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        action.set_defaults(act=act, parser=action)
        if act is not _list:
            action.add_argument("messages", metavar="MESSAGE", nargs="+", help="as `list` names it")
        if act is _show:
            action.add_argument(
                "--show-arguments",
                action="store_true",
                help="show the whole commands, which may hold passwords",
            )
        add_configuration(action)


def run(args: argparse.Namespace) -> int:
    """Do what is asked, and return 0. Raises UsageError, and LoncError for what cannot be done.

    As root it becomes the daemon's user first, so that what it makes is the daemon's to use.
    """
    configuration = configuration_of(args)
    settings = configuration.settings
    if not settings.delayed_dir:
        raise UsageError("delayed_dir is not set: this daemon has no delayed messages")
    drop_root(settings.user)
    try:
        args.act(Store(configuration), args)
    except OSError as error:
        raise LoncError(f"{error.filename or settings.delayed_dir}: {error.strerror}") from None
    return 0


class Message:
    """A file of the delayed directory, or of those that were set aside."""

    def __init__(self, directory: Directory, entry: Entry, state: str) -> None:
        self.directory = directory
        self.entry = entry
        self.state = state

    @property
    def host(self) -> str:
        """The host that it is for, as a terminal may show it: a file's name may hold anything."""
        return printable(self.entry.host)

    @property
    def path(self) -> str:
        """Where its file is."""
        return os.path.join(self.directory.path, self.entry.name)

    def command(self) -> bytes:
        """Return what is in the file, without the last line feed; nothing if it cannot be read."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(fd, "rb") as file:
                return file.read().removesuffix(b"\n")
        except OSError:
            return b""

    def age(self) -> str:
        """Return how long ago the command was given, in seconds."""
        return f"{max(0, int(time.time()) - self.entry.epoch)} s"


class Store:
    """The delayed messages of a configuration."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.directory = Directory(configuration.settings.delayed_dir)
        self.log = PermanentLog(configuration.settings.perm_log)
        self._dialects = {
            host_id: DIALECTS[host.settings.dialect]
            for host in configuration.hosts
            for host_id in host.ids
        }

    def messages(self) -> Iterator[Message]:
        """Yield all messages: those that wait in their order, then those that were set aside."""
        for directory, state in ((self.directory, WAITING), (self.directory.failed, SET_ASIDE)):
            for entry in directory.entries():
                yield Message(directory, entry, state)

    def named(self, labels: list[str]) -> list[Message]:
        """Return the messages of these names; raises UsageError for one that is not one message."""
        found = list(self.messages())
        named = []
        for label in labels:
            same = [one for one in found if label in (one.entry.label, one.entry.name)]
            if not same:
                raise UsageError(f"MESSAGE {label}: there is none of this name")
            if len(same) > 1:
                raise UsageError(f"MESSAGE {label}: there are {len(same)}; give the file's name")
            named += same
        return named

    def word(self, message: Message) -> str:
        """Return the name of its command; nothing where that is not known to be no argument."""
        dialect = self._dialects.get(message.entry.host, VERSIONED)
        return command_word(message.command(), dialect)


def _list(store: Store, args: argparse.Namespace) -> None:
    rows = [["message", "host", "command", "bytes", "age", "state"]]
    for message in store.messages():
        entry = message.entry
        word = store.word(message) or "-"
        rows.append(
            [entry.label, message.host, word, str(entry.size), message.age(), message.state]
        )
    for line in table(rows):
        print(line)


def _show(store: Store, args: argparse.Namespace) -> None:
    for message in store.named(args.messages):
        entry = message.entry
        print(f"message  {entry.label}")
        print(f"host     {message.host}")
        print(f"given    {_when(entry.epoch)}")
        print(f"changed  {_when(entry.changed)}")
        print(f"bytes    {entry.size}")
        print(f"state    {message.state}")
        print("command ", end=" ", flush=True)
        if args.show_arguments:
            sys.stdout.buffer.write(message.command() + b"\n")
            sys.stdout.buffer.flush()
        else:
            print(store.word(message) or "-")


def _when(seconds: float) -> str:
    """Return a time as local time; the number itself where there is no such time."""
    try:
        return time.ctime(seconds)
    except (OverflowError, OSError, ValueError):
        return str(seconds)


def _retry(store: Store, args: argparse.Namespace) -> None:
    for message in store.named(args.messages):
        if message.state == SET_ASIDE:
            message.directory.move(message.entry, store.directory)
        print(f"{message.entry.label} for {message.host} waits to be sent.")
    try:
        signal_daemon(store.configuration)
    except LoncError as error:
        print(f"lonc: {error}: it will be sent when the daemon looks", file=sys.stderr)


def _drop(store: Store, args: argparse.Namespace) -> None:
    for message in store.named(args.messages):
        entry = message.entry
        try:
            claimed = message.directory.claim(entry, entry.size)
        except FileNotFoundError:
            raise LoncError(f"{entry.label} has gone: it was just delivered or set aside") from None
        except Busy:
            raise LoncError(f"{entry.label} is being sent just now: nothing was dropped") from None
        except Unusable:
            # There is no command in it that could be recorded.
            os.unlink(message.path)
        else:
            # One that was set aside has its record.
            if message.state == WAITING:
                store.log.record(FAILED, entry.host, claimed.command)
            message.directory.remove(claimed)
        print(f"{entry.label} for {message.host} was dropped.")
