"""The dialogue that makes a fresh connection usable.

A `Dialogue` walks the table of its dialect from CONNECTED to IDLE. It has one door, `_enter`:
every event goes through it, and an event without an entry for the present state is a
`DialogueError` that names both. What else a line teaches (the peer's version, the host that is
set, the session key) is kept in attributes for the connection that comes out of it.

A dialect that agrees on its key in another way brings its own opening line, states and rows in
its table, and sets `key` and `key_mode` in `_learn`; nothing else in this module knows how.
"""

from __future__ import annotations

from ..errors import LoncError
from .dialects import (
    BEGIN,
    CONNECTED,
    IDLE,
    OK,
    RECEIVING_KEY,
    REFUSED,
    SETTING_HOST,
    VERSION,
    VERSION_PREFIX,
    event_of,
)
from .envelope import session_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .dialects import Dialect

# A lond of a later minor revision takes `sethost:<id>:` in front of a command, in the same line.
LAST_MINOR_WITHOUT_INLINE_SETHOST = 321


class DialogueError(LoncError):
    """The peer said something that its dialect does not foresee: the connection is finished.

    reason   what came and in which state, for a log; never the text of the line itself
    refused  True where the line was `refused`: the peer does not want this machine, and another
             address of its name is worth a try
    """

    def __init__(self, reason: str, refused: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.refused = refused


class Dialogue:
    """The dialogue on one connection, from TCP being up to the first request.

    dialect   whose table to follow
    own_id    this machine's host id (for the session key)
    peer_id   the peer's host id (for `sethost` and the session key)

    state           the name of the present state, one of lonc.wire.dialects
    key             the session key, 16 bytes, or None as long as there is none
    key_mode        how the key was agreed: "insecure" (over the clear connection), or None
    peer_version    the revision that the peer claims, as printable text of at most 64 characters,
                    or None where it did not say
    inline_sethost  True where the peer takes `sethost:<id>:` in front of a command
    current_host    the host id that the peer acts as, or None where that is not known

    Raises ValueError for an id with characters beyond Latin-1.
    """

    __slots__ = (
        "_dialect",
        "_own_id",
        "_peer",
        "_peer_id",
        "current_host",
        "inline_sethost",
        "key",
        "key_mode",
        "peer_version",
        "state",
    )

    def __init__(self, dialect: Dialect, own_id: str, peer_id: str) -> None:
        self._dialect = dialect
        self._own_id = own_id
        self._peer_id = peer_id
        self._peer = peer_id.encode("latin-1")
        self.state = CONNECTED
        self.key: bytes | None = None
        self.key_mode: str | None = None
        self.peer_version: str | None = None
        self.inline_sethost = False
        self.current_host: str | None = None

    @property
    def done(self) -> bool:
        """True when the connection is IDLE and may carry requests."""
        return self.state == IDLE

    def begin(self) -> bytes:
        """Start; return what to send first.

        Returns b"" where the dialect has no dialogue; `done` is True then.
        Raises DialogueError when called again.
        """
        self._enter(BEGIN)
        return self._outgoing(b"")

    def receive(self, line: bytes) -> bytes:
        """Take one line from the peer; return what to send next.

        line: the whole line with its LF. A rest without LF, or b"", stands for the end of the
              stream and is always an error.
        Returns a line with its LF, or b"" when there is nothing to send because `done` is True.
        Raises DialogueError for a line that has no place in the present state; the dialogue then
        stays as it was, and the connection is of no use any more.
        """
        event = event_of(line)
        answered = self.state
        self._enter(event)
        self._learn(answered, event, line)
        return self._outgoing(line)

    def _enter(self, event: str) -> None:
        """Go where `event` leads: the only place where the state is set."""
        try:
            self.state = self._dialect.steps[self.state][event]
        except KeyError:
            raise DialogueError(
                f"got {event} in state {self.state}", refused=event == REFUSED
            ) from None

    def _outgoing(self, line: bytes) -> bytes:
        template = self._dialect.sends.get(self.state, b"")
        return template % {b"line": line, b"peer": self._peer}

    def _learn(self, answered: str, event: str, line: bytes) -> None:
        """Keep what `line`, the answer that state `answered` waited for, has to tell."""
        if event == VERSION:
            revision = _revision(line)
            self.peer_version = _printable(revision[:64])
            self.inline_sethost = _minor(revision) > LAST_MINOR_WITHOUT_INLINE_SETHOST
        elif answered == SETTING_HOST and event == OK:
            self.current_host = self._peer_id
        elif answered == RECEIVING_KEY:
            self.key = session_key(self._peer_id, self._own_id, line[:-1])
            self.key_mode = "insecure"


def _revision(line: bytes) -> bytes:
    """Return the text of a `version:` line, taken out of the keyword dollars of RCS."""
    text = line.removeprefix(VERSION_PREFIX).strip()
    return text.strip(b"$").removeprefix(b"Revision:").strip()


def _minor(revision: bytes) -> int:
    """Return the number behind the first dot, 0 where there is none."""
    rest = revision.partition(b".")[2]
    digits = rest[: len(rest) - len(rest.lstrip(b"0123456789"))]
    # The peer's text is of any length, and Python refuses numbers of thousands of digits.
    return int(digits[:9] or b"0")


def _printable(text: bytes) -> str:
    """Return `text` fit for a log or a terminal: a `?` for all but printable ASCII."""
    return "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in text)
