"""Tables of settings: each a frozen object, whose rows say what they take, by default, and why.

A setting is written once, as a row in the body of a `Table`. What checks a configuration file and a
command line, and the reference manual, all come from there.
"""

from __future__ import annotations

import grp
import pwd

from lonc.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

LIVE = "live"
SUCCESSOR = "by a successor"
RESTART = "at restart"

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
UNITS = {"GiB": GIB, "MiB": MIB, "KiB": KIB}

WHOLE_32 = 2**31 - 1


class NotAllowed(Exception):
    """A value that a setting does not take; the text, if any, adds a reason to what is allowed."""


class Kind:
    """What values a setting takes: `allowed` says it to a person, in the manual and in errors."""

    allowed = ""

    def take(self, value: object) -> Any:
        """Return `value` in the form that the program uses.

        Raises NotAllowed.
        """
        raise NotImplementedError

    def show(self, value: Any) -> str:
        """Return a value that `take` gave, written as in a configuration file."""
        return written(value)


class Count(Kind):
    """A whole number from `least` to `most`."""

    def __init__(self, least: int, most: int = WHOLE_32) -> None:
        self.least = least
        self.most = most
        self.allowed = f"a whole number from {least} to {most}"

    def take(self, value: object) -> int:
        if type(value) is not int or not self.least <= value <= self.most:
            raise NotAllowed
        return value


class Size(Kind):
    """A number of bytes, from 1 to 1 GiB: as a number, or as text with a unit, "64 KiB"."""

    allowed = 'a size in bytes from 1 to 1 GiB, as 65536 or "64 KiB" (units: KiB, MiB, GiB)'

    def take(self, value: object) -> int:
        if isinstance(value, str):
            number, _, unit = value.partition(" ")
            if not (number.isascii() and number.isdigit()) or unit not in UNITS:
                raise NotAllowed
            # Python refuses to read very long numbers, and none of more digits is in the range.
            if len(number) > 10:
                raise NotAllowed
            value = int(number) * UNITS[unit]
        if type(value) is not int or not 1 <= value <= GIB:
            raise NotAllowed
        return value

    def show(self, value: int) -> str:
        for unit, size in UNITS.items():
            if value % size == 0:
                return f'"{value // size} {unit}"'
        return str(value)


class Seconds(Kind):
    """A duration in seconds, whole or not; zero only where `zero` says so."""

    def __init__(self, *, zero: bool = False) -> None:
        self.least = 0.0 if zero else 0.001
        self.allowed = f"a number of seconds from {self.least:g} to {WHOLE_32}"

    def take(self, value: object) -> float:
        return _number(value, self.least, WHOLE_32)

    def show(self, value: float) -> str:
        return f"{value:g}"


class Share(Kind):
    """A part of the whole, from 0 to 1."""

    allowed = "a number from 0 to 1"

    def take(self, value: object) -> float:
        return _number(value, 0, 1)


class Flag(Kind):
    """Yes or no."""

    allowed = "true or false"

    def take(self, value: object) -> bool:
        if type(value) is not bool:
            raise NotAllowed
        return value


class Choice(Kind):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.allowed = "one of " + ", ".join(f'"{word}"' for word in words)

    def take(self, value: object) -> str:
        if not isinstance(value, str) or value not in self.words:
            raise NotAllowed
        return value


class Accounts(Kind):
    """A list of users or groups, by name or number; kept as a tuple of numbers."""

    def __init__(self, what: str, find: Callable[[str | int], int]) -> None:
        self.find = find
        self.allowed = f"a list of {what} names or numbers"

    def take(self, value: object) -> tuple[int, ...]:
        if not isinstance(value, (list, tuple)):
            raise NotAllowed
        return tuple(self.find(account) for account in value)

    def show(self, value: tuple[int, ...]) -> str:
        return written(list(value))


def _number(value: object, least: float, most: float) -> float:
    # Not isinstance, because true and false are ints. NaN is in no range.
    if type(value) is not int and type(value) is not float:
        raise NotAllowed
    if not least <= value <= most:
        raise NotAllowed
    return float(value)


