"""The budget of retries and the spacing of attempts, as a table: no clock, no socket, no broker."""

from __future__ import annotations

import pytest

from lonc.broker.health import DEAD, STATES, UP, WAITING, Health
from lonc.broker.settings import Settings


def make(random=0.5, **settings):
    return Health(Settings(**settings), lambda: random)


def test_at_first():
    health = make()
    assert (health.state, health.retries, health.due, health.sound) == (UP, 5, 0.0, True)


def test_attempts_are_spaced_twice_as_far_each_time_up_to_the_longest():
    health = make(connection_retries=100)
    pauses = []
    for _ in range(14):
        health.failed(1000.0)
        pauses.append(round(health.due - 1000.0, 6))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60, 60, 60]


@pytest.mark.parametrize(("random", "pause"), [(0.0, 0.08), (0.5, 0.1), (1.0, 0.12)])
def test_pauses_are_spread(random, pause):
    health = make(random)
    health.failed(7.0)
    assert health.due - 7.0 == pytest.approx(pause)


def test_a_million_failures_are_no_overflow():
    health = make(retry_longest=60)
    for _ in range(2000):
        health.failed(0.0)
    assert (health.due, health.retries) == (60.0, 0)


def test_each_failure_takes_one_from_the_budget_and_an_answer_refills_it():
    health = make(connection_retries=3)
    for left in (2, 1):
        health.failed(10.0)
        assert (health.retries, health.sound) == (left, False)
    health.answered()
    assert (health.retries, health.due, health.sound) == (3, 0.0, True)
    health.failed(20.0)
    assert health.due == pytest.approx(20.1), "and the pauses begin anew"


def test_a_failure_while_others_are_alive_turns_nobody_away():
    health = make()
    health.failed(10.0)
    assert (health.state, health.due) == (UP, pytest.approx(10.1))


def test_waiting():
    health = make()
    health.failed(10.0)
    assert health.alone(10.0) is True
    assert health.state == WAITING
    health.ready()
    assert health.state == UP
    assert health.retries == 4, "a dialogue alone refills nothing"
    assert not health.sound


def test_alone_after_the_pause_may_try_at_once():
    health = make()
    assert health.alone(10.0) is False
    health.failed(10.0)
    assert health.alone(10.2) is False
    assert health.state == UP


def test_dead_when_the_budget_is_empty_and_nothing_is_alive():
    health = make(connection_retries=2)
    health.failed(10.0)
    health.failed(20.0)
    assert health.state == UP, "something else is still alive"
    assert health.alone(1000.0) is True
    assert health.state == DEAD


def test_a_probe_that_comes_through_gives_one_retry():
    health = make(connection_retries=2)
    for _ in range(3):
        health.failed(10.0)
    health.alone(10.0)
    assert (health.state, health.retries) == (DEAD, 0)
    health.ready()
    assert (health.state, health.retries, health.sound) == (UP, 1, False)
    health.failed(20.0)
    health.alone(20.0)
    assert health.state == DEAD, "that one is gone: it is dead again at once"
    health.ready()
    health.answered()
    assert (health.state, health.retries, health.sound) == (UP, 2, True)


def test_revive():
    health = make(connection_retries=2)
    health.failed(10.0)
    health.failed(10.0)
    health.alone(10.0)
    health.revive()
    assert (health.state, health.retries, health.due, health.sound) == (UP, 2, 0.0, True)


@pytest.mark.parametrize(
    ("before", "taken", "after", "left"), [(5, 2, 8, 6), (5, 2, 3, 1), (5, 4, 2, 0), (5, 0, 7, 7)]
)
def test_another_budget_keeps_what_was_taken(before, taken, after, left):
    health = make(connection_retries=before)
    for _ in range(taken):
        health.failed(0.0)
    health.reconfigure(Settings(connection_retries=after))
    assert health.retries == left


def test_the_table_is_whole():
    """Every event has an entry in every state, and every state is reached."""
    events = set().union(*STATES.values())
    assert all(set(row) == events for row in STATES.values())
    assert {state for row in STATES.values() for state in row.values()} == set(STATES)


def test_an_event_without_entry_is_an_error_that_names_both():
    health = make()
    with pytest.raises(AssertionError, match="'lunch' in state 'up'"):
        health._enter("lunch")
    assert health.state == UP
