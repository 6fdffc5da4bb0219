"""`lonc serve`: the daemon."""

from __future__ import annotations

import os

from lonc.cli.options import add_configuration, configuration_of
from lonc.daemon.daemon import serve

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lonc.daemon.settings import Configuration

HELP = "serve all configured hosts until TERM or INT"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes."""
    add_configuration(parser)
    parser.add_argument(
        "--background",
        action="store_true",
        help="return when all sockets listen, and leave the daemon behind",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal ends it; raises UsageError where it cannot begin."""
    if args.background:
        # They are read, and read again at a reload, in another working directory.
        for name in ("config", "loncapa", "socket_dir"):
            if getattr(args, name) is not None:
                setattr(args, name, os.path.abspath(getattr(args, name)))

    def load() -> Configuration:
        return configuration_of(args)

    if args.background:
        from lonc.daemon.background import detach

        return detach(lambda ready: serve(load, ready))
    return serve(load)
