"""`lonc lond`: run the built-in peer."""

from __future__ import annotations

import signal
import sys

from lonc.errors import UsageError
from lonc.wire.dialects import DIALECTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

HELP = "run a built-in peer, to try things against"

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_EPILOG = """\
Beside the commands of lond it knows two of its own: echo:TEXT answers TEXT, and blob:N[:TEXT]
answers N bytes.

A fault is KIND[,NAME=VALUE...]:
  refuse                   answer `refused` at step=init (the default) or step=echo, and close
  close, reset             close in place of the answer; reset: with a TCP reset
  stall                    do not answer, and do not read on
  late,seconds=S           answer S seconds late
  cut,byte=N               send the first N bytes of the answer, and close
  twice[,seconds=S]        answer twice, the second time S seconds later
  say,text=TEXT            send TEXT in place of the answer; text= comes last
where it acts, otherwise at every command:
  step=STEP                connect, init, echo, version, sethost, ekey or idle
  command=WORD             the answer to this command
and how often, otherwise always:
  count=N
A command is carried out even where a fault spoils its answer.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `lonc lond` to its parser."""
    import argparse

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    add(
        "--listen",
        metavar="HOST:PORT",
        default="127.0.0.1:5663",
        help="where to listen; port 0 takes a free one (default: %(default)s)",
    )
    add("--id", metavar="ID", default="msul1", help="the peer's host id (default: %(default)s)")
    add(
        "--also",
        metavar="ID",
        action="append",
        default=[],
        help="a further host id to accept in `sethost:`; may be given more than once",
    )
    add(
        "--caller",
        metavar="ID",
        default="msul2",
        help="the host id of the machine that calls, for the session key (default: %(default)s)",
    )
    add(
        "--dialect",
        metavar="NAME",
        default="versioned",
        help=f"{', '.join(DIALECTS)} (default: %(default)s)",
    )
    add(
        "--store",
        metavar="FILE",
        default=":memory:",
        help="an SQLite file for what clients store, made if need be (default: in memory only)",
    )
    add(
        "--revision",
        metavar="NUMBER",
        default="1.489",
        help="the version to claim; up to 1.321 a peer takes no `sethost:ID:COMMAND`"
        " (default: %(default)s)",
    )
    add(
        "--fault",
        metavar="FAULT",
        action="append",
        default=[],
        help="go wrong on purpose, see below; may be given more than once",
    )
    add(
        "--execute-cut-lines",
        action="store_true",
        help="take a line that the end of the stream cut for a whole one, as lond does",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until TERM or INT; return 0. To be called in the main thread.

    What clients do wrong goes to standard error. Raises UsageError for an option that cannot be.
    """
    from lonc.lond import Peer, Store, parse_fault

    def log(text: str) -> None:
        print(f"lond {args.id}: {text}", file=sys.stderr, flush=True)

    listen = _address(args.listen)
    faults = [parse_fault(text) for text in args.fault]
    store = Store(args.store)
    try:
        peer = Peer(
            id=args.id,
            dialect=args.dialect,
            listen=listen,
            also=args.also,
            caller=args.caller,
            version=args.revision,
            store=store,
            faults=faults,
            executes_cut_lines=args.execute_cut_lines,
            record=False,
            log=log,
        )
        # Blocked before the first thread is made, so that no thread can be given a signal, and
        # they wait here instead of interrupting.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        try:
            with peer:
                host, port = peer.address
                print(f"lond {args.id} listens on {host}:{port} ({args.dialect})", flush=True)
                signal.sigwait(_STOP_SIGNALS)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    finally:
        store.close()
    return 0


def _address(text: str) -> tuple[str, int]:
    """Take HOST:PORT apart; an IPv6 address may stand in brackets."""
    host, _, port = text.rpartition(":")
    is_number = port.isascii() and port.isdigit() and len(port) <= 5
    if not host or not is_number or int(port) > 65535:
        raise UsageError(f"--listen {text!r}: write HOST:PORT, as in 127.0.0.1:5663")
    return host.removeprefix("[").removesuffix("]"), int(port)
