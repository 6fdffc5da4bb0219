"""What lonc is to reach, held against what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench import workloads
from bench.contenders import ASYNCIO, COMPILED, PGBOUNCER, PURE, UVLOOP, C, Contender
from bench.report import Samples, Summary, median
from bench.workloads import Workload

AT_LEAST, AT_MOST = ">=", "<="
COUNTED = (workloads.KEPT_10, workloads.KEPT_200, workloads.NEW_50)


def targets(
    samples: Samples, summary: Summary, starts: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Each target: ``what``, ``value``, ``sign``, ``bound``, and ``met``.

    ``met`` is None where one of the two was not measured.
    """
    found = []
    for what, value, sign, bound in _all(samples, summary, starts):
        met = None
        if value is not None and bound is not None:
            met = value >= bound if sign is AT_LEAST else value <= bound
        found.append({"what": what, "value": value, "sign": sign, "bound": bound, "met": met})
    return found


def _all(
    samples: Samples, summary: Summary, starts: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, float | None, str, float | None]]:
    def figure(workload: Workload, broker: Contender, name: str) -> float | None:
        return summary.get(workload.name, {}).get(broker.name, {}).get(name)

    def advantage(workload: Workload, ours: Contender, theirs: Contender) -> float | None:
        """The median of their CPU time over ours, both of the same round."""
        rounds = zip(
            samples.get((workload.name, ours.name), []),
            samples.get((workload.name, theirs.name), []),
            strict=False,
        )
        both = (pair for pair in rounds if all("cpu_us" in sample for sample in pair))
        return median(b["cpu_us"] / a["cpu_us"] for a, b in both)

    # What makes the C broker the limit.
    for workload in COUNTED:
        yield (
            f"C: calls a request, {workload.name}",
            figure(workload, C, "calls"),
            AT_MOST,
            8.3 if workload.each_new else 4.3,
        )
        share = figure(workload, C, "user_share")
        yield f"C: share in user mode, {workload.name}", share, AT_MOST, 0.08

    for workload in workloads.ALL:
        if workload not in (workloads.SLOW_PEER, workloads.REPLY_1M):
            yield (
                f"compiled: C's CPU over its own, {workload.name}",
                figure(workload, COMPILED, "ratio"),
                AT_LEAST,
                0.85 if workload.each_new else 0.90,
            )
    for workload in COUNTED:
        yield (
            f"compiled: calls a request, {workload.name}",
            figure(workload, COMPILED, "calls"),
            AT_MOST,
            8.5 if workload.each_new else 4.3,
        )

    # "Behind" is more CPU time for the same.
    for workload in workloads.ALL:
        pairs = [(COMPILED, UVLOOP), (COMPILED, PGBOUNCER)]
        pairs += [(PURE, ASYNCIO)] if workload.reply <= 64 << 10 else []
        for ours, theirs in pairs:
            if workload in theirs.workloads:
                yield (
                    f"{ours.name.split()[1]}: {theirs.name}'s over its own, {workload.name}",
                    advantage(workload, ours, theirs),
                    AT_LEAST,
                    1.0,
                )

    for broker in (COMPILED, PURE):
        start = starts.get(broker.name, {})
        name = broker.name.split()[1]
        yield f"{name}: start to first reply, ms", start.get("start_ms"), AT_MOST, 60
        yield f"{name}: resident in one process, MB", start.get("resident_mb"), AT_MOST, 16
        yield f"{name}: bytes a silent client", start.get("client_bytes"), AT_MOST, 4096
