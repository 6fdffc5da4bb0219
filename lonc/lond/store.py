"""What the built-in peer keeps: databases of keys and values, accounts, activity logs.

LON-CAPA has one file for each namespace of each user. Here all of them are in one SQLite file,
and a namespace is there from the first write on. Names, keys and values are bytes, kept as they
came.
"""

from __future__ import annotations

import sqlite3
import threading
import time

from ..errors import UsageError
from . import passwords

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    Pairs: TypeAlias = Iterable[tuple[bytes, bytes]]
    Name: TypeAlias = tuple[bytes, bytes, bytes]

_TABLES = """
CREATE TABLE IF NOT EXISTS namespace (
    id INTEGER PRIMARY KEY,
    domain BLOB NOT NULL, user BLOB NOT NULL, name BLOB NOT NULL,
    UNIQUE (domain, user, name)
);
CREATE TABLE IF NOT EXISTS entry (
    namespace INTEGER NOT NULL REFERENCES namespace (id),
    key BLOB NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (namespace, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS account (
    domain BLOB NOT NULL, user BLOB NOT NULL, password TEXT NOT NULL,
    PRIMARY KEY (domain, user)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS activity (
    id INTEGER PRIMARY KEY,
    domain BLOB NOT NULL, user BLOB NOT NULL, at INTEGER NOT NULL, text BLOB NOT NULL
);
"""

_SELECT_ID = "SELECT id FROM namespace WHERE domain = ? AND user = ? AND name = ?"
_SELECT_VALUE = "SELECT value FROM entry WHERE namespace = ? AND key = ?"
_SELECT_ALL = "SELECT key, value FROM entry WHERE namespace = ? ORDER BY key"


class Missing(LookupError):
    """Nothing was ever written to the namespace that was asked for."""


