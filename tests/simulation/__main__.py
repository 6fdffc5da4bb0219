"""Runs schedules of the simulation: python -m tests.simulation --help"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback

from .campaign import PARTS, run_here
from .schedule import run


def main():
    """Run what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first schedule (0)")
    parser.add_argument("--step", type=int, default=1, help="from one seed to the next (1)")
    parser.add_argument(
        "--transactions", type=int, default=1, help="stop after so many (1: one schedule)"
    )
    parser.add_argument("--part", choices=PARTS, default="compiled")
    parser.add_argument("--trace", action="store_true", help="print the trace of the one schedule")
    parser.add_argument("--json", action="store_true", help="print numbers for another program")
    options = parser.parse_args()
    if options.trace:
        parts = importlib.import_module(PARTS[options.part])
        result = run(options.seed, parts)
        print(result.trace.text(), end="")
        if result.error:
            traceback.print_exception(result.error)
        print(f"seed {result.seed}: {result.failure or 'nothing was wrong'}; {result.digest}")
        return int(result.failure is not None)
    campaign = run_here(options.part, options.transactions, options.seed, options.step)
    if options.json:
        print(campaign.to_json())
        return 0
    print(campaign.report(options.part))
    for seed, text in campaign.failures:
        print(f"seed {seed}: {text}")
        print(f"python -m tests.simulation --part {options.part} --seed {seed} --trace")
    return int(bool(campaign.failures))


sys.exit(main())
