"""`lonc revive`: have a running daemon try a host that it holds for dead."""

from __future__ import annotations

import os
import signal

from lonc.cli.options import add_configuration, configuration_of
from lonc.client import Client, ClientError
from lonc.daemon.instance import pid_file_path, running_pid
from lonc.errors import LoncError, UsageError
from lonc.wire.dialects import DIALECTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lonc.daemon.settings import Configuration, HostConfig

HELP = "have the daemon try a host again that it holds for DEAD"

COMMAND = b"reset_retries"

# Seconds for the answer: lonc gives it by itself, without the peer.
PATIENCE = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes."""
    parser.add_argument("id", metavar="HOST", help="the id of the host")
    add_configuration(parser)


def run(args: argparse.Namespace) -> int:
    """Give the host a fresh budget of retries; return 0. Raises LoncError, also if no daemon runs.

    A host whose dialect passes every line on gets it by signal, and all other hosts with it.
    """
    configuration = configuration_of(args)
    host = _host(configuration, args.id)
    if COMMAND in DIALECTS[host.settings.dialect].local_lines:
        path = configuration.socket_paths(host)[0]
        try:
            with Client(path, PATIENCE) as client:
                client.request(COMMAND)
        except ClientError as error:
            raise LoncError(str(error)) from error
        print(f"{host.id} has a fresh budget of retries.")
    else:
        pid = signal_daemon(configuration)
        print(f"USR1 was sent to the daemon (pid {pid}): all hosts get a fresh budget of retries.")
    return 0


def signal_daemon(configuration: Configuration) -> int:
    """Send USR1 to the running daemon, and return its pid; LoncError where that is not possible."""
    path = pid_file_path(configuration.settings)
    pid = running_pid(path)
    if pid is None:
        raise LoncError(f"no daemon runs: nobody holds {path}")
    try:
        os.kill(pid, signal.SIGUSR1)
    except OSError as error:
        raise LoncError(f"the daemon (pid {pid}) cannot be signalled: {error.strerror}") from None
    return pid


def _host(configuration: Configuration, host_id: str) -> HostConfig:
    for host in configuration.hosts:
        if host_id in host.ids:
            return host
    known = ", ".join(host.id for host in configuration.hosts)
    raise UsageError(f"HOST {host_id}: there is no such host; there are {known}")
