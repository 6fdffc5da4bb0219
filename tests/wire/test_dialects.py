from __future__ import annotations

import pytest

from lonc.wire import dialects
from lonc.wire.dialects import DIALECTS, Dialect, event_of

LOCAL_LINES = {b"reset_retries", b"close_connection_exit"}


@pytest.fixture(params=sorted(DIALECTS))
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return DIALECTS[request.param]


def test_there_are_three_and_each_knows_its_name() -> None:
    assert set(DIALECTS) == {"classic", "versioned", "line"}
    assert all(dialect.name == name for name, dialect in DIALECTS.items())


@pytest.mark.parametrize("name", ["classic", "versioned"])
def test_what_lond_takes(name: str) -> None:
    dialect = DIALECTS[name]
    assert dialect.farewell == b"exit\n"
    assert dialect.local_lines == LOCAL_LINES
    assert dialect.encrypts
    assert dialect.sets_host
    assert not dialect.empty_is_request
    assert dialect.names_commands


def test_what_a_line_service_takes() -> None:
    dialect = DIALECTS["line"]
    assert dialect.farewell == b""
    assert dialect.local_lines == frozenset()
    assert not dialect.encrypts
    assert not dialect.sets_host
    assert dialect.empty_is_request
    assert not dialect.names_commands


def test_every_state_of_a_table_is_reached_and_leads_to_idle(dialect: Dialect) -> None:
    for start in dialect.steps:
        reached = {start}
        while True:
            further = {after for state in reached for after in dialect.steps[state].values()}
            if further <= reached:
                break
            reached |= further
        assert dialects.IDLE in reached
        if start == dialects.CONNECTED:
            assert reached == set(dialect.steps)


def test_only_the_states_that_wait_for_an_answer_say_something(dialect: Dialect) -> None:
    waiting = set(dialect.steps) - {dialects.CONNECTED, dialects.IDLE}
    assert set(dialect.sends) == waiting
    assert dict(dialect.steps[dialects.IDLE]) == {}


def test_no_table_has_a_way_past_a_refusal_or_an_end(dialect: Dialect) -> None:
    for row in dialect.steps.values():
        assert not {dialects.REFUSED, dialects.END, dialects.EMPTY} & set(row)


def test_a_dialect_cannot_be_changed(dialect: Dialect) -> None:
    with pytest.raises(AttributeError, match="farewell"):
        dialect.farewell = b"bye\n"
    with pytest.raises(AttributeError, match="name"):
        del dialect.name
    with pytest.raises(TypeError):
        dialect.steps[dialects.IDLE] = {}  # type: ignore[index]
    with pytest.raises(TypeError):
        dialect.steps[dialects.IDLE][dialects.OK] = dialects.IDLE  # type: ignore[index]
    with pytest.raises(TypeError):
        DIALECTS["other"] = dialect  # type: ignore[index]


def test_changing_the_tables_it_was_made_from_changes_nothing() -> None:
    steps = {dialects.CONNECTED: {dialects.BEGIN: dialects.IDLE}, dialects.IDLE: {}}
    sends = {dialects.IDLE: b"hello\n"}
    dialect = Dialect(
        "other",
        steps=steps,
        sends=sends,
        farewell=b"",
        local_lines=frozenset(),
        encrypts=False,
        sets_host=False,
        empty_is_request=True,
        names_commands=False,
    )
    steps[dialects.CONNECTED].clear()
    steps.clear()
    sends.clear()
    assert dialect.steps[dialects.CONNECTED] == {dialects.BEGIN: dialects.IDLE}
    assert dialect.sends == {dialects.IDLE: b"hello\n"}
    assert "other" in repr(dialect)


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b"ok\n", dialects.OK),
        (b"refused\n", dialects.REFUSED),
        (b"unknown_cmd\n", dialects.UNKNOWN),
        (b"version:1.489\n", dialects.VERSION),
        (b"version:\n", dialects.VERSION),
        (b"0\n", dialects.DIGITS),
        (b"123451061234567\n", dialects.DIGITS),
        (b"\n", dialects.EMPTY),
        (b"version\n", dialects.TEXT),
        (b"OK\n", dialects.TEXT),
        (b"ok \n", dialects.TEXT),
        (b" ok\n", dialects.TEXT),
        (b"ok\r\n", dialects.TEXT),
        (b"\r\n", dialects.TEXT),
        (b"\0\n", dialects.TEXT),
        (b"refused:\n", dialects.TEXT),
        (b"48213A0C9F07712345\n", dialects.TEXT),
        (b"12 34\n", dialects.TEXT),
        (b"\xb2\xb3\xff\n", dialects.TEXT),
        (b"\xd9\xa1\n", dialects.TEXT),  # a digit in UTF-8, but not one of lond's
        (b"", dialects.END),
        (b"ok", dialects.END),
        (b"12345", dialects.END),
    ],
)
def test_event_of(line: bytes, event: str) -> None:
    assert event_of(line) == event
