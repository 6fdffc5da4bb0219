"""`lonc check`: read a configuration, and show what was understood."""

from __future__ import annotations

import sys

from lonc.broker.settings import Settings
from lonc.cli.options import add_configuration, configuration_of
from lonc.cli.table import table
from lonc.daemon.settings import DaemonSettings

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from lonc.broker.table import Table
    from lonc.daemon.settings import Configuration, HostConfig

HELP = "read a configuration, say what is wrong with it, or show what it means"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes."""
    add_configuration(parser)
    parser.add_argument(
        "--all", action="store_true", help="show every setting, also those left at their default"
    )


def run(args: argparse.Namespace) -> int:
    """Print the configuration as tables. Raises ConfigError with a line for each problem."""
    if args.loncapa is not None:
        for line in site_described(args.loncapa, args.socket_names):
            print(line)
        sys.stdout.flush()
    configuration = configuration_of(args)
    for line in described(configuration, every=args.all):
        print(line)
    return 0


def site_described(directory: str, naming: str) -> Iterator[str]:
    """Yield the lines that show what was understood of a LON-CAPA site's host table."""
    from lonc.daemon.loncapa import read_site

    site = read_site(directory, naming)
    if not site.rows:
        return
    sockets = {host_id: peer.sockets for peer in site.peers for host_id in peer.ids}
    rows = [["id", "domain", "role", "name", "address", "sockets", "read from"]]
    rows += [
        [row.id, row.domain, row.role, row.name, row.address, " ".join(sockets[row.id]), row.place]
        for row in site.rows
    ]
    yield from table(rows)
    yield ""


def described(configuration: Configuration, *, every: bool) -> Iterator[str]:
    """Yield the lines that show a configuration.

    `every`: all settings, or only those that are not at their default.
    """
    rows = [["host", "peer", "dialect", "socket"]]
    rows += [
        [host.id, peer(host), host.settings.dialect, path]
        for host in configuration.hosts
        for path in configuration.socket_paths(host)
    ]
    yield from table(rows)
    yield ""
    yield from table(
        [["setting", "value"], *_values(configuration.settings, DaemonSettings(own_id="-"), every)]
    )
    for host in configuration.hosts:
        values = _values(host.settings, Settings(), every)
        if values:
            yield ""
            yield from table([[f"setting of {host.id}", "value"], *values])


def peer(host: HostConfig) -> str:
    """Return address and port of a host as one writes them, an IPv6 address in brackets."""
    address = f"[{host.address}]" if ":" in host.address else host.address
    return f"{address}:{host.port}"


def _values(settings: Table, defaults: Table, every: bool) -> list[list[str]]:
    """Return rows of name and value, as a configuration file would write them."""
    return [
        [name, row.kind.show(getattr(settings, name))]
        for name, row in settings.rows().items()
        if every or getattr(settings, name) != getattr(defaults, name)
    ]
