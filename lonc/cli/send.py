"""`lonc send`: send requests to a running daemon, from a shell."""

from __future__ import annotations

import os
import sys

from lonc.broker.table import Seconds
from lonc.cli.options import checked
from lonc.client import Client, ConnectionLost, RequestTimeout
from lonc.daemon import config
from lonc.daemon.settings import DaemonSettings, HostId
from lonc.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

HELP = "send a request, or those on standard input, and print the replies"

EXIT_CON_LOST = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes."""
    parser.set_defaults(private=True)
    parser.add_argument("host", metavar="HOST", help="the id of the host to ask")
    parser.add_argument(
        "command",
        metavar="COMMAND",
        help="the request, in quotes; or - to read requests from standard input, one a line:"
        " other users can see what is on a command line, so do this with passwords",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--config", metavar="FILE", help="find the socket through this lonc.toml")
    where.add_argument(
        "--socket-dir",
        metavar="DIR",
        help=f"find the socket in this directory (default: {_default_dir()})",
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, help="wait for each reply no longer than this"
    )


def run(args: argparse.Namespace) -> int:
    """Print a line for each request: the reply, or `con_lost`.

    Returns 0 where every request got a reply, 3 where one did not. Raises UsageError, and
    ConnectFailed where no daemon can be reached.
    """
    if args.timeout is not None:
        checked("--timeout", Seconds(), args.timeout)
    status = 0
    with Client(socket_path(args), args.timeout) as client:
        for request in _requests(args.command):
            try:
                reply = client.request(request)
            except (ConnectionLost, RequestTimeout) as error:
                print(f"lonc: {error}", file=sys.stderr)
                reply, status = b"con_lost", EXIT_CON_LOST
            sys.stdout.buffer.write(reply + b"\n")
            sys.stdout.buffer.flush()
    return status


def socket_path(args: argparse.Namespace) -> str:
    """Return the path of the socket that the options mean; raises UsageError."""
    if args.config is not None:
        configuration = config.load(args.config)
        known = [host.id for host in configuration.hosts]
        if args.host not in known:
            raise UsageError(f"{args.config} has no host {args.host}; it has {', '.join(known)}")
        return os.path.join(configuration.settings.socket_dir, args.host)
    checked("HOST", HostId(), args.host)
    return os.path.join(args.socket_dir or _default_dir(), args.host)


def _default_dir() -> str:
    default: str = DaemonSettings.rows()["socket_dir"].default
    return default


def _requests(command: str) -> Iterator[bytes]:
    if command == "-":
        for line in sys.stdin.buffer:
            yield line.removesuffix(b"\n")
        return
    request = os.fsencode(command)
    if b"\n" in request:
        raise UsageError("COMMAND: must be one line; give several on standard input, with -")
    yield request
