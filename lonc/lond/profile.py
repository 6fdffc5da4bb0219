"""Who the built-in peer is, and how it speaks. The same for all its connections."""

from __future__ import annotations

import re

from ..errors import UsageError
from ..wire.dialects import DIALECTS
from ..wire.dialogue import LAST_MINOR_WITHOUT_INLINE_SETHOST
from .faults import CONNECT, ECHO, EKEY, IDLE, INIT, SETHOST, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# dialect -> the lines of the client that the dialogue consists of, in their order.
DIALOGUES: dict[str, tuple[str, ...]] = {
    "classic": (INIT, ECHO, EKEY),
    "versioned": (INIT, ECHO, VERSION, SETHOST, EKEY),
    "line": (),
}

_HOST_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_REVISION = re.compile(r"\d{1,9}\.(\d{1,9})(\.\d{1,9})*")


class Profile:
    """Who a peer is, and how it speaks. Immutable by convention.

    id       the peer's host id
    ids      all ids that it accepts in a `sethost:`, its own among them
    caller   the host id of the machine whose brokers call; the session key is made of both
    dialect  the lonc.wire.dialects.Dialect of all its connections
    version  the revision that it claims, as in `1.489`
    executes_cut_lines  whether it takes a line that the end of the stream cut for a whole one

    Raises UsageError for an id, a revision or the name of a dialect that cannot be.
    """

    __slots__ = ("caller", "dialect", "executes_cut_lines", "id", "ids", "version")

    def __init__(
        self,
        *,
        id: str,
        also: Iterable[str],
        caller: str,
        dialect: str,
        version: str,
        executes_cut_lines: bool,
    ) -> None:
        self.id = id
        self.ids = frozenset((id, *also))
        self.caller = caller
        for name in (*sorted(self.ids), caller):
            if not _HOST_ID.fullmatch(name):
                raise UsageError(
                    f"host id {name!r}: letters, digits, `.`, `_` and `-`, and no `.` in front"
                )
        if dialect not in DIALECTS:
            raise UsageError(f"no dialect {dialect!r}; there are {', '.join(DIALECTS)}")
        self.dialect = DIALECTS[dialect]
        if not _REVISION.fullmatch(version):
            raise UsageError(f"version {version!r}: a revision looks like 1.489")
        self.version = version
        self.executes_cut_lines = executes_cut_lines

    @property
    def dialogue(self) -> tuple[str, ...]:
        """The steps of the dialogue, by the line that the client sends in each."""
        return DIALOGUES[self.dialect.name]

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps in which a fault may wait."""
        return (CONNECT, *self.dialogue, IDLE)

    @property
    def inline_sethost(self) -> bool:
        """Whether `sethost:<id>:` in front of a command is understood at this revision."""
        return int(self.version.split(".")[1]) > LAST_MINOR_WITHOUT_INLINE_SETHOST
