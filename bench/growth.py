"""How lonc's CPU time a request grows: ``python -m bench.growth [DIRECTORY]``.

Writes growth.json and growth-clients.svg, growth-queue.svg, growth-hosts.svg and growth-timers.svg,
by default into docs/.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.contenders import COMPILED, WITH_TIMERS, C, Contender, available
from bench.harness import Bench
from bench.plot import line_chart
from bench.report import progress
from bench.running import Failure
from bench.workloads import KEPT_10, Workload

ROUNDS = 5
SECONDS = 0.4
SPARE_DESCRIPTORS = 100
PER_REQUEST = "CPU time a request, us"

# How a broker is started for a point of its line, and what is asked of it there.
Point = tuple[dict[str, Any], Workload]
# A chart's lines: whose, and its points by the number on the axis.
Lines = dict[str, tuple[Contender, Callable[[int], Point]]]


def clients(number: int) -> Point:
    """So many connected, ten of which ask."""
    return {}, replace(KEPT_10, silent=number - KEPT_10.clients)


def queue(number: int) -> Point:
    """So many requests waiting beside those that the ten connections carry."""
    return {}, replace(KEPT_10, clients=10 + number)


def hosts(number: int) -> Point:
    """So many hosts in one process, and always 1000 clients, spread over them."""
    return {"hosts": number}, replace(KEPT_10, clients=1000)


def connections(number: int) -> Point:
    """One host with as many connections as so many hosts have together under that load."""
    return {"connections": min(10 * number, 1000)}, replace(KEPT_10, clients=1000)


def timers(number: int) -> Point:
    """So many live timers in the reactor beside the broker."""
    return {"timers": number}, KEPT_10


def charts(most_clients: int) -> Iterator[tuple[str, str, str, Lines, list[int]]]:
    """Each chart: name, title, what the axis counts, lines, numbers on the axis."""
    lonc, c = COMPILED.name, C.name
    yield (
        "clients",
        "Connected clients, ten of them busy",
        "clients",
        {c: (C, clients), lonc: (COMPILED, clients)},
        [10, 100, 1000, 5000, most_clients],
    )
    yield (
        "queue",
        "Requests that wait in the queue",
        "requests",
        {c: (C, queue), lonc: (COMPILED, queue)},
        [10, 100, 1000, 9900],  # lonc's limit is 10000
    )
    yield (
        "hosts",
        "Hosts in one process, 1000 clients spread over them",
        "hosts",
        {"C, one host, as many links": (C, connections), lonc: (COMPILED, hosts)},
        [1, 10, 100, 1000],
    )
    yield (
        "timers",
        "Live timers beside the broker",
        "timers",
        {lonc: (WITH_TIMERS, timers)},
        [10, 100, 1000, 10000, 100000],
    )


def measure(bench: Bench, name: str, lines: Lines, numbers: list[int]) -> dict[str, Any]:
    """The least CPU time a request of all rounds at each number, by line.

    What else happens on the machine only adds to it.  Lines and numbers take turns within a round,
    so that what disturbs for a while is not all in one point.
    """
    samples: dict[tuple[str, int], list[float]] = {}
    for turn in range(ROUNDS):
        for number in numbers:
            progress(f"{name}: round {turn + 1} of {ROUNDS}: {number}")
            for line, (contender, point) in lines.items():
                settings, workload = point(number)
                with bench.broker(contender, **settings) as broker:
                    cpu = broker.load(workload, SECONDS)["cpu_us"]
                samples.setdefault((line, number), []).append(cpu)
    return {line: [(number, min(samples[line, number])) for number in numbers] for line in lines}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=Path("docs"))
    directory: Path = parser.parse_args().directory
    for name, reason in available([COMPILED])[1].items():
        print(f"growth: {name} cannot run: {reason}", file=sys.stderr)
        return 1
    found: dict[str, Any] = {}
    svg: dict[str, str] = {}
    try:
        with Bench() as bench:
            about = bench.about()
            most = min(20000, bench.descriptors - SPARE_DESCRIPTORS)
            for name, title, axis, lines, numbers in charts(most):
                found[name] = measure(bench, name, lines, numbers)
                svg[name] = line_chart(title, axis, PER_REQUEST, found[name])
    except Failure as failure:
        print(f"growth: {failure}", file=sys.stderr)
        return 1
    progress("")
    directory.mkdir(parents=True, exist_ok=True)
    for name, lines in found.items():
        (directory / f"growth-{name}.svg").write_text(svg[name])
        print(name)
        for line, points in lines.items():
            print(f"  {line:28}" + "".join(f"{x:>8}:{y:6.2f}" for x, y in points))
    figures = {"machine": about, "unit": PER_REQUEST, "charts": found}
    (directory / "growth.json").write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
