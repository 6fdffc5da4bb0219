"""What `ps` shows for a process, where the optional `setproctitle` is installed."""

from __future__ import annotations

import sys
import time


def load_titles() -> None:
    """Import `setproctitle` if it is there, once and before the first fork."""
    try:
        import setproctitle  # noqa: F401
    except ImportError:
        pass


def set_title(status: str) -> None:
    """Show `lonc: <status> <local time>`; nothing happens where `load_titles` found nothing."""
    module = sys.modules.get("setproctitle")
    if module is not None:
        module.setproctitle(f"lonc: {status} {time.asctime()}")
