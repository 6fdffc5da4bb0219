"""Compare lonc with other brokers: prints a table for each workload and writes JSON."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from bench import contenders, report, workloads
from bench.contenders import Contender
from bench.harness import Bench
from bench.report import Calls, Samples, progress
from bench.running import Failure
from bench.targets import COUNTED, targets

SILENT = workloads.Workload("silent clients", clients=1, silent=2000)


def measure(bench: Bench, brokers: list[Contender], rounds: int, seconds: float) -> Samples:
    """Each broker on each workload once a round, another one first each time.

    A sample has ``ratio``, the C broker's CPU time a request in the same round over its own; one
    that did not come about has only ``error``.
    """
    samples: Samples = {}
    for number in range(rounds):
        first = number % len(brokers)
        for workload in workloads.ALL:
            progress(f"round {number + 1} of {rounds}: {workload.name}")
            this_round: dict[str, dict[str, Any]] = {}
            for contender in brokers[first:] + brokers[:first]:
                if workload in contender.workloads:
                    this_round[contender.name] = one(bench, contender, workload, seconds)
            limit = this_round[contenders.C.name].get("cpu_us")
            for name, sample in this_round.items():
                if limit and "cpu_us" in sample:
                    sample["ratio"] = limit / sample["cpu_us"]
                samples.setdefault((workload.name, name), []).append(sample)
    return samples


def one(
    bench: Bench, contender: Contender, workload: workloads.Workload, seconds: float
) -> dict[str, Any]:
    try:
        with bench.broker(contender) as broker:
            return broker.load(workload, seconds)
    except Failure as failure:
        return {"error": str(failure)}


def count_calls(bench: Bench, brokers: list[Contender], quick: bool, seconds: float) -> Calls:
    """System calls a request. Quick: of C and lonc only, and where there is a target."""
    calls: Calls = {}
    counted = (contenders.C, contenders.COMPILED) if quick else contenders.EVERYBODY
    for workload in COUNTED if quick else workloads.ALL:
        progress(f"counting system calls: {workload.name}")
        for contender in brokers:
            if contender in counted and workload in contender.workloads:
                try:
                    with bench.broker(contender) as broker:
                        count: float | str = broker.count_calls(workload, seconds)
                except Failure as failure:
                    count = str(failure)
                calls[workload.name, contender.name] = count
    return calls


def start_up(bench: Bench, brokers: list[Contender], times: int) -> dict[str, dict[str, Any]]:
    """Start to first reply in ms, MB resident, and bytes more for each silent client, by broker.

    The time is the default way of starting, the memory that of one process.
    """
    found: dict[str, dict[str, Any]] = {}
    for contender in brokers:
        if contender.protocol != "line":
            continue
        progress(f"starting: {contender.name}")
        single = {"single": True} if contender in (contenders.COMPILED, contenders.PURE) else {}
        row: dict[str, Any] = {"errors": []}
        try:
            row["start_ms"] = report.median(first_reply(bench, contender) for _ in range(times))
            with bench.broker(contender, **single) as broker:
                before = broker.resident()
                with broker.gated(SILENT, 0):
                    after = broker.resident()
            row["resident_mb"] = before / 2**20
            row["client_bytes"] = (after - before) / SILENT.silent
        except Failure as failure:
            row["errors"].append(str(failure))
        for figure, *_ in report.START_COLUMNS:
            row.setdefault(figure, None)
        found[contender.name] = row
    return found


def first_reply(bench: Bench, contender: Contender) -> float:
    """From before the fork to the reply, ms."""
    with bench.peer(contender.protocol) as port:
        began = time.monotonic()
        with bench.launched(contender, port) as broker:
            return (broker.first_reply() - began) * 1e3


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, in under a minute")
    parser.add_argument("--rounds", type=int, help="default 5, quick 1")
    parser.add_argument("--seconds", type=float, help="of each loaded phase; default 1, quick 0.25")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), metavar="FILE")
    chosen = parser.parse_args()
    rounds = chosen.rounds or (1 if chosen.quick else 5)
    seconds = chosen.seconds or (0.25 if chosen.quick else 1.0)
    strace = shutil.which("strace") is not None

    brokers, absent = contenders.available(contenders.EVERYBODY)
    try:
        with Bench() as bench:
            about = bench.about()
            samples = measure(bench, brokers, rounds, seconds)
            calls = count_calls(bench, brokers, chosen.quick, min(seconds, 0.5)) if strace else {}
            starts = start_up(bench, brokers, 3 if chosen.quick else 10)
    except Failure as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    progress("")
    summary = report.summarize(samples, calls)
    judged = targets(samples, summary, starts)

    for name, value in about.items():
        print(f"{name}: {value}")
    print(f"medians of {rounds} round(s) of {seconds} s each\n")
    report.print_heading(report.COLUMNS)
    for workload, rows in summary.items():
        print(f"\n{workload}")
        names = (contender.name for contender in brokers)
        report.print_table({name: rows[name] for name in names if name in rows}, report.COLUMNS)
    print("\nstart and memory")
    report.print_heading(report.START_COLUMNS)
    report.print_table(starts, report.START_COLUMNS)
    print()
    for name, reason in absent.items():
        print(f"{name} was not measured: {reason}")
    if not strace:
        print("system calls were not counted: strace is not installed")
    print("\ntargets")
    report.print_targets(judged)

    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    figures = {
        "machine": about,
        "rounds": rounds,
        "seconds": seconds,
        "absent": absent,
        "summary": summary,
        "start": starts,
        "targets": judged,
        "samples": [
            {"workload": workload, "broker": broker, "rounds": list_of}
            for (workload, broker), list_of in samples.items()
        ],
    }
    chosen.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"\nall figures: {chosen.json}")
    failed = any(row["errors"] for rows in (*summary.values(), starts) for row in rows.values())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
