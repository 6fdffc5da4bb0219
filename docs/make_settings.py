"""Writes the manual's page on settings from the tables that the program itself uses.

python docs/make_settings.py > docs/settings.md
"""

from __future__ import annotations

import sys
import textwrap

from lonc.broker.settings import Settings
from lonc.broker.table import LIVE, RESTART, SUCCESSOR, NotAllowed
from lonc.daemon.settings import DaemonSettings, PeerSettings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lonc.broker.table import Setting, Table

WIDTH = 100

HEAD = f"""\
# Settings

This page is made from the program's own tables, by `docs/make_settings.py`.

Settings stand in a file like this one, which `lonc serve --config FILE` reads, or on the command
line as `--set NAME=VALUE`, which wins over the file. `lonc check --config FILE` says what is wrong
with a file, or shows what it means.

    own_id = "msul2"
    socket_dir = "/run/lonc"
    max_connections = 10

    [hosts.msul1]
    address = "127.0.0.1"
    port = 5663
    dialect = "classic"
    max_connections = 4        # for this host alone

A host's settings can stand on the command line too: `--host msul1=127.0.0.1:5663` for the host
itself, `--set hosts.msul1.max_connections=4` for what it has of its own. An IPv6 address with a
port has brackets there: `--host msul1=[::1]:5663`.

Times are in seconds, whole or not. Sizes are in bytes, as a number or as text with KiB, MiB or GiB.
What a change of a setting needs:

* *{LIVE}*: reading the configuration again; connections stay.
* *{SUCCESSOR}*: reading the configuration again; a new process takes the host's socket over, while
  the old one finishes what it has in flight.
* *{RESTART}*: a restart of the daemon.
"""

CHAPTERS = (
    ("The daemon", "These hold for all hosts, and stand before the first table.", DaemonSettings),
    ("A host", "These stand in the table `[hosts.ID]` of each host.", PeerSettings),
    (
        "A host's broker",
        "These stand before the first table, for all hosts, or in a host's table, for it alone.",
        Settings,
    ),
)


def manual() -> str:
    """Return the page, in Markdown."""
    parts = [HEAD]
    for title, text, table in CHAPTERS:
        parts += [f"## {title}\n", f"{text}\n", *_entries(table)]
    return "\n".join(parts)


def _entries(table: type[Table]) -> Iterator[str]:
    for name, row in table.rows().items():
        facts = f"{_default(row)} Takes {row.kind.allowed}. Changed {row.effect}."
        yield f"### `{name}`\n"
        yield f"{textwrap.fill(row.reason, WIDTH)}\n"
        yield f"{textwrap.fill(facts, WIDTH)}\n"


def _default(row: Setting) -> str:
    if row.default == "":
        try:
            row.kind.take("")
        except NotAllowed:
            return "No default: it must be given."
    return f"Default: `{row.kind.show(row.default)}`."


if __name__ == "__main__":
    sys.stdout.write(manual())
