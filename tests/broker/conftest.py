"""Worlds that are taken down after each test, with a look at what they leave behind."""

from __future__ import annotations

import os
import tempfile

import pytest

from tests.broker.world import World
from tests.conftest import wait_until


@pytest.fixture
def open_descriptors():
    """Fails where a test leaves more descriptors open than it found."""
    before = descriptors()
    yield
    wait_until(lambda: descriptors() == before)


@pytest.fixture
def directory():
    """Not pytest's own: a socket's path has 107 bytes only."""
    with tempfile.TemporaryDirectory(prefix="lonc-") as directory:
        yield directory


@pytest.fixture
def world(parts, directory, open_descriptors):
    """On the system's clock."""
    yield from make(parts, directory, simulated=False)


@pytest.fixture
def timed(parts, directory, open_descriptors):
    """On a clock that only the test moves."""
    yield from make(parts, directory, simulated=True)


@pytest.fixture(params=["own", "given"])
def either(parts, directory, open_descriptors, request):
    """On a poller that has a kernel object of its own, and on one that is given a selector."""
    yield from make(parts, directory, simulated=request.param == "given")


def make(parts, directory, simulated):
    world = World(parts, directory, simulated)
    try:
        yield world
    finally:
        world.close()


def descriptors():
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))
