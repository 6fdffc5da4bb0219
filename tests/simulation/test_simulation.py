"""The whole broker under a simulated clock and network, over both parts.

LONC_SIMULATION is how many transactions are run over the compiled part, a million by default, and
over the pure one a fifth of that.  A failure names its seed, and the command that shows its trace.
"""

from __future__ import annotations

import os

import pytest

from tests.conftest import load_part

from .campaign import Campaign, run_workers
from .schedule import FEWEST, run

TRANSACTIONS = int(os.environ.get("LONC_SIMULATION", "1000000"))
SHARE = {"compiled": 1.0, "pure": 0.2}
WORKERS = 2

# In a run of at least so many transactions each fault has happened often enough in each state.
ENOUGH = 200_000
OFTEN = 100


@pytest.fixture(scope="module")
def campaigns(reports):
    """What was run already, by part, so that the traces can be compared."""
    made: dict[str, Campaign] = {}

    def campaign_of(part):
        load_part(part)
        if part not in made:
            made[part] = run_workers(part, int(TRANSACTIONS * SHARE[part]), WORKERS)
            reports.append(made[part].report(part))
        return made[part]

    return campaign_of


def test_every_schedule_keeps_the_laws(campaigns, part):
    campaign = campaigns(part)
    commands = [
        f"seed {seed}: {text} (python -m tests.simulation --part {part} --seed {seed} --trace)"
        for seed, text in campaign.failures
    ]
    assert not commands
    assert campaign.transactions >= TRANSACTIONS * SHARE[part]
    assert campaign.fewest >= FEWEST


def test_every_fault_happened_in_every_state(campaigns, part):
    campaign = campaigns(part)
    if campaign.transactions < ENOUGH:
        pytest.skip(f"only {campaign.transactions} transactions: too few for each to be frequent")
    assert not campaign.rare(OFTEN)


def test_both_parts_do_the_same(campaigns):
    compiled, pure = campaigns("compiled"), campaigns("pure")
    common = compiled.digests.keys() & pure.digests.keys()
    assert common
    assert [seed for seed in sorted(common) if compiled.digests[seed] != pure.digests[seed]] == []


def test_a_seed_gives_the_same_trace_again(parts):
    first, again, other = run(1, parts), run(1, parts), run(2, parts)
    assert first.trace.events == again.trace.events
    assert first.digest == again.digest != other.digest
