"""What the built-in peer answers to a command.

The words and the form of the answers are those of LON-CAPA's lond, as far as a broker, its tests
and a person at a terminal have use for them. Two are this peer's own:

    echo:<text>          the text
    blob:<n>[:<text>]    n bytes: the text (or `x`) over and over, the last one cut to fit
"""

from __future__ import annotations

import os
import re
import sqlite3

from .store import Missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from .store import Name, Store

    Fields: TypeAlias = list[bytes]

ENCRYPTED_ONLY = frozenset((b"auth", b"currentauth", b"passwd", b"makeuser"))

# One request must not take all memory. The default `max_reply` of a broker is a quarter of this.
MAX_BLOB = 256 * 1024 * 1024


class NoKey(Exception):
    """The connection has no session key, or the machine has no cipher."""


class Call:
    """One command that was received, and what its answer may depend on.

    command    the command as the caller wrote it: decrypted, without `sethost:`, without LF
    encrypted  whether it came in an envelope
    host_id    the host that the peer acts as
    seal       callable: the text of an answer -> its envelope; raises NoKey
    complain   callable: what the client did wrong, without arguments -> None
    last       set by a command after whose answer the connection is closed
    """

    __slots__ = ("command", "complain", "encrypted", "host_id", "last", "seal")

    def __init__(
        self,
        command: bytes,
        *,
        encrypted: bool,
        host_id: str,
        seal: Callable[[bytes], bytes],
        complain: Callable[[str], None],
    ) -> None:
        self.command = command
        self.encrypted = encrypted
        self.host_id = host_id
        self.seal = seal
        self.complain = complain
        self.last = False


