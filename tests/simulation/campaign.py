"""Many schedules: one after the other, or over several processes; and the sum of what they did."""

from __future__ import annotations

import gc
import importlib
import json
import subprocess
import sys
from pathlib import Path

from lonc.wire.cipher import CipherUnavailable, new_cipher

from . import clients, peers
from .peers import SEALED
from .schedule import run

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"compiled": "lonc._fastpath", "pure": "lonc._purepath"}

# How many schedules are made between two collections of garbage: each is one big cycle.
BETWEEN_COLLECTIONS = 20

# What must have happened, and in which state.
CONNECTING = tuple(f"connecting, {state}" for state in ("up", "waiting", "DEAD"))
REQUIRED = (
    *(("peer", fault, state) for state, faults in peers.FAULTS.items() for fault in faults),
    *(("peer", fault, state) for state in CONNECTING for fault in (peers.RESETS, peers.SILENT)),
    *(("client", fault, state) for state in clients.STATES for fault in clients.FAULTS),
    *(("client", habit, "") for habit in clients.HABITS[2:-1]),
    *(("client", line[:-1].decode(), "") for line in clients.LOCAL),
    *(
        ("broker", what, "")
        for what in (
            "reply_timeout",
            "transaction_timeout",
            "queue_timeout",
            "client_timeout",
            "max_request",
            "max_reply",
            "max_buffered",
            "max_queue",
            "cut_line",
            "reply in several reads",
            SEALED,
            "sethost in one line",
            "the host is waiting",
            "the host is DEAD",
            "revive",
            "close connections",
            "reconfigure",
            "end: close",
            "end: close at once",
            "end: drain",
            "end: stop",
        )
    ),
)


def there_is_a_cipher():
    """Say whether this machine can encrypt; where not, con_lost is the right answer."""
    try:
        new_cipher(bytes(16))
    except CipherUnavailable:
        return False
    return True


class Campaign:
    """The sum of many schedules.

    `digests` has the digest of each seed's trace; `failures` a list of (seed, text).
    """

    def __init__(self):
        self.transactions = 0
        self.replies = 0
        self.fewest = None
        self.counts = {}
        self.digests = {}
        self.failures = []

    def add(self, result):
        """Count one schedule."""
        self.transactions += result.transactions
        self.replies += result.replies
        self.fewest = min(result.transactions, self.fewest or result.transactions)
        self.digests[result.seed] = result.digest
        for key, number in result.counts.items():
            self.counts[key] = self.counts.get(key, 0) + number
        if result.failure:
            self.failures.append((result.seed, result.failure))

    def merge(self, other):
        """Count another campaign, of other seeds."""
        self.transactions += other.transactions
        self.replies += other.replies
        self.fewest = min(each for each in (self.fewest, other.fewest) if each)
        self.digests.update(other.digests)
        for key, number in other.counts.items():
            self.counts[key] = self.counts.get(key, 0) + number
        self.failures += other.failures

    def rare(self, fewest):
        """Return what must happen and happened less than `fewest` times, with the number."""
        found = {key: self.counts.get(key, 0) for key in REQUIRED}
        if not there_is_a_cipher():
            del found["broker", SEALED, ""]
        return {" ".join(key): number for key, number in found.items() if number < fewest}

    def report(self, part):
        """Return, for a person, what happened, and how often in which state."""
        lines = [
            f"simulation, {part}: {self.transactions} transactions of {len(self.digests)} seeds"
            f" (at least {self.fewest} each), {self.replies} replies,"
            f" {self.transactions - self.replies} con_lost or local"
        ]
        lines += _matrix("peers", "peer", self.counts)
        lines += _matrix("clients that fail", "client", self.counts, clients.STATES)
        others = {key[1]: n for key, n in self.counts.items() if key[0] != "peer" and not key[2]}
        lines.append("  and: " + ", ".join(f"{what} {n}" for what, n in sorted(others.items())))
        return "\n".join(lines)

    def to_json(self):
        """Return all of it as text, for `from_json` in another process."""
        values = dict(vars(self), counts=[[*key, n] for key, n in self.counts.items()])
        return json.dumps(values)

    @classmethod
    def from_json(cls, text):
        """Return what `to_json` wrote."""
        values = json.loads(text)
        campaign = cls()
        vars(campaign).update(values)
        campaign.counts = {tuple(key): n for *key, n in values["counts"]}
        campaign.digests = {int(seed): digest for seed, digest in values["digests"].items()}
        return campaign


def _matrix(title, who, counts, states=None):
    """Return lines of a table: a row for each state, a column for each fault."""
    cells = {key[1:]: n for key, n in counts.items() if key[0] == who and key[2]}
    faults = sorted({fault for fault, _ in cells})
    states = states or sorted({state for _, state in cells})
    lines = [f"  {title:20}" + "".join(f"{fault:>13}" for fault in faults)]
    for state in states:
        row = (cells.get((fault, state), "-") for fault in faults)
        lines.append(f"  {state:20}" + "".join(f"{cell:>13}" for cell in row))
    return lines


def run_here(part, transactions, seed=0, step=1):
    """Run the schedules of seed, seed + step, ... until there were so many transactions.

    Stops at the first that fails.  Returns the Campaign.
    """
    parts = importlib.import_module(PARTS[part])
    campaign = Campaign()
    gc.disable()
    try:
        while campaign.transactions < transactions and not campaign.failures:
            campaign.add(run(seed, parts))
            seed += step
            if len(campaign.digests) % BETWEEN_COLLECTIONS == 0:
                gc.collect()
    finally:
        gc.enable()
    return campaign


def run_workers(part, transactions, workers):
    """Run schedules from seed 0 on, over so many processes; return the Campaign."""
    running = []
    for seed in range(workers):
        command = [sys.executable, "-m", __package__, "--json", "--part", part]
        command += ["--seed", str(seed), "--step", str(workers)]
        command += ["--transactions", str(transactions // workers + 1)]
        running.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    campaign = Campaign()
    outputs = [worker.communicate()[0] for worker in running]
    for worker, output in zip(running, outputs, strict=True):
        if not output:
            raise RuntimeError(f"a worker of the simulation ended with status {worker.returncode}")
        campaign.merge(Campaign.from_json(output))
    return campaign
