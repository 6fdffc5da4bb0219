"""The parts have the same public names, signatures, constants and arithmetic."""

from __future__ import annotations

import inspect
import random

import pytest

from tests.conftest import load_part

CLASSES = ("Buffer", "Port", "Poller", "Exchange", "Link", "Client", "Listener", "Transaction")
CONSTANTS = (
    "READ",
    "WRITE",
    "HANGUP",
    "PREPARING",
    "IDLE",
    "BUSY",
    "CLOSED",
    "CON_LOST",
    "RECEIVE",
    "READS_A_TURN",
    "ACCEPTS_A_TURN",
    "BUCKETS",
)
# Called by the part itself only: the compiled one does that without Python in between.
INSIDE = {
    "Client": {"rank", "ready", "reply"},
    "Link": {"rank", "ready", "buffer", "out"},
    "Listener": {"rank", "ready"},
}


@pytest.fixture
def twins():
    return load_part("pure"), load_part("compiled")


def public(thing):
    return {name for name in dir(thing) if not name.startswith("_")}


def parameters(function):
    return [
        (each.name, each.default)
        for each in inspect.signature(function).parameters.values()
        if each.name != "self"
    ]


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants(twins, name):
    pure, compiled = twins
    assert getattr(pure, name) == getattr(compiled, name)


@pytest.mark.parametrize("name", CLASSES)
def test_attributes_and_methods(twins, name):
    pure, compiled = (getattr(part, name) for part in twins)
    exchange_only = {"Exchange"} & {name}
    pure_names = public(pure) - INSIDE.get(name, set())
    compiled_names = public(compiled) - INSIDE.get(name, set())
    if exchange_only:
        # The pure one's attributes are made by __init__; look at an object.
        pure_names = public(pure(twins[0].Poller(), None))
    if name == "Poller":
        pure_names = public(pure())
    assert pure_names - compiled_names == set()
    assert compiled_names - pure_names == set()


@pytest.mark.parametrize("name", CLASSES)
def test_signatures(twins, name):
    pure, compiled = (getattr(part, name) for part in twins)
    compared = 0
    for method in sorted(public(pure) & public(compiled) - INSIDE.get(name, set())):
        if not inspect.isfunction(getattr(pure, method)):
            continue
        assert parameters(getattr(pure, method)) == parameters(getattr(compiled, method)), method
        compared += 1
    assert compared


@pytest.mark.parametrize("name", ["bucket_of", "bucket_floor"])
def test_functions(twins, name):
    pure, compiled = (getattr(part, name) for part in twins)
    assert parameters(pure) == parameters(compiled)
    assert pure.__doc__ == compiled.__doc__


def test_limits_begin_with_the_same_values(twins):
    pure, compiled = (part.Exchange(part.Poller(), None) for part in twins)
    compared = 0
    for name in public(pure):
        value = getattr(pure, name)
        if isinstance(value, (int, float, bool, tuple, list)) and not callable(value):
            assert getattr(compiled, name) == value, name
            compared += 1
    assert compared > 30


# Latency


def test_buckets_are_in_order_and_leave_no_gap(parts):
    floors = [parts.bucket_floor(i) for i in range(parts.BUCKETS)]
    assert floors[:17] == list(range(17))
    assert floors == sorted(set(floors))
    for i, floor in enumerate(floors):
        assert parts.bucket_of(floor) == i
        if i:
            assert parts.bucket_of(floor - 1) == i - 1


def test_a_bucket_is_narrow(parts):
    for i in range(16, parts.BUCKETS - 1):
        floor, end = parts.bucket_floor(i), parts.bucket_floor(i + 1)
        assert (end - floor) / floor <= 0.125


@pytest.mark.parametrize("microseconds", [1 << 62, 1 << 63, 1 << 64, 1 << 200, 10**30])
def test_what_is_too_long_is_in_the_last_one(parts, microseconds):
    assert parts.bucket_of(microseconds) == parts.BUCKETS - 1


def test_both_count_the_same(twins):
    pure, compiled = twins
    chance = random.Random(7)
    for _ in range(20_000):
        number = chance.getrandbits(chance.randrange(1, 70))
        assert pure.bucket_of(number) == compiled.bucket_of(number)
    assert [pure.bucket_floor(i) for i in range(320)] == [
        compiled.bucket_floor(i) for i in range(320)
    ]
