"""The descriptors of one process, shared by the hosts that it serves."""

from __future__ import annotations

import pytest

from lonc.broker.broker import SPARE_DESCRIPTORS
from lonc.broker.settings import Settings
from lonc.daemon.daemon import HOST_DESCRIPTORS, shared_descriptors
from lonc.daemon.settings import HostConfig


def hosts(*limits: tuple[int, int]) -> list[HostConfig]:
    """Hosts with these `max_clients` and `max_connections`."""
    return [
        HostConfig(f"host{number}", "::1", 1, Settings(max_clients=clients, max_connections=peers))
        for number, (clients, peers) in enumerate(limits)
    ]


@pytest.mark.parametrize("limit", [200, 1000, 1_000_000])
@pytest.mark.parametrize("limits", [[(0, 10)], [(0, 10), (0, 5)], [(7, 10), (0, 5), (0, 1)]])
def test_all_that_may_be_used_together_fits(limit: int, limits: list[tuple[int, int]]) -> None:
    shared = [host.settings for host in shared_descriptors(hosts(*limits), limit)]
    used = sum(HOST_DESCRIPTORS + each.max_clients + each.max_connections for each in shared)
    assert limit - len(limits) < used + SPARE_DESCRIPTORS <= limit


def test_what_was_given_is_kept() -> None:
    first, second, third = shared_descriptors(hosts((7, 1), (0, 1), (0, 1)), 1000)
    assert first.settings.max_clients == 7
    assert second.settings.max_clients == third.settings.max_clients > 7


def test_nobody_is_left_without_any_client() -> None:
    [one] = shared_descriptors(hosts((0, 100)), 64)
    assert one.settings.max_clients == 1
