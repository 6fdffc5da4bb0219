"""The dialects that a peer can speak, one table each.

A connection is in one state, and a state is named for what the connection waits for. What arrives
is an event: first the beginning, then the peer's lines, sorted by `event_of` without regard to
the state. `Dialect.steps` says where an event leads from each state, and `Dialect.sends` what is
said to the peer on arrival there. What stands in no table is an error.

A peer's challenge is answered, and its `ok` followed by the next question, in the step that takes
the line. So the states between hearing and answering (CHALLENGE_RECEIVED and REQUESTING_KEY, as
LON-CAPA calls them) last no time and have no entry.
"""

from __future__ import annotations

from types import MappingProxyType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# States.
CONNECTED = "CONNECTED"  # TCP is up, nothing was said
INITIALIZED = "INITIALIZED"  # said `init`, waits for the challenge
CHALLENGE_REPLIED = "CHALLENGE_REPLIED"  # echoed the challenge, waits for `ok`
READING_VERSION = "READING_VERSION"  # said `version`, waits for the peer's
SETTING_HOST = "SETTING_HOST"  # said `sethost:<id>`, waits for `ok`
RECEIVING_KEY = "RECEIVING_KEY"  # said `ekey`, waits for the peer's half of the session key
IDLE = "IDLE"  # the dialogue is over: requests may be sent

# Events, worded to follow "got".
BEGIN = "the beginning"
OK = "`ok`"
REFUSED = "`refused` (the peer does not know this machine's address)"
UNKNOWN = "`unknown_cmd`"
VERSION = "a `version:` line"
DIGITS = "a line of digits"
TEXT = "a line of another kind"
EMPTY = "an empty line"
END = "the end of the stream"

VERSION_PREFIX = b"version:"

_WORDS = {b"ok": OK, b"refused": REFUSED, b"unknown_cmd": UNKNOWN, b"": EMPTY}


def event_of(line: bytes) -> str:
    """Return the event that `line` is.

    line: what the peer sent, up to and with its LF. Without a LF at its end (a cut line, or
          nothing at all) it is what came before the end of the stream, and the event is END.
    """
    if not line.endswith(b"\n"):
        return END
    text = line[:-1]
    word = _WORDS.get(text)
    if word is not None:
        return word
    if text.startswith(VERSION_PREFIX):
        return VERSION
    return DIGITS if text.isdigit() else TEXT


class Dialect:
    """How to talk to one kind of peer. Immutable.

    name            what settings call it
    steps           state -> event -> next state; starts at CONNECTED and ends at IDLE
    sends           state -> what is sent on arrival in it, where anything is. `%(line)b` stands
                    for the line that led there, with its LF; `%(peer)b` for the peer's host id
    farewell        what is sent before an idle connection is closed in an orderly way
    local_lines     requests, without LF, that lonc answers itself
    encrypts        whether `encrypt:` before a request and `enc:` before a reply mean anything
    sets_host       whether `sethost:<id>:` before a request means anything
    empty_is_request  whether an empty line is a request like any other
    names_commands  whether a request begins with a command's name, which may then be logged
    """

    __slots__ = (
        "empty_is_request",
        "encrypts",
        "farewell",
        "local_lines",
        "name",
        "names_commands",
        "sends",
        "sets_host",
        "steps",
    )

    name: str
    steps: Mapping[str, Mapping[str, str]]
    sends: Mapping[str, bytes]
    farewell: bytes
    local_lines: frozenset[bytes]
    encrypts: bool
    sets_host: bool
    empty_is_request: bool
    names_commands: bool

    def __init__(
        self,
        name: str,
        *,
        steps: dict[str, dict[str, str]],
        sends: dict[str, bytes],
        farewell: bytes,
        local_lines: frozenset[bytes],
        encrypts: bool,
        sets_host: bool,
        empty_is_request: bool,
        names_commands: bool,
    ) -> None:
        rows = {state: MappingProxyType(dict(row)) for state, row in steps.items()}
        put = object.__setattr__
        put(self, "name", name)
        put(self, "steps", MappingProxyType(rows))
        put(self, "sends", MappingProxyType(dict(sends)))
        put(self, "farewell", farewell)
        put(self, "local_lines", local_lines)
        put(self, "encrypts", encrypts)
        put(self, "sets_host", sets_host)
        put(self, "empty_is_request", empty_is_request)
        put(self, "names_commands", names_commands)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a dialect cannot be changed (tried to set {name})")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a dialect cannot be changed (tried to delete {name})")

    def __repr__(self) -> str:
        return f"<Dialect {self.name}>"


# To lonc both the challenge and the key are opaque: any line that is not one of lond's own words.

CLASSIC = Dialect(
    "classic",
    steps={
        CONNECTED: {BEGIN: INITIALIZED},
        INITIALIZED: {DIGITS: CHALLENGE_REPLIED, TEXT: CHALLENGE_REPLIED},
        CHALLENGE_REPLIED: {OK: RECEIVING_KEY},
        RECEIVING_KEY: {DIGITS: IDLE, TEXT: IDLE},
        IDLE: {},
    },
    sends={
        INITIALIZED: b"init\n",
        CHALLENGE_REPLIED: b"%(line)b",
        RECEIVING_KEY: b"ekey\n",
    },
    farewell=b"exit\n",
    local_lines=frozenset((b"reset_retries", b"close_connection_exit")),
    encrypts=True,
    sets_host=True,
    empty_is_request=False,
    names_commands=True,
)

# An older lond answers `unknown_cmd` to what it has not learned yet, and that harms nothing.
VERSIONED = Dialect(
    "versioned",
    steps={
        CONNECTED: {BEGIN: INITIALIZED},
        INITIALIZED: {DIGITS: CHALLENGE_REPLIED, TEXT: CHALLENGE_REPLIED},
        CHALLENGE_REPLIED: {OK: READING_VERSION},
        READING_VERSION: {VERSION: SETTING_HOST, UNKNOWN: SETTING_HOST},
        SETTING_HOST: {OK: RECEIVING_KEY, UNKNOWN: RECEIVING_KEY},
        RECEIVING_KEY: {DIGITS: IDLE, TEXT: IDLE},
        IDLE: {},
    },
    sends={
        INITIALIZED: b"init\n",
        CHALLENGE_REPLIED: b"%(line)b",
        READING_VERSION: b"version\n",
        SETTING_HOST: b"sethost:%(peer)b\n",
        RECEIVING_KEY: b"ekey\n",
    },
    farewell=b"exit\n",
    local_lines=frozenset((b"reset_retries", b"close_connection_exit")),
    encrypts=True,
    sets_host=True,
    empty_is_request=False,
    names_commands=True,
)

LINE = Dialect(
    "line",
    steps={CONNECTED: {BEGIN: IDLE}, IDLE: {}},
    sends={},
    farewell=b"",
    local_lines=frozenset(),
    encrypts=False,
    sets_host=False,
    empty_is_request=True,
    names_commands=False,
)

DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {dialect.name: dialect for dialect in (CLASSIC, VERSIONED, LINE)}
)