class Refusal(Exception):
    """A command that is not carried out; `answer` says why."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(answer)
        self.answer = answer


class Commands:
    """The commands on one store.

    version   the revision that `version` tells
    caller    the host id of the machine whose brokers call: what it would answer to a `ping`
    workload  callable -> the number that `userload` tells
    """

    def __init__(
        self, store: Store, *, version: str, caller: str, workload: Callable[[], int]
    ) -> None:
        self._store = store
        self._version = version
        self._caller = caller
        self._workload = workload

    def answer(self, call: Call) -> bytes:
        """Carry out one command; return the answer, without LF. A bad command raises nothing."""
        word, _, text = call.command.partition(b":")
        row = _TABLE.get(word)
        if row is None:
            return b"unknown_cmd"
        if word in ENCRYPTED_ONLY and not call.encrypted:
            call.complain(f"sent {word.decode()} in clear")
            return b"refused"
        run, needed, names = row
        count = len(names.split())
        fields = text.split(b":", count - 1) if count else []
        fields += [b""] * (count - len(fields))
        if b"" in fields[:needed]:
            return b"error: %b wants %b" % (word, names.replace(" ", ":").encode())
        try:
            return run(self, call, fields)
        except Refusal as refusal:
            return refusal.answer
        except Missing:
            return b"error: 2 tie(GDBM) Failed while attempting " + word
        except NoKey:
            return b"error:no_key"
        except (sqlite3.Error, OSError) as error:
            return b"error: %b while attempting %b" % (str(error).encode(), word)

    # About the machine

    def _ping(self, call: Call, _: Fields) -> bytes:
        return call.host_id.encode()

    def _pong(self, call: Call, _: Fields) -> bytes:
        return f"{call.host_id}:{self._caller}".encode()

    def _tell_version(self, _call: Call, _: Fields) -> bytes:
        return f"version:{self._version}".encode()

    def _load(self, _call: Call, _: Fields) -> bytes:
        """The load of the last minute, in percent of the processors."""
        return b"%.1f" % (100 * os.getloadavg()[0] / (os.cpu_count() or 1))

    def _userload(self, _call: Call, _: Fields) -> bytes:
        return b"%d" % self._workload()

    def _exit(self, call: Call, _: Fields) -> bytes:
        call.last = True
        return b"bye"

    def _echo(self, _call: Call, fields: Fields) -> bytes:
        return fields[0]

    def _blob(self, _call: Call, fields: Fields) -> bytes:
        number, text = fields[0], fields[1] or b"x"
        # A number of more digits is too large, and need not be worked out.
        if not number.isdigit() or len(number) > 12 or int(number) > MAX_BLOB:
            raise Refusal(b"error: blob wants a size of at most %d bytes" % MAX_BLOB)
        size = int(number)
        return (text * (size // len(text) + 1))[:size]

    # Databases

    def _put(self, _call: Call, fields: Fields) -> bytes:
        name, pairs = _record(fields)
        self._store.put(name, _pairs(pairs))
        return b"ok"

    def _newput(self, _call: Call, fields: Fields) -> bytes:
        name, pairs = _record(fields)
        there = self._store.put_new(name, _pairs(pairs))
        return b"ok" if there is None else b"key_exists: " + there

    def _inc(self, _call: Call, fields: Fields) -> bytes:
        """Add; a pair without a value adds 1."""
        name, pairs = _record(fields)
        try:
            steps = [(key, float(value or b"1")) for key, value in _pairs(pairs)]
            self._store.increment(name, steps)
        except ValueError as error:
            raise Refusal(b"error: inc wants numbers") from error
        return b"ok"

    def _get(self, _call: Call, fields: Fields) -> bytes:
        name, keys = _record(fields)
        return b"&".join(self._store.get(name, keys.split(b"&")))

    def _eget(self, call: Call, fields: Fields) -> bytes:
        return call.seal(self._get(call, fields))

    def _del(self, _call: Call, fields: Fields) -> bytes:
        name, keys = _record(fields)
        self._store.delete(name, keys.split(b"&"))
        return b"ok"

    def _keys(self, _call: Call, fields: Fields) -> bytes:
        name, _ = _record(fields)
        return b"&".join(key for key, _ in self._store.dump(name))

    def _dump(self, _call: Call, fields: Fields) -> bytes:
        """All keys with their values, or those in whose unescaped form an expression is found."""
        name, choice = _record(fields)
        expression, _, extent = choice.partition(b":")
        if extent:
            raise Refusal(b"error: dump takes no range here")
        try:
            wanted = re.compile(_unescape(expression))
        except (re.error, OverflowError, RecursionError) as error:
            raise Refusal(b"error: dump wants a regular expression") from error
        rows = self._store.dump(name)
        return b"&".join(
            b"%b=%b" % (key, value) for key, value in rows if wanted.search(_unescape(key))
        )

    def _append(self, _call: Call, fields: Fields) -> bytes:
        domain, user, namespace, record, pairs = fields
        try:
            self._store.append_version((domain, user, namespace), record, _pairs(pairs))
        except ValueError as error:
            raise Refusal(b"error: store wants a number in version:<id>") from error
        return b"ok"

    def _log(self, _call: Call, fields: Fields) -> bytes:
        domain, user, text = fields
        self._store.log(domain, user, text)
        return b"ok"

    # Accounts

    def _auth(self, _call: Call, fields: Fields) -> bytes:
        domain, user, password, _ = fields
        known = self._store.check_password(domain, user, _unescape(password))
        return b"authorized" if known else b"non_authorized"

    def _currentauth(self, _call: Call, fields: Fields) -> bytes:
        domain, user, _ = fields
        return b"internal:" if self._store.has_account(domain, user) else b"unknown_user"

    def _passwd(self, _call: Call, fields: Fields) -> bytes:
        domain, user, old, new, _ = fields
        done = self._store.change_password(domain, user, _unescape(old), _unescape(new))
        return b"ok" if done else b"non_authorized"

    def _makeuser(self, _call: Call, fields: Fields) -> bytes:
        """Only accounts whose password is kept here: no other way of proving one is built in."""
        domain, user, mode, password = fields
        if mode != b"internal":
            return b"auth_mode_error"
        made = self._store.create_account(domain, user, _unescape(password))
        return b"ok" if made else b"already_exists"


def _record(fields: Fields) -> tuple[Name, bytes]:
    """Return the namespace that a command names, and what is left of it."""
    domain, user, namespace, rest = fields
    return (domain, user, namespace), rest


def _pairs(text: bytes) -> list[tuple[bytes, bytes]]:
    """Take `k=v&k=v` apart. A pair without `=` has the empty value."""
    rows = (item.partition(b"=") for item in text.split(b"&") if item)
    return [(key, value) for key, _, value in rows]


def _unescape(text: bytes) -> bytes:
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes.fromhex(found[1].decode()), text)


# word -> (method, how many fields must be there and not empty, the names of the fields). The last
# field takes the rest of the line. `more` is what callers of later versions add and nothing needs.
_TABLE: dict[bytes, tuple[Callable[[Commands, Call, Fields], bytes], int, str]] = {
    b"ping": (Commands._ping, 0, ""),
    b"pong": (Commands._pong, 0, ""),
    b"version": (Commands._tell_version, 0, ""),
    b"load": (Commands._load, 0, ""),
    b"userload": (Commands._userload, 0, ""),
    b"exit": (Commands._exit, 0, ""),
    b"echo": (Commands._echo, 0, "text"),
    b"blob": (Commands._blob, 1, "size text"),
    b"put": (Commands._put, 4, "domain user namespace pairs"),
    b"newput": (Commands._newput, 4, "domain user namespace pairs"),
    b"inc": (Commands._inc, 4, "domain user namespace pairs"),
    b"get": (Commands._get, 4, "domain user namespace keys"),
    b"eget": (Commands._eget, 4, "domain user namespace keys"),
    b"del": (Commands._del, 4, "domain user namespace keys"),
    b"keys": (Commands._keys, 3, "domain user namespace more"),
    b"dump": (Commands._dump, 3, "domain user namespace expression"),
    b"store": (Commands._append, 5, "domain user namespace id pairs"),
    b"log": (Commands._log, 2, "domain user text"),
    b"auth": (Commands._auth, 3, "domain user password more"),
    b"currentauth": (Commands._currentauth, 2, "domain user more"),
    b"passwd": (Commands._passwd, 4, "domain user old new more"),
    b"makeuser": (Commands._makeuser, 4, "domain user mode password"),
}