def find_user(account: object) -> int:
    """Return the uid of a user given by name, or a number from 0 as it is; NotAllowed if none."""
    return _find(account, "user", lambda name: pwd.getpwnam(name).pw_uid)


def find_group(account: object) -> int:
    """Return the gid of a group given by name, or a number from 0 as it is; NotAllowed if none."""
    return _find(account, "group", lambda name: grp.getgrnam(name).gr_gid)


def _find(account: object, what: str, look_up: Callable[[str], int]) -> int:
    if type(account) is int and 0 <= account < 2**32 - 1:
        return account
    if not isinstance(account, str):
        raise NotAllowed
    try:
        return look_up(account)
    except (KeyError, ValueError):
        raise NotAllowed(f"there is no {what} {written(account)}") from None


def written(value: object) -> str:
    """Return a plain value as a configuration file writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(map(_escaped, value)) + '"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {written(item)}" for name, item in value.items()) + "}"
    if isinstance(value, int) and abs(value) >= 2**64:
        return hex(value)  # Python refuses to write very long numbers in decimal
    return str(value)


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else f"\\U{ord(char):08x}"


class Setting:
    """One row of a table. Read from the class it is this row; from an object, the value."""

    def __init__(self, default: Any, kind: Kind, effect: str, reason: str) -> None:
        self.name = ""
        self.default = default
        self.kind = kind
        self.effect = effect
        self.reason = reason

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def take(self, value: object) -> Any:
        """Return `value` as it is kept; the text of NotAllowed is the whole line of a problem."""
        try:
            return self.kind.take(value)
        except NotAllowed as error:
            more = f"; {error}" if str(error) else ""
            text = f"{self.name} = {written(value)}: must be {self.kind.allowed}{more}"
            raise NotAllowed(text) from None


def setting(default: Any, kind: Kind, effect: str, reason: str) -> Any:
    """Return a row for the body of a `Table`; `Any`, so that the row is annotated by its value."""
    return Setting(default, kind, effect, reason)


class Table:
    """Settings as one frozen object, an attribute for each row; compared by their values."""

    def __init__(self, **overrides: object) -> None:
        """Take the default of every row that `overrides` does not give.

        Raises ConfigError with a line for each unknown name and each value that is not allowed.
        """
        values, problems = self.check(overrides)
        if not problems:
            values = {name: row.default for name, row in self.rows().items()} | values
            problems = self.contradictions(values)
        if problems:
            raise ConfigError(problems)
        self.__dict__.update(values)

    @classmethod
    def rows(cls) -> dict[str, Setting]:
        """Return the rows by name, in the order in which they are written."""
        return {name: row for name, row in vars(cls).items() if isinstance(row, Setting)}

    @classmethod
    def check(cls, overrides: dict[str, object]) -> tuple[dict[str, object], list[str]]:
        """Return the overrides that are right, in the program's form, and a line for each other."""
        rows, values, problems = cls.rows(), {}, []
        for name, value in overrides.items():
            if name not in rows:
                problems.append(f"{name}: there is no such setting")
                continue
            try:
                values[name] = rows[name].take(value)
            except NotAllowed as error:
                problems.append(str(error))
        return values, problems

    @classmethod
    def contradictions(cls, values: dict[str, Any]) -> list[str]:
        """Return a line for each pair of values that cannot hold together; `values` is complete."""
        return []

    def replace(self, **overrides: object) -> Self:
        """Return a copy with some values changed; raises ConfigError as the constructor does."""
        values, problems = self.check(overrides)
        values = vars(self) | values
        problems = problems or self.contradictions(values)
        if problems:
            raise ConfigError(problems)
        copy = object.__new__(type(self))
        copy.__dict__.update(values)
        return copy

    def restored(self, values: dict[str, Any]) -> Self:
        """Return a copy with values taken over as they are from `vars` of an object like this."""
        copy = object.__new__(type(self))
        copy.__dict__.update(vars(self) | values)
        return copy

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings do not change; use replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"settings do not change; {name} stays")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __repr__(self) -> str:
        rows = self.rows()
        changed = [f"{k}={v!r}" for k, v in vars(self).items() if v != rows[k].default]
        return f"{type(self).__name__}({', '.join(changed)})"
