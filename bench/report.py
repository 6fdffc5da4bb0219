"""Medians over the rounds, and how they are printed."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable
from typing import Any

Samples = dict[tuple[str, str], list[dict[str, Any]]]  # by workload and broker; one a round
Calls = dict[tuple[str, str], "float | str"]  # a request; a text says why they were not counted
Summary = dict[str, dict[str, dict[str, Any]]]  # workload, broker, figure

# Figure, its two lines of heading, width, format, factor.
COLUMNS = (
    ("cpu_us", "CPU", "us/req", 9, ".2f", 1),
    ("ratio", "of C", "", 7, ".2f", 1),
    ("calls", "calls", "/req", 8, ".2f", 1),
    ("user_share", "user", "%", 7, ".1f", 100),
    ("busy", "busy", "%", 6, ".0f", 100),
    ("rate", "rate", "/s", 9, ".0f", 1),
    ("p50_us", "p50", "us", 8, ".0f", 1),
    ("p99_us", "p99", "us", 8, ".0f", 1),
    ("max_us", "max", "us", 8, ".0f", 1),
    ("max_over_median", "max/", "p50", 7, ".1f", 1),
    ("client_max_over_median", "client", "max/p50", 9, ".2f", 1),
)
START_COLUMNS = (
    ("start_ms", "first", "reply ms", 10, ".1f", 1),
    ("resident_mb", "resident", "MB", 10, ".1f", 1),
    ("client_bytes", "a silent", "client B", 10, ".0f", 1),
)
NAME = 20


def median(values: Iterable[Any]) -> float | None:
    """The median of those that are there, None if there are none."""
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None


def summarize(samples: Samples, calls: Calls) -> Summary:
    """The median of each figure, and the errors of the rounds."""
    summary: Summary = {}
    for (workload, broker), rounds in samples.items():
        row: dict[str, Any] = {
            figure: median(sample.get(figure) for sample in rounds)
            for figure, *_ in COLUMNS
            if figure != "calls"
        }
        counted = calls.get((workload, broker))
        row["calls"] = None if isinstance(counted, str) else counted
        row["errors"] = [sample["error"] for sample in rounds if "error" in sample]
        row["errors"] += [counted] if isinstance(counted, str) else []
        summary.setdefault(workload, {})[broker] = row
    return summary


def progress(text: str) -> None:
    """What is being done, on a terminal's last line."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def show(value: float | None, width: int, form: str, factor: float = 1) -> str:
    """The number right-aligned, a dash where there is none."""
    return f"{'-' if value is None else format(value * factor, form):>{width}}"


def print_table(rows: dict[str, dict[str, Any]], columns: tuple[Any, ...]) -> None:
    """One line for each broker, and below it what went wrong."""
    for broker, row in rows.items():
        cells = (show(row[name], width, form, by) for name, _, _, width, form, by in columns)
        print(f"  {broker:{NAME}}" + "".join(cells))
        for error in row["errors"]:
            print(f"      failed: {error}")


def print_heading(columns: tuple[Any, ...]) -> None:
    for line in (1, 2):
        print(" " * (NAME + 2) + "".join(f"{column[line]:>{column[3]}}" for column in columns))


def print_targets(targets: list[dict[str, Any]]) -> None:
    words = {True: "met", False: "MISSED", None: "not measured"}
    for target in targets:
        print(
            f"  {target['what']:60}{show(target['value'], 9, '.2f')} {target['sign']}"
            f"{show(target['bound'], 8, '.2f')}  {words[target['met']]}"
        )
