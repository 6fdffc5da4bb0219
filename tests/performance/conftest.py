"""A load, and a daemon that carries it."""

from __future__ import annotations

import contextlib
import os

import pytest

from tests.conftest import load_part, wait_until
from tests.daemon.running import directory, serve
from tests.performance.load import Load
from tests.performance.strace import counting

__all__ = ["directory", "serve"]


@pytest.fixture
def load():
    """Answers `pong` to each request."""
    with contextlib.closing(Load()) as load:
        yield load


@pytest.fixture
def compiled():
    """The environment of a process with the compiled part; skips where that was not built."""
    load_part("compiled")
    return {"LONC_FASTPATH": "require"}


@pytest.fixture
def count(directory):
    """Count the system calls that processes make in the body of `with count(pids) as calls`.

    It is over when the processes have no more descriptors than before, but for `more`: connections
    to the peer that may have been opened meanwhile.
    """

    def descriptors(pids):
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)

    @contextlib.contextmanager
    def count(pids, more=10):
        before = descriptors(pids)
        with counting(pids, directory / "calls") as calls:
            yield calls
            wait_until(lambda: descriptors(pids) <= before + more)

    return count
