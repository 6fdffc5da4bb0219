"""A plugin of pytest for prove.py: `--over compiled` leaves only what runs over that part."""

from __future__ import annotations


def pytest_addoption(parser):
    parser.addoption("--over", metavar="PART", help="only tests that run over this part")


def pytest_collection_modifyitems(config, items):
    part = config.getoption("--over")
    if part is None:
        return
    taken = [item for item in items if part_of(item) == part]
    config.hook.pytest_deselected(items=[item for item in items if item not in taken])
    items[:] = taken


def part_of(item):
    """Return the value of the fixture `part` in this test, or None where it is not used."""
    return item.callspec.params.get("part") if hasattr(item, "callspec") else None
