"""The command `lonc`: finds the command that is meant, runs it, and turns errors into one line.

A command is a module beside this one with three names: HELP, one line; add_arguments(parser);
and run(args), which returns the exit status. It raises UsageError for what a person must change.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys

from lonc import __version__
from lonc.errors import ConfigError, LoncError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

COMMANDS = ("serve", "send", "revive", "delayed", "check", "demo", "lond")

EXIT_FAILED = 1
EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default the one of this process, and return its exit status.

    0: done; 1: it failed; 2: something must be changed by the caller; 128 + n: ended by signal n.
    Other numbers are a command's own. Nothing is raised but SystemExit from argparse, for an
    option or word that it does not know (2) and for --help and --version (0).
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    _complete_standard_streams()
    try:
        return _run(arguments, _fastpath())
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Nobody reads our output any more.
        return 128 + signal.SIGPIPE
    except OSError as error:
        # Of our output, as on a full disk, or what no command takes care of.
        where = f"{error.filename}: " if error.filename else ""
        _complain(f"{where}{error.strerror or error}")
        return EXIT_FAILED
    except ConfigError as error:
        _complain(*error.problems)
        return EXIT_USAGE
    except UsageError as error:
        _complain(str(error))
        return EXIT_USAGE
    except LoncError as error:
        _complain(str(error))
        return EXIT_FAILED
    finally:
        _drop_what_cannot_be_written()


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, and where to read on."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


class Help(argparse.RawDescriptionHelpFormatter):
    """Keeps --version in one line; the others are 78 wide on any terminal.

    To ask for its width argparse imports shutil, and with that four kinds of compression, which
    each process of a daemon would carry.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=78)


def _fastpath() -> str:
    """Return which part of lonc is in use; raises UsageError for a LONC_FASTPATH in its way."""
    try:
        from lonc import fastpath
    except ImportError as error:
        raise UsageError(str(error)) from None
    return fastpath.describe()


def _run(arguments: list[str], description: str) -> int:
    parser = _parser(arguments, description)
    try:
        args, unknown = parser.parse_known_args(arguments)
    except SystemExit:
        # It has printed the help, and does not look whether that was written.
        sys.stdout.flush()
        raise
    if unknown:
        # What follows the command of `send` may be a password that was not quoted.
        word = "" if args.private else f": {unknown[0]}"
        args.parser.error(f"unknown option, or a word too many{word}")
    status: int = args.run(args)
    sys.stdout.flush()
    return status


def _parser(arguments: list[str], description: str) -> Parser:
    """Return the parser of a command line; `description` says which part of lonc is in use.

    Where a command is named, only that one is imported: what a daemon imports, each of its
    processes carries.
    """
    parser = Parser(
        prog="lonc",
        description="A connection broker for LON-CAPA: many local clients, a few connections.",
        formatter_class=Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"lonc {__version__}, {description}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    named = arguments[:1] if arguments and arguments[0] in COMMANDS else COMMANDS
    for name in named:
        module = importlib.import_module(f"lonc.cli.{name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            formatter_class=Help,
            allow_abbrev=False,
        )
        command.set_defaults(run=module.run, parser=command, private=False)
        module.add_arguments(command)
    return parser


def _complete_standard_streams() -> None:
    """Put the null device in the place of standard streams that were closed at the start.

    Else the next file to be opened gets their number, and what is meant for a person gets into it.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)


def _complain(*lines: str) -> None:
    """Tell a person; where nobody can be told the exit status says enough."""
    try:
        for line in lines:
            print(f"lonc: {line}", file=sys.stderr)
    except OSError:
        pass


def _drop_what_cannot_be_written() -> None:
    """Else Python would try once more at its end, and exit with a status of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
