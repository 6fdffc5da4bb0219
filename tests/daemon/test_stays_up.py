"""The daemon under a mixed load while everything around it dies: a short run of `stays_up`."""

from __future__ import annotations

from tests.daemon.running import without_titles
from tests.daemon.stays_up import StaysUp, memory, private

SECONDS = 4.0

# What the processes of the daemon may take, in KiB.
CHILD_ALONE = 6 * 1024
PARENT_AND_CHILD = 16 * 1024


def test_nobody_is_forgotten_and_nothing_grows(directory, mode, part_env):
    world = StaysUp(directory, mode, 1, part_env)
    try:
        world.run(SECONDS)
    finally:
        status = world.close()
    assert world.failures == []
    assert status == 0
    assert world.counts["replies"] > 100
    assert world.counts["con_lost"] + world.counts["closed"] > 0


def test_processes_are_small(serve, lond, part_env, directory):
    running = serve({"one": lond}, env=without_titles(directory) | part_env)
    for _ in range(100):
        assert running.ask("one") == b"one"
    child = running.process_of("one")
    assert private(child) <= CHILD_ALONE
    assert memory(running.pid)["Pss"] + memory(child)["Pss"] <= PARENT_AND_CHILD
