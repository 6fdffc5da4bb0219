"""Options that several commands have, and what checks them."""

from __future__ import annotations

import os

from lonc.broker.table import NotAllowed
from lonc.daemon import config
from lonc.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from lonc.broker.table import Kind
    from lonc.daemon.config import Draft
    from lonc.daemon.settings import Configuration


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """Add the options that `configuration_of` reads."""
    parser.add_argument("--config", metavar="FILE", help="read this file (the form: lonc.toml)")
    parser.add_argument(
        "--loncapa",
        metavar="DIR",
        help="read a LON-CAPA site's own files: the directory of loncapa.conf",
    )
    parser.add_argument(
        "--socket-names",
        choices=("id", "hostname", "both"),
        default="both",
        help="with --loncapa: what the sockets are called (default: both)",
    )
    parser.add_argument("--own-id", metavar="ID", help="the id of this host in the cluster")
    parser.add_argument("--socket-dir", metavar="DIR", help="the directory of the Unix sockets")
    parser.add_argument(
        "--host",
        metavar="ID=ADDRESS[:PORT]",
        action="append",
        default=[],
        help="a host that requests can be sent to; may be given again",
    )
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="any setting, or hosts.ID.NAME=VALUE for one host; may be given again",
    )


def configuration_of(args: argparse.Namespace) -> Configuration:
    """Return what file and options say together; raises ConfigError, or UsageError for nothing."""
    if args.config is None and args.loncapa is None and not (args.own_id or args.host):
        raise UsageError(
            "no configuration: give --config FILE, --loncapa DIR, or --own-id ID and --host ID=..."
        )
    return config.load(
        args.config,
        own_id=args.own_id,
        socket_dir=args.socket_dir,
        hosts=args.host,
        sets=args.set,
        site=_site_files(args),
        source=args.loncapa or "command line",
    )


def _site_files(args: argparse.Namespace) -> Callable[[Draft], object] | None:
    """Return what reads a LON-CAPA site's files, if they are to be read."""
    if args.loncapa is None:
        return None
    from lonc.daemon.loncapa import fill

    return lambda draft: fill(os.path.abspath(args.loncapa), args.socket_names, draft)


def checked(option: str, kind: Kind, value: object) -> None:
    """Raise UsageError unless an option's value is of the kind that it must be."""
    try:
        kind.take(value)
    except NotAllowed:
        raise UsageError(f"{option} {value}: must be {kind.allowed}") from None
