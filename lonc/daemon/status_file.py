"""The status file, in the layout that LON-CAPA's pages read."""

from __future__ import annotations

import contextlib
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def write_status_file(path: str, lines: Iterable[tuple[int, str, str, str]]) -> None:
    """Write the file whole: a reader sees the old one or the new one. Everybody may read it.

    lines   for each host with a process: its pid, host id, status, and the last line of its log,
            none with control characters in it. Hosts with pid 0, which have none, are left out

    Raises OSError; the old file is then as it was.
    """
    text = f"LONC status {time.ctime()} - parent {os.getpid()}\n\n"
    for pid, host, status, last in lines:
        if pid:
            text += f"{pid}\t{host}\t{status}\t{last}\n"
    temporary = f"{path}.{os.getpid()}"
    try:
        # The name can be guessed: nothing that was put there is followed, written or waited for.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(fd, "w", encoding="utf-8") as file:
            # The web server reads it, whatever the umask of whoever started the daemon.
            os.fchmod(fd, 0o644)
            file.write(text)
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
