"""Faults on request: what the built-in peer does wrong, where, and how often.

A fault waits at one place, a step of a connection's life or a command. The steps are those of the
dialogue by the line that the peer has just read (`init`, `echo`, `version`, `sethost`, `ekey`), and
two more where nothing was read: `connect`, before the first line, and `idle`, before each request.

A fault at a command acts on the answer. The command itself has been carried out by then: that is
the worst case for a client, who cannot know it.
"""

from __future__ import annotations

import math
import threading

from ..errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from typing import Any

CONNECT = "connect"
INIT = "init"
ECHO = "echo"
VERSION = "version"
SETHOST = "sethost"
EKEY = "ekey"
IDLE = "idle"

STEPS = (CONNECT, INIT, ECHO, VERSION, SETHOST, EKEY, IDLE)

REFUSE = "refuse"
CLOSE = "close"
RESET = "reset"
STALL = "stall"
LATE = "late"
CUT = "cut"
TWICE = "twice"
SAY = "say"

# kind -> the argument that it needs and the one that it may have.
KINDS: dict[str, tuple[str | None, str | None]] = {
    REFUSE: (None, None),
    CLOSE: (None, None),
    RESET: (None, None),
    STALL: (None, None),
    LATE: ("seconds", None),
    CUT: ("byte", None),
    TWICE: (None, "seconds"),
    SAY: ("text", None),
}


class Fault:
    """One thing that goes wrong.

    kind     refuse   `refused` in place of the answer, then closed (steps `init`, the default, and
                      `echo`)
             close    closed in place of the answer
             reset    the same, with a TCP reset
             stall    no answer, nothing read any more, until the client leaves or the peer stops
             late     the answer comes after `seconds`
             cut      the first `byte` bytes of the answer, its LF counted, then closed
             twice    the answer, and once more: in the same write, or `seconds` later
             say      `text` in place of the answer (at `connect` and `idle`: unasked)
    step     one of STEPS; at `connect` and `idle` there is no answer to be cut or doubled
    command  the word of a command. With neither: at the answer to any command
    byte     a number of bytes, 0 or more
    seconds  a time, 0 or more
    text     bytes without LF
    count    how often it acts, 1 or more; None: always

    acted    how often it acted so far

    Raises UsageError for what makes no sense.
    """

    __slots__ = ("acted", "byte", "command", "count", "kind", "seconds", "step", "text")

    def __init__(
        self,
        kind: str,
        *,
        step: str | None = None,
        command: str | None = None,
        byte: int | None = None,
        seconds: float | None = None,
        text: bytes | None = None,
        count: int | None = None,
    ) -> None:
        if kind == REFUSE and step is None and command is None:
            step = INIT
        problem = (
            _wrong_place(kind, step, command)
            or _wrong_arguments(kind, {"byte": byte, "seconds": seconds, "text": text})
            or _wrong_values(byte, seconds, text, count)
        )
        if problem:
            raise UsageError(f"fault {kind}: {problem}")
        self.kind = kind
        self.step = step
        self.command = command
        self.byte = byte or 0
        self.seconds = seconds or 0.0
        self.text = text or b""
        self.count = count
        self.acted = 0

    def __repr__(self) -> str:
        place = self.step or self.command or "any command"
        return f"<Fault {self.kind} at {place}, acted {self.acted} times>"


def _wrong_place(kind: str, step: str | None, command: str | None) -> str | None:
    if kind not in KINDS:
        return f"no such kind; there are {', '.join(KINDS)}"
    if step is not None and command is not None:
        return "a step or a command, not both"
    if step is not None and step not in STEPS:
        return f"no step {step!r}; there are {', '.join(STEPS)}"
    if kind == REFUSE and step not in (INIT, ECHO):
        return f"a peer refuses at {INIT} or {ECHO}"
    if kind in (CUT, TWICE) and step in (CONNECT, IDLE):
        return f"there is no answer at {step}"
    return None


def _wrong_arguments(kind: str, given: dict[str, object]) -> str | None:
    needed, allowed = KINDS[kind]
    for name, value in given.items():
        if value is None and name == needed:
            return f"needs {name}"
        if value is not None and name not in (needed, allowed):
            return f"takes no {name}"
    return None


def _wrong_values(
    byte: int | None, seconds: float | None, text: bytes | None, count: int | None
) -> str | None:
    if byte is not None and byte < 0:
        return "byte counts from 0"
    if seconds is not None and not 0 <= seconds < math.inf:
        return "seconds counts from 0"
    if text is not None and b"\n" in text:
        return "text is one line"
    if count is not None and count < 1:
        return "count begins at 1"
    return None


class Faults:
    """The faults of one peer. They may be added and cleared at any time, by any thread.

    faults  to begin with
    steps   the steps that a connection of this peer passes; a fault at another one is refused
    """

    def __init__(self, faults: Iterable[Fault] = (), *, steps: Collection[str] = STEPS) -> None:
        self._lock = threading.Lock()
        self._steps = steps
        self._faults: list[Fault] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> Fault:
        """Let `fault` act from now on, after those that wait at the same place; return it.

        Raises UsageError for a step that connections of this peer do not pass.
        """
        if fault.step is not None and fault.step not in self._steps:
            raise UsageError(
                f"fault {fault.kind}: this dialect has no step {fault.step!r},"
                f" only {', '.join(self._steps)}"
            )
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Forget all faults. What a connection is in the middle of goes on."""
        with self._lock:
            self._faults.clear()

    def at_step(self, step: str) -> Fault | None:
        """Return the fault that acts now, or None; a fault that is returned counts as acted."""
        return self._take(lambda fault: fault.step == step)

    def at_command(self, word: str) -> Fault | None:
        """Return the fault that acts on the answer to this command now, or None; likewise."""
        return self._take(lambda fault: fault.step is None and fault.command in (None, word))

    def _take(self, waits: Callable[[Fault], bool]) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if waits(fault) and (fault.count is None or fault.acted < fault.count):
                    fault.acted += 1
                    return fault
        return None


def parse_fault(text: str) -> Fault:
    """Make a fault of `KIND[,NAME=VALUE...]`, as in `cut,command=get,byte=5,count=1`.

    NAME is step, command, byte, seconds, count or text; text takes the rest with all its commas.
    Raises UsageError that names the word that is wrong.
    """
    kind, _, rest = text.partition(",")
    given: dict[str, str] = {}
    while rest:
        item, _, after = rest.partition(",")
        name, equals, value = item.partition("=")
        if name == "text":
            value, after = rest.partition("=")[2], ""
        if not equals:
            raise UsageError(f"fault {kind}: {item!r} does not read NAME=VALUE")
        if name in given:
            raise UsageError(f"fault {kind}: {name} is given twice")
        given[name] = value
        rest = after
    unknown = [name for name in given if name not in _READ]
    if unknown:
        raise UsageError(f"fault {kind}: no {unknown[0]!r}; there are {', '.join(_READ)}")
    values = {}
    for name, value in given.items():
        try:
            values[name] = _READ[name](value)
        except ValueError:
            raise UsageError(f"fault {kind}: {name} cannot be {value!r}") from None
    return Fault(kind, **values)


_READ: dict[str, Callable[[str], Any]] = {
    "step": str,
    "command": str,
    "byte": int,
    "seconds": float,
    "count": int,
    "text": str.encode,
}
