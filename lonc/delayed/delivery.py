"""One host's delayed commands, sent strictly one after another."""

from __future__ import annotations

import math
from collections import deque

from lonc.delayed.directory import Busy, Unusable
from lonc.delayed.permanent_log import FAILED, SENT
from lonc.wire.requests import command_word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from lonc.delayed.directory import Directory, Entry, Message
    from lonc.delayed.permanent_log import PermanentLog
    from lonc.wire.dialects import Dialect

    class Log(Protocol):
        """What takes the lines of the log."""

        def log(self, severity: str, text: str) -> None:
            """Take one line."""

    class DelayedSettings(Protocol):
        """The settings of delayed commands, as the daemon has them."""

        @property
        def delayed_scan(self) -> float: ...
        @property
        def delayed_settle(self) -> float: ...
        @property
        def delayed_attempts(self) -> int: ...


# The pause after a first error reply; each further one doubles it, up to `delayed_scan`. A file
# that another process holds is looked at again after it.
FIRST_PAUSE = 1.0


class Delivery:
    """Hands out the delayed commands of one host, and takes what became of each.

    Whoever drives it calls `next`, sends the message that it returns like any request, and calls
    `answered` or `lost` when that has ended; only then is there another. Times are the driver's
    monotonic clock, in seconds.

    host           the id of the peer
    due            when `next` has something to do: 0 for at once, infinity while one is being sent
    waiting        how many commands were waiting when the directory was last looked through
    settings       `delayed_scan`, `delayed_settle`, `delayed_attempts`; may be replaced any time
    max_request    bytes of the longest command that is sent; the same
    permanent_log  where the end of each command is recorded; the same

    Nothing leaves the directory but after a reply, or because it can never be sent. The promise is
    "at least once": a message whose reply does not arrive is sent again, and so is one whose file
    was not yet gone from the disk when this process ended.
    """

    def __init__(
        self,
        host: str,
        dialect: Dialect,
        directory: Directory,
        permanent_log: PermanentLog,
        settings: DelayedSettings,
        log: Log,
        *,
        max_request: int,
    ) -> None:
        self.host = host
        self.due = 0.0
        self.waiting = 0
        self.settings = settings
        self.max_request = max_request
        self.permanent_log = permanent_log
        self._dialect = dialect
        self._directory = directory
        self._log = log
        self._listed: deque[Entry] = deque()
        self._listed_at = -math.inf
        self._sending: Message | None = None
        self._ending: _Ending | None = None
        self._errors: dict[str, _Errors] = {}

    def look(self) -> None:
        """Make the next call of `next` look through the directory: the peer may be there again."""
        self._listed_at = -math.inf
        if self._sending is None:
            self.due = 0.0

    def next(self, now: float) -> Message | None:
        """Return the message to send now, or None: there is nothing to do before `due`."""
        if now < self.due:
            return None
        try:
            if self._ending is not None:
                self._end(self._ending)
            self._sending = self._claim_first(now)
        except OSError as error:
            self._put_off(error, now)
        return self._sending

    def answered(self, message: Message, reply: bytes, now: float) -> None:
        """Take the peer's reply, without its line feed, to the message that `next` returned."""
        if reply == b"con_lost":
            self.lost(message, now)
            return
        self._sending = None
        self.due = now
        if not _is_error(reply):
            self._ending = _Ending(message, SENT)
        elif self._count_error(message, reply, now) >= self.settings.delayed_attempts:
            self._ending = _Ending(message, FAILED)
        else:
            self._directory.release(message)
            self._listed_at = -math.inf
            return
        try:
            self._end(self._ending)
        except OSError as error:
            self._put_off(error, now)

    def lost(self, message: Message, now: float) -> None:
        """Take the end of a message without a reply: it stays, and will be sent again."""
        self._sending = None
        self._directory.release(message)
        self._listed_at = -math.inf
        self.due = now + self.settings.delayed_scan

    def close(self) -> None:
        """Let go of the file that is held. Whoever comes next begins with it."""
        message = self._ending.message if self._ending is not None else self._sending
        if message is not None:
            self._directory.release(message)
        self._sending = self._ending = None
        self.due = math.inf

    def _claim_first(self, now: float) -> Message | None:
        """The first message, locked and read, and `due` set. Raises OSError."""
        while (first := self._first(now)) is not None:
            try:
                message = self._directory.claim(first, self.max_request)
            except FileNotFoundError:
                self._listed_at = -math.inf
            except Busy:
                self._listed_at = -math.inf
                self.due = now + FIRST_PAUSE
                return None
            except Unusable as error:
                self._set_aside_unread(first, error)
            else:
                self.due = math.inf
                return message
        return None

    def _set_aside_unread(self, entry: Entry, why: Unusable) -> None:
        failed = self._directory.failed
        self._listed.popleft()
        try:
            self._directory.move(entry, failed)
        except FileNotFoundError:
            return  # another process was faster
        self._log.log(
            "CRITICAL",
            f"Delayed message {entry.label} for {self.host} cannot be sent: {why}; it was set "
            f"aside in {failed.path}",
        )

    def _first(self, now: float) -> Entry | None:
        """The message whose turn it is, if it may be sent now; otherwise None, and `due` is set."""
        if not self._listed or now >= self._listed_at + self.settings.delayed_scan:
            self._list(now)
        if not self._listed:
            self.due = now + self.settings.delayed_scan
            return None
        first = self._listed[0]
        wait = self._directory.unsettled(first, self.settings.delayed_settle)
        errors = self._errors.get(first.name)
        if errors is not None:
            wait = max(wait, errors.retry_at - now)
        if wait <= 0:
            # What could not be recorded or removed afterwards would be sent again and again.
            self.permanent_log.check()
            self._directory.check_writable()
            return first
        # By then something older may have come.
        self._listed_at = -math.inf
        self.due = now + wait
        return None

    def _list(self, now: float) -> None:
        self._listed = deque(self._directory.entries(self.host))
        self._listed_at = now
        self.waiting = len(self._listed)
        names = {entry.name for entry in self._listed}
        self._errors = {name: kept for name, kept in self._errors.items() if name in names}

    def _count_error(self, message: Message, reply: bytes, now: float) -> int:
        """How many error replies this message has had, the new one counted."""
        errors = self._errors.setdefault(message.entry.name, _Errors())
        errors.count += 1
        errors.pause = min(errors.pause * 2 or FIRST_PAUSE, self.settings.delayed_scan)
        errors.retry_at = now + errors.pause
        # The peer's explanation may repeat an argument.
        word = reply.partition(b":")[0].decode("ascii")
        self._log.log(
            "WARNING",
            f"Delayed message {self._title(message)} was answered {word}: attempt {errors.count} "
            f"of {self.settings.delayed_attempts}",
        )
        return errors.count

    def _end(self, ending: _Ending) -> None:
        """Record how a message ended, and take it away.

        Raises OSError: then the message is kept, with its lock, and this is to be called again.
        """
        message, directory = ending.message, self._directory
        if not ending.is_recorded:
            self.permanent_log.record(ending.kind, self.host, message.command)
            ending.is_recorded = True
        if ending.kind == SENT:
            directory.remove(message)
            severity, what = "SUCCESS", "delivered"
        else:
            directory.set_aside(message)
            severity, what = "CRITICAL", f"was set aside in {directory.failed.path}"
        self._ending = None
        self._errors.pop(message.entry.name, None)
        self._listed.popleft()
        self.waiting -= 1
        self._log.log(severity, f"Delayed message {self._title(message)} {what}")

    def _put_off(self, error: OSError, now: float) -> None:
        self.due = now + self.settings.delayed_scan
        self._log.log(
            "CRITICAL",
            f"Delayed messages for {self.host} wait, and nothing is removed: "
            f"{error.strerror or error} (directory {self._directory.path}, "
            f"permanent log {self.permanent_log.path})",
        )

    def _title(self, message: Message) -> str:
        """What a log may say of a message: never an argument."""
        word = command_word(message.command, self._dialect)
        return f"{message.entry.label}{word and f' ({word})'} for {self.host}"


class _Errors:
    """The error replies that one message has had."""

    __slots__ = ("count", "pause", "retry_at")

    def __init__(self) -> None:
        self.count = 0
        self.pause = 0.0
        self.retry_at = 0.0


class _Ending:
    """A message that needs no further sending, until its file is taken away."""

    __slots__ = ("is_recorded", "kind", "message")

    def __init__(self, message: Message, kind: str) -> None:
        self.message = message
        self.kind = kind
        self.is_recorded = False


def _is_error(reply: bytes) -> bool:
    return reply.startswith(b"error:") or reply in (b"refused", b"unknown_cmd")
