"""The log: a line for each thing that an administrator may want to know.

Several `Log` objects, one for each host and one for the daemon itself, write through one `Sink`,
which knows where lines go; `log_lines` has their forms. No line ever holds an argument of a
request: who logs sees to that, and `trace` leaves out what an exception says.
"""

from __future__ import annotations

import contextlib
import os
import time

from lonc.daemon.log_lines import FORMATS, PARENT_HOST, PRIORITIES, Entry, journal, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class LogSettings(Protocol):
        """The settings of the log, as the daemon has them."""

        @property
        def debug(self) -> bool: ...
        @property
        def log_format(self) -> str: ...
        @property
        def log_file(self) -> str: ...
        @property
        def log_stderr(self) -> bool: ...


# The debug levels that LON-CAPA's tools know.
DEBUG_OFF = 0
DEBUG_ON = 10

# A line that comes again and again is written once in so many seconds, with its count.
REPEAT_INTERVAL = 60.0

_STDERR = 2


class Sink:
    """Where lines go: the standard error stream, a file, or both.

    Processes share the file: a line is one write at its end. A file that was moved away, as by
    logrotate, is made anew. While it cannot be opened, lines go to standard error, after one that
    says why. A line that cannot be written, as on a full disk, is lost: serving goes on.

    Where standard error is systemd's journal, lines have its priorities.
    """

    def __init__(self) -> None:
        """Plain lines to standard error, until `reconfigure` says otherwise."""
        self._form = FORMATS["plain"]
        self._journal_form: Callable[[Entry], str] = journal
        self._to_stderr = True
        self._is_journal = _stderr_is_journal()
        self._path = ""
        # Once there it keeps its number, whatever file it leads to: a stack trace may go there.
        self._fd = -1
        self._is_open = False
        self._trouble = ""

    def reconfigure(self, settings: LogSettings) -> None:
        """Use other places or another form from now on."""
        self._form = FORMATS[settings.log_format]
        self._journal_form = journal if settings.log_format == "plain" else self._form
        self._to_stderr = settings.log_stderr
        if settings.log_file != self._path:
            self.close()
            self._path = settings.log_file
            self._trouble = ""

    def write(self, entry: Entry) -> None:
        """Write one line."""
        if self._path:
            trouble = self._open()
            if trouble and trouble != self._trouble:
                text = f"log_file {printable(self._path)} cannot be opened: {trouble}"
                self._write_stderr(entry.replace("CRITICAL", text))
            self._trouble = trouble
        if self._is_open:
            _write(self._fd, self._form(entry))
        if self._to_stderr or (self._path and not self._is_open):
            self._write_stderr(entry)

    def fileno(self) -> int:
        """Return a descriptor, of the file or standard error, for a stack trace."""
        if self._path:
            self._open()
        return self._fd if self._is_open else _STDERR

    def close(self) -> None:
        """Close the file. A descriptor that was asked for leads to standard error then."""
        if self._is_open:
            os.dup2(_STDERR, self._fd, inheritable=False)
            self._is_open = False

    def _write_stderr(self, entry: Entry) -> None:
        if self._is_journal:
            _write(_STDERR, f"<{PRIORITIES[entry.severity]}>{self._journal_form(entry)}")
        else:
            _write(_STDERR, self._form(entry))

    def _open(self) -> str:
        """Have the file open under its name; return why it cannot be, or nothing.

        A file that was moved away is used until the new one can be opened.
        """
        try:
            if self._is_open and os.path.samestat(os.stat(self._path), os.fstat(self._fd)):
                return ""
        except OSError:
            pass
        # A FIFO that nobody reads is an error then, and not a wait without an end.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            fd = os.open(self._path, flags, 0o640)
        except OSError as error:
            return error.strerror or str(error)
        os.set_blocking(fd, True)
        if self._fd < 0:
            self._fd = fd
        else:
            os.dup2(fd, self._fd, inheritable=False)
            os.close(fd)
        self._is_open = True
        return ""


