"""What all tests share: the two parts, and waiting for a condition."""

from __future__ import annotations

import importlib
import os
import time

import pytest

#: Seconds that a test waits for what must happen; prove.py, whose tests must fail, makes it short.
DEADLINE = float(os.environ.get("LONC_TEST_DEADLINE", "20"))

PARTS = {"compiled": "lonc._fastpath", "pure": "lonc._purepath"}


def load_part(name):
    """Return the module of a part; skips the test where the compiled one was not built."""
    try:
        return importlib.import_module(PARTS[name])
    except ModuleNotFoundError:
        pytest.skip("the extension is not built")


@pytest.fixture(params=list(PARTS))
def part(request):
    """The name of the part that the test runs over."""
    load_part(request.param)
    return request.param


@pytest.fixture
def parts(part):
    """The module that the test runs over."""
    return load_part(part)


@pytest.fixture
def part_env(part):
    """What a process of its own needs in its environment to run over the same part."""
    return {"LONC_FASTPATH": "require" if part == "compiled" else "no"}


def wait_until(condition, seconds=DEADLINE, step=None):
    """Return the first true result of `condition()`, calling `step()` in between, if it is given.

    Fails after `seconds`, so that a broken program ends a test and does not hang it.
    """
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {condition}")
        if step is None:
            time.sleep(0.005)
        else:
            step()
