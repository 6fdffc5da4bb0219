"""What the tests of real daemons share."""

from __future__ import annotations

import pytest

from lonc.lond import Peer
from tests.daemon.running import directory, gone, lond, mode, serve, stubborn
from tests.daemon.site import Site

__all__ = ["directory", "gone", "lond", "mode", "serve", "stubborn"]


@pytest.fixture
def site():
    """A directory for a real daemon; all that was started there is killed at the end."""
    site = Site({})
    yield site
    site.close()


@pytest.fixture
def site_of_part(part_env):
    """The same over both parts."""
    site = Site(part_env)
    yield site
    site.close()


@pytest.fixture
def peer():
    """A built-in peer that nobody may treat badly."""
    with Peer() as peer:
        yield peer
    assert peer.complaints == []
