"""The host table of a LON-CAPA network: `hosts.tab` and, on later sites, `dns_hosts.tab`.

A row is `<id>:<domain>:<role>:<DNS name>:<IP address>`, later with `http` or `https` in the place
of the address; what follows does not concern lonc. `#` begins a comment, and a line that begins
with `^` names a directory server.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

from lonc.broker.table import NotAllowed
from lonc.daemon.log_lines import printable
from lonc.daemon.settings import HostId

FILES = ("hosts.tab", "dns_hosts.tab")
ROLES = ("library", "access")
# Instead of an address in the fifth column: the name is to be looked up.
PROTOCOLS = ("", "http", "https")


class HostRow(NamedTuple):
    """One host of the network.

    id       its id, which is unique in the network
    domain   the LON-CAPA domain that it belongs to
    role     one of ROLES
    name     its DNS name, in lower case; other ids may share it
    address  where to connect to: its IP address where the row has one, else `name`
    place    file and line of the row
    """

    id: str
    domain: str
    role: str
    name: str
    address: str
    place: str


def read_hosts(directory: str) -> tuple[list[HostRow], list[str]]:
    """Read both files of a directory. An id that both have is that of `hosts.tab`.

    Returns the rows, and a line for each problem: a file that cannot be read, a row that cannot be
    understood, with file and line, or an id that stands twice in one file. One of the two files may
    be missing.
    """
    rows: dict[str, HostRow] = {}
    problems: list[str] = []
    missing = 0
    for name in FILES:
        path = os.path.join(directory, name)
        try:
            with open(path, encoding="utf-8", errors="backslashreplace") as file:
                text = file.read()
        except FileNotFoundError:
            missing += 1
            continue
        except OSError as error:
            problems.append(f"{path}: cannot be read: {error.strerror}")
            continue
        except ValueError as error:
            # Its name cannot be one: it has a null byte.
            problems.append(f"{printable(path)}: cannot be read: {error}")
            continue
        for host_id, row in _read_rows(path, text, problems).items():
            rows.setdefault(host_id, row)
    if missing == len(FILES):
        problems.append(f"{os.path.join(directory, FILES[0])}: there is no such file")
    return list(rows.values()), problems


def _read_rows(path: str, text: str, problems: list[str]) -> dict[str, HostRow]:
    rows: dict[str, HostRow] = {}
    # Only a line feed ends a row: splitlines() knows ends that other readers of the file do not.
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith(("#", "^")):
            continue
        place = f"{path}:{number}"
        try:
            row = _read_row(place, line)
        except ValueError as error:
            problems.append(f"{place}: {error}")
            continue
        if row.id in rows:
            first = rows[row.id].place
            problems.append(f"{place}: the host {row.id} stands in {first} already")
            continue
        rows[row.id] = row
    return rows


def _read_row(place: str, line: str) -> HostRow:
    """Raises ValueError with what is wrong."""
    columns = [column.strip() for column in line.split(":")]
    if len(columns) < 4:
        raise ValueError(
            f"a row has the columns id:domain:role:name:address, here are {len(columns)}"
        )
    host_id, domain, role, name = columns[:4]
    address = columns[4] if len(columns) > 4 else ""
    if not _is_file_name(host_id):
        raise ValueError(f"the first column must be {HostId.allowed}, and is {host_id!r}")
    if not domain:
        raise ValueError("the second column, the domain, is empty")
    if role not in ROLES:
        raise ValueError(f"the third column must be {' or '.join(ROLES)}, and is {role!r}")
    if not _is_file_name(name):
        raise ValueError(f"the fourth column must be a host name, and is {name!r}")
    if address not in PROTOCOLS and not _is_address(address):
        raise ValueError(
            f"the fifth column must be an IP address, http or https, and is {address!r}"
        )
    name = name.lower()
    return HostRow(host_id, domain, role, name, name if address in PROTOCOLS else address, place)


def _is_file_name(text: str) -> bool:
    """Whether a socket can be called so: ids and DNS names become file names."""
    try:
        HostId().take(text)
    except NotAllowed:
        return False
    return True


def _is_address(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, text)
    except OSError:
        return False
    return True
