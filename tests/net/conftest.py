"""Fixtures of this room."""

from __future__ import annotations

import pytest

from lonc.reactor import Reactor
from tests.net.helpers import join_lookups, open_descriptors


@pytest.fixture
def reactor(parts):
    """A reactor; its callbacks must not raise, and no thread or descriptor may be left behind."""
    before = open_descriptors()
    reactor = Reactor(parts)
    died = []
    reactor.died = lambda event, error: died.append(error)
    yield reactor
    reactor.close()
    join_lookups()
    assert died == []
    assert open_descriptors() == before
