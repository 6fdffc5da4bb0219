"""What is logged about clients and limits, seldom enough that nobody can fill a disk with it."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Log(Protocol):
        """Where lines go; `severity` is INFO, SUCCESS, WARNING or CRITICAL."""

        def log(self, severity: str, text: str) -> None: ...
        def debug(self, text: str) -> None: ...


class NoLog:
    """A log that keeps nothing."""

    def log(self, severity: str, text: str) -> None:
        """Do nothing."""

    def debug(self, text: str) -> None:
        """Do nothing."""


# kind: severity, seconds between two lines, what the line says.
_KINDS = {
    "max_queue": (
        "WARNING",
        1.0,
        "{number} requests are waiting, which is max_queue: con_lost for a further one",
    ),
    "max_request": (
        "WARNING",
        1.0,
        "a client's line of {number} bytes or more is longer than max_request:"
        " con_lost, and its connection is closed",
    ),
    "max_reply": (
        "WARNING",
        1.0,
        "a reply of {number} bytes or more is longer than max_reply:"
        " con_lost, and the connection is closed",
    ),
    "max_buffered": (
        "WARNING",
        1.0,
        "max_buffered is used up: con_lost for the transaction that would have crossed it,"
        " with {number} bytes",
    ),
    "cut_line": (
        "INFO",
        60.0,
        "a client closed in the middle of a line: {number} bytes dropped, nothing sent",
    ),
    "client_timeout": (
        "INFO",
        60.0,
        "a client neither ended its line nor took its reply within client_timeout"
        " ({number} s): closed",
    ),
    "no_cipher": (
        "WARNING",
        60.0,
        "an encrypted request cannot be sent: {text}",
    ),
    "bad_request": (
        "WARNING",
        60.0,
        "a request that {text} is not sent",
    ),
    "not_allowed": (
        "WARNING",
        1.0,
        "a client was turned away: {text} is in neither allow_users nor allow_groups",
    ),
    "accept": (
        "WARNING",
        1.0,
        "no client can be accepted: {text}; tried again after a second",
    ),
}


class Complaints:
    """Logs each kind of trouble at most once in its interval, with the number left out since."""

    __slots__ = ("_last", "_left_out", "_log")

    def __init__(self, log: Log) -> None:
        self._log = log
        self._last: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def note(self, now: float, kind: str, number: float = 0, text: str = "") -> None:
        """Log a trouble of `kind`, a key of the table above, or only count it.

        `number` and `text` are put into its line; for `accept` the number is an errno.
        """
        severity, interval, line = _KINDS[kind]
        if now - self._last.get(kind, float("-inf")) < interval:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._last[kind] = now
        if kind == "accept":
            text = os.strerror(int(number))
        more = self._left_out.pop(kind, 0)
        line = line.format(number=f"{number:g}" if isinstance(number, float) else number, text=text)
        self._log.log(
            severity, f"{line} (and {more} more since the last such line)" if more else line
        )
