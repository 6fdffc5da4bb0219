"""The numbers of the simulation, in the summary of the tests."""

from __future__ import annotations

import pytest

REPORTS = pytest.StashKey[list]()


@pytest.fixture(scope="session")
def reports(pytestconfig):
    """A list of texts that the summary shows."""
    return pytestconfig.stash.setdefault(REPORTS, [])


def pytest_terminal_summary(terminalreporter, config):
    """Show how often which fault happened in which state."""
    for report in config.stash.get(REPORTS, []):
        terminalreporter.section("simulation")
        terminalreporter.write_line(report)