class Store:
    """Databases, accounts and activity logs in one SQLite file.

    path: the file, made where there is none; ":memory:" keeps everything in memory, for the life
          of this object.
    A namespace is named by a tuple (domain, user, namespace). Every method is one transaction, and
    any thread may call it. What SQLite cannot do (a full disk, a file that another process holds
    for five seconds) is raised as sqlite3.Error, and then nothing was changed.

    Raises UsageError when the file cannot be opened or is something else.
    """

    def __init__(self, path: str = ":memory:") -> None:
        self._lock = threading.Lock()
        try:
            # The lock does what SQLite's own check of threads is there for.
            self._db = sqlite3.connect(path, check_same_thread=False)
        except sqlite3.Error as error:
            raise UsageError(f"cannot open the store {path}: {error}") from error
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_TABLES)
        except sqlite3.Error as error:
            self._db.close()
            raise UsageError(f"cannot use {path} as a store: {error}") from error

    def close(self) -> None:
        """Close the file. Every later call raises sqlite3.ProgrammingError."""
        with self._lock:
            self._db.close()

    # Databases

    def put(self, name: Name, pairs: Pairs) -> None:
        """Set each key of `pairs` to its value."""
        with self._lock, self._db:
            self._write(self._made(name), pairs)

    def put_new(self, name: Name, pairs: Pairs) -> bytes | None:
        """Set the pairs, unless one of the keys is there already.

        Returns None when they were set, otherwise the first key that was there; nothing is
        changed then.
        """
        pairs = list(pairs)
        with self._lock, self._db:
            namespace = self._made(name)
            for key, _ in pairs:
                if self._read(namespace, key) is not None:
                    return key
            self._write(namespace, pairs)
        return None

    def get(self, name: Name, keys: Iterable[bytes]) -> list[bytes]:
        """Return the value of each key, in the order of `keys`; b"" for one that is not there.

        Raises Missing.
        """
        with self._lock:
            namespace = self._found(name)
            return [self._read(namespace, key) or b"" for key in keys]

    def delete(self, name: Name, keys: Iterable[bytes]) -> None:
        """Remove the keys; one that is not there is no error."""
        with self._lock, self._db:
            namespace = self._made(name)
            self._db.executemany(
                "DELETE FROM entry WHERE namespace = ? AND key = ?",
                [(namespace, key) for key in keys],
            )

    def dump(self, name: Name) -> list[tuple[bytes, bytes]]:
        """Return all keys and values, in the order of the keys. Raises Missing."""
        with self._lock:
            return self._db.execute(_SELECT_ALL, (self._found(name),)).fetchall()

    def increment(self, name: Name, pairs: Iterable[tuple[bytes, float]]) -> None:
        """Add to the number under each key; a key that is not there counts as 0.

        Raises ValueError when a value is no number; nothing is changed then.
        """
        with self._lock, self._db:
            namespace = self._made(name)
            for key, step in pairs:
                total = float(self._read(namespace, key) or b"0") + step
                self._write(namespace, [(key, b"%.15g" % total)])

    def append_version(self, name: Name, record: bytes, pairs: Pairs) -> int:
        """Keep `pairs` as the next version of `record`; return its number, 1 for the first.

        As in LON-CAPA, version n of record r stands under the keys `n:r:<key>`, with the names
        of its keys in `n:keys:r` and its time (seconds since 1970) in `n:r:timestamp`; `version:r`
        is the number of the last one.

        Raises ValueError when that is no number, or too long a one; nothing is changed then.
        """
        pairs = list(pairs)
        with self._lock, self._db:
            namespace = self._made(name)
            counter = b"version:" + record
            version = int(self._read(namespace, counter) or b"0") + 1
            rows = [(b"%d:%b:%b" % (version, record, key), value) for key, value in pairs]
            rows.append((b"%d:keys:%b" % (version, record), b":".join(key for key, _ in pairs)))
            rows.append((b"%d:%b:timestamp" % (version, record), b"%d" % time.time()))
            rows.append((counter, b"%d" % version))
            self._write(namespace, rows)
        return version

    # Accounts

    def create_account(self, domain: bytes, user: bytes, password: bytes) -> bool:
        """Make an account; return False, and change nothing, where there is one already."""
        kept = passwords.digest(password)
        with self._lock, self._db:
            done = self._db.execute(
                "INSERT OR IGNORE INTO account VALUES (?, ?, ?)", (domain, user, kept)
            )
            return done.rowcount == 1

    def has_account(self, domain: bytes, user: bytes) -> bool:
        """Return whether there is such an account."""
        return self._password(domain, user) is not None

    def check_password(self, domain: bytes, user: bytes, password: bytes) -> bool:
        """Return whether there is such an account with this password."""
        kept = self._password(domain, user)
        return kept is not None and passwords.matches(password, kept)

    def change_password(self, domain: bytes, user: bytes, old: bytes, new: bytes) -> bool:
        """Set a new password; return False, and change nothing, where `old` is not the present one.

        Of two changes at once that both know the present password, one is made.
        """
        kept = self._password(domain, user)
        if kept is None or not passwords.matches(old, kept):
            return False
        made = passwords.digest(new)
        with self._lock, self._db:
            done = self._db.execute(
                "UPDATE account SET password = ? WHERE domain = ? AND user = ? AND password = ?",
                (made, domain, user, kept),
            )
            return done.rowcount == 1

    # Activity logs

    def log(self, domain: bytes, user: bytes, text: bytes) -> None:
        """Add a line to the user's activity log."""
        with self._lock, self._db:
            self._db.execute(
                "INSERT INTO activity (domain, user, at, text) VALUES (?, ?, ?, ?)",
                (domain, user, int(time.time()), text),
            )

    def logged(self, domain: bytes, user: bytes) -> list[tuple[int, bytes]]:
        """Return the user's activity log, oldest first: (seconds since 1970, text)."""
        with self._lock:
            return self._db.execute(
                "SELECT at, text FROM activity WHERE domain = ? AND user = ? ORDER BY id",
                (domain, user),
            ).fetchall()

    # The steps of a transaction; the caller holds the lock.

    def _found(self, name: Name) -> int:
        row = self._db.execute(_SELECT_ID, name).fetchone()
        if row is None:
            raise Missing(name)
        return int(row[0])

    def _made(self, name: Name) -> int:
        self._db.execute(
            "INSERT OR IGNORE INTO namespace (domain, user, name) VALUES (?, ?, ?)", name
        )
        return self._found(name)

    def _read(self, namespace: int, key: bytes) -> bytes | None:
        row = self._db.execute(_SELECT_VALUE, (namespace, key)).fetchone()
        return None if row is None else bytes(row[0])

    def _write(self, namespace: int, pairs: Pairs) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO entry VALUES (?, ?, ?)",
            [(namespace, key, value) for key, value in pairs],
        )

    def _password(self, domain: bytes, user: bytes) -> str | None:
        with self._lock:
            row = self._db.execute(
                "SELECT password FROM account WHERE domain = ? AND user = ?", (domain, user)
            ).fetchone()
        return None if row is None else str(row[0])
