"""Everything that can be observed of a schedule, in order."""

from __future__ import annotations

import marshal
from hashlib import blake2b


class Trace:
    """Tuples of numbers and bytes: the time, the port or what else it is about, what, and details.

    `note` takes one.  It is called for each system call that the broker makes, so it is no more
    than the append of a list.
    """

    def __init__(self):
        self.events = []
        self.note = self.events.append

    def digest(self):
        """Return a digest of all that was noted, equal for equal traces only."""
        # Version 2 of the format has no references, which would depend on who holds an object.
        return blake2b(marshal.dumps(self.events, 2), digest_size=12).hexdigest()

    def text(self):
        """Return the trace for a person, a line an event."""
        return "".join(map(line_of, self.events))


class Log:
    """The broker's log: what it says is part of the trace."""

    def __init__(self, note, clock):
        self._note = note
        self._clock = clock

    def log(self, severity, text):
        self._note((self._clock(), 0, severity.encode(), text.encode()))

    def debug(self, text):
        self.log("-Debug-", text)


def line_of(event):
    """Return one event as a line of text; data are shortened."""
    time, about, *rest = event
    words = (_word(each) for each in rest)
    return f"{time:12.5f} {_word(about):>4} {' '.join(words)}\n"


def _word(value):
    if isinstance(value, bytes):
        text = repr(value)[2:-1]
        return text if len(text) <= 120 else f"{text[:100]}... ({len(value)} bytes)"
    return str(value)
