"""`lonc serve` whose processes hang in C code, for minutes, when they are sent HUP."""

from __future__ import annotations

import sys

from lonc.cli.main import main
from lonc.daemon.service import HostService


def hang(service: HostService) -> None:
    """Do nothing that the interpreter could interrupt."""
    pow(3, 100_000_000)


HostService.revive = hang  # type: ignore[method-assign]

sys.exit(main())
