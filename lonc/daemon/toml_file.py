"""Reading `lonc.toml`, with the line where each value stands.

Only a daemon that has such a file imports this: `tomllib` costs 4 ms of a start.
"""

from __future__ import annotations

import re
import tomllib

from lonc.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lonc.daemon.config import Draft

# What begins a line of TOML: "[a table]" or "[[one of many]]", or the name of a value and "=".
_NAME = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
_PATH = rf"({_NAME}(?:\s*\.\s*{_NAME})*)"
_TABLE_LINE = re.compile(rf"\s*\[\[?\s*{_PATH}\s*\]", re.ASCII)
_VALUE_LINE = re.compile(rf"\s*{_PATH}\s*=", re.ASCII)
_WHERE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def read_file(path: str, draft: Draft) -> None:
    """Put everything that a TOML file says into `draft`.

    Raises ConfigError with one line where the file cannot be read or is not TOML.
    """
    text = _text(path)
    document = _document(path, text)
    lines = _lines(text)

    def place(*names: str) -> str:
        for count in range(len(names), 0, -1):
            if names[:count] in lines:
                return f"{path}:{lines[names[:count]]}"
        return path

    hosts = document.pop("hosts", {})
    for name, value in document.items():
        draft.put(place(name), name, value)
    if not isinstance(hosts, dict):
        draft.problems.append(f"{place('hosts')}: hosts: must be tables, [hosts.ID] for each host")
        return
    for host_id, table in hosts.items():
        draft.add_host(place("hosts", host_id), host_id)
        if not isinstance(table, dict):
            where = place("hosts", host_id)
            draft.problems.append(f"{where}: hosts.{host_id}: must be a table [hosts.{host_id}]")
            continue
        for name, value in table.items():
            draft.put(place("hosts", host_id, name), name, value, host_id)


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: not UTF-8 text"]) from None


def _document(path: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        what = str(error)
    except RecursionError:
        what = "nested too deeply"
    where = _WHERE.search(what)
    if where is None:
        raise ConfigError([f"{path}: not TOML: {what}"])
    what = what[: where.start()]
    if where[1]:
        raise ConfigError([f"{path}:{where[1]}: not TOML: {what}, column {where[2]}"])
    raise ConfigError([f"{path}:{len(text.splitlines())}: not TOML: {what}, where the file ends"])


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the line where each path of names of a TOML document is first seen.

    tomllib keeps no lines. This looks at the beginnings of lines only, so a value inside braces
    is missing; what looks like a name inside a text of many lines counts, and does no harm.
    """
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if match := _TABLE_LINE.match(line):
            table = names = _names(match[1])
        elif match := _VALUE_LINE.match(line):
            names = table + _names(match[1])
        else:
            continue
        for count in range(1, len(names) + 1):
            lines.setdefault(names[:count], number)
    return lines


def _names(path: str) -> tuple[str, ...]:
    """Return the names of a dotted TOML path, quotes and escapes taken off."""
    try:
        document = tomllib.loads(f"[{path}]")
    except ValueError:
        return (path,)
    names = []
    while document:
        [(name, document)] = document.items()
        names.append(name)
    return tuple(names)
