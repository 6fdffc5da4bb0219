"""Counting the system calls of processes that run, by strace."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Calls:
    """What was counted: `done` by name, without those that ended in an error, and `failed`."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}
        self.failed: dict[str, int] = {}

    def total(self, *, without: tuple[str, ...] = ()) -> int:
        """All calls, the failed ones too, but for some."""
        rows = [*self.done.items(), *self.failed.items()]
        return sum(count for name, count in rows if name not in without)

    def __repr__(self) -> str:
        return f"done: {self.done}, failed: {self.failed}"


@contextlib.contextmanager
def counting(pids: list[int], table: Path) -> Iterator[Calls]:
    """Count the system calls of processes in the body; what this gives is filled at its end.

    `table` is a file for strace. Skips the test where there is no strace, or it is not permitted.
    """
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: the system calls were not counted")
    command = ["strace", "-f", "-c", "-U", "name,calls,errors", "-o", str(table)]
    command += [option for pid in pids for option in ("-p", str(pid))]
    calls = Calls()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            for _ in pids:
                said = tracer.stderr.readline()
                if "attached" not in said:
                    pytest.skip(f"the system calls were not counted: {said.strip()}")
            yield calls
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.communicate()
    for line in table.read_text().splitlines():
        name, *numbers = line.split()
        if numbers and numbers[0].isdigit() and name != "total":
            failed = int(numbers[1]) if len(numbers) > 1 else 0
            calls.failed[name] = failed
            calls.done[name] = int(numbers[0]) - failed
