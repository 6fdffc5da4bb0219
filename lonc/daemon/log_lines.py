"""The forms of a log line: for people, for programs, for LON-CAPA's own checks, for the journal."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# What LON-CAPA's tools call the process that serves no host.
PARENT_HOST = "Parent Server"

# LON-CAPA's checks look for these words, and its pages show these colours.
COLOURS = {"CRITICAL": "red", "SUCCESS": "green", "INFO": "yellow", "WARNING": "blue"}

# syslog's: critical, warning, notice, informational.
PRIORITIES = {"CRITICAL": 2, "WARNING": 4, "SUCCESS": 5, "INFO": 6}

_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


class Entry:
    """What a log line is made of.

    when      seconds since the epoch
    pid       the process that wrote it
    host      whose line it is: a host's id, or empty for the daemon itself
    status    its status, as process titles show it
    severity  CRITICAL, WARNING, SUCCESS or INFO
    text      one line, free of control characters
    """

    __slots__ = ("host", "pid", "severity", "status", "text", "when")

    def __init__(
        self, when: float, pid: int, host: str, status: str, severity: str, text: str
    ) -> None:
        self.when = when
        self.pid = pid
        self.host = host
        self.status = status
        self.severity = severity
        self.text = text

    def replace(self, severity: str, text: str) -> Entry:
        """Return another line of the same process at the same time."""
        return Entry(self.when, self.pid, self.host, self.status, severity, text)


def plain(entry: Entry) -> str:
    """For people."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.when))
    return f"{when} ({entry.pid}) {journal(entry)}"


def journal(entry: Entry) -> str:
    """The same for a journal, which knows time and process by itself."""
    return f"[{entry.host or 'lonc'}] {entry.severity}: {entry.text}"


def loncapa(entry: Entry) -> str:
    """As LON-CAPA's checks look for it. Pages show the file as HTML, so the text is escaped."""
    return (
        f"{time.ctime(entry.when)} ({entry.pid}) [{entry.host or PARENT_HOST}] [{entry.status}] "
        f"<font color='{COLOURS[entry.severity]}'>"
        f"{entry.severity}: {entry.text.translate(_HTML)}</font>"
    )


def json(entry: Entry) -> str:
    """For programs: one object, its time in ISO 8601."""
    from json import dumps

    when = time.localtime(entry.when)
    return dumps(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z", when),
            "pid": entry.pid,
            "host": entry.host or None,
            "status": entry.status,
            "severity": entry.severity,
            "text": entry.text,
        },
        ensure_ascii=False,
    )


FORMATS: Mapping[str, Callable[[Entry], str]] = {"plain": plain, "json": json, "loncapa": loncapa}


def printable(text: str) -> str:
    """The text on one line: what is not printable is written as Python writes it in a string."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