class Log:
    """Writes lines about one host or, without one, about the daemon itself.

    status  shown in the lines of the forms that have a place for it; who knows the host's status
            keeps it up to date
    last    the last line's severity and text
    """

    def __init__(
        self,
        sink: Sink | None = None,
        host: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host = host
        self.status = ""
        self.last = ""
        self.debug_level = DEBUG_OFF
        self._sink = Sink() if sink is None else sink
        self._clock = clock
        self._debug_setting = False
        self._latest = ("", "")
        self._repeats = 0
        self._again_at = 0.0
        self._family: dict[str, Log] = {host: self}

    def about(self, host: str) -> Log:
        """Return the log about a host, always the same; it writes to the same places."""
        log = self._family.get(host)
        if log is None:
            log = Log(self._sink, host, clock=self._clock)
            log.debug_level, log._debug_setting = self.debug_level, self._debug_setting
            log._family = self._family
            self._family[host] = log
        return log

    def reconfigure(self, settings: LogSettings) -> None:
        """Follow changed settings; form and places change for all logs that share them.

        A debug level that a signal has changed stays, unless the setting changes.
        """
        self._sink.reconfigure(settings)
        if settings.debug != self._debug_setting:
            self._debug_setting = settings.debug
            self._set_debug_level(DEBUG_ON if settings.debug else DEBUG_OFF)

    def log(self, severity: str, text: str) -> None:
        """Write one line; `severity` is INFO, SUCCESS, WARNING or CRITICAL.

        A line that is the same as the one before is counted. The count is written before the next
        other line, by `flush`, or when the line comes again after REPEAT_INTERVAL.
        """
        text = printable(text)
        now = self._clock()
        if self._latest == (severity, text):
            self._repeats += 1
            if now >= self._again_at:
                self.flush()
            return
        self.flush()
        self._latest = (severity, text)
        self._again_at = now + REPEAT_INTERVAL
        self.last = f"{severity}: {text}"
        self._write(severity, text)

    def flush(self) -> None:
        """Write how often the last line was repeated, if that was not written yet."""
        if self._repeats:
            severity, text = self._latest
            times = "once more" if self._repeats == 1 else f"{self._repeats} times more"
            self._repeats = 0
            self._again_at = self._clock() + REPEAT_INTERVAL
            self._write(severity, f"{text} ({times})")

    def forget_repeats(self) -> None:
        """Take no line as a repetition of an earlier one: that was of another process.

        To be called in a forked process; what its parent has counted the parent writes.
        """
        self._latest = ("", "")
        self._repeats = 0

    def debug(self, text: str) -> None:
        """Write one line, if the debug level asks for it."""
        if self.debug_level >= DEBUG_ON:
            self.log("INFO", f"-Debug- {text} host = {self.host or PARENT_HOST}")

    def toggle_debug(self) -> None:
        """Switch the debug level on or off, and say so."""
        self._set_debug_level(DEBUG_OFF if self.debug_level else DEBUG_ON)

    def trace(self, what: str, error: BaseException) -> None:
        """Write that an exception was not handled, and where; not its text, nor any values."""
        places = []
        step = error.__traceback__
        while step is not None:
            code = step.tb_frame.f_code
            places.append(f"{os.path.basename(code.co_filename)}:{step.tb_lineno} {code.co_name}")
            step = step.tb_next
        self.log("CRITICAL", f"{what}: {type(error).__name__} at {', '.join(places)}")

    def fileno(self) -> int:
        """Return a descriptor that a stack trace can be written to."""
        return self._sink.fileno()

    def close(self) -> None:
        """Write what was held back, for all logs that share the places, and close the file."""
        for log in self._family.values():
            log.flush()
        self._sink.close()

    def _set_debug_level(self, level: int) -> None:
        self.debug_level = level
        self.log("SUCCESS", f"New debugging level for {self.host or PARENT_HOST} now {level}")

    def _write(self, severity: str, text: str) -> None:
        now, pid = time.time(), os.getpid()
        self._sink.write(Entry(now, pid, self.host, self.status, severity, text))


def _write(fd: int, line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(fd, line.encode() + b"\n")


def _stderr_is_journal() -> bool:
    """Whether systemd connected standard error to its journal, and nobody redirected it since."""
    try:
        status = os.fstat(_STDERR)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
