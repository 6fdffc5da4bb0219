from __future__ import annotations

import pytest

from lonc.wire.dialects import DIALECTS, END, REFUSED, event_of
from lonc.wire.dialogue import Dialogue, DialogueError

CHALLENGE = b"123451061234567\n"
BUILDKEY = b"48213A0C9F07712345\n"
KEY = bytes.fromhex("624516245248213a0c9f077123456245")

# What lonc says, the state it is in then, and what the peer answers.
CLASSIC = [
    (b"init\n", "INITIALIZED", CHALLENGE),
    (CHALLENGE, "CHALLENGE_REPLIED", b"ok\n"),
    (b"ekey\n", "RECEIVING_KEY", BUILDKEY),
    (b"", "IDLE", None),
]
VERSIONED = [
    *CLASSIC[:2],
    (b"version\n", "READING_VERSION", b"version:1.340.2.1\n"),
    (b"sethost:msul1\n", "SETTING_HOST", b"ok\n"),
    *CLASSIC[2:],
]
LINE: list[tuple[bytes, str, bytes | None]] = [(b"", "IDLE", None)]
SCRIPTS: dict[str, list[tuple[bytes, str, bytes | None]]] = {
    "classic": CLASSIC,
    "versioned": VERSIONED,
    "line": LINE,
}

OPAQUE = (CHALLENGE, b"7\n", BUILDKEY, b"\x80\xff\0\n", b"12\r\n", b"%(line)b %s\n")
ANSWERS = (
    *OPAQUE,
    b"ok\n",
    b"refused\n",
    b"unknown_cmd\n",
    b"unable_to_set\n",
    b"version:1.489\n",
    b"\n",
    b"",
    b"ok",
    b"12345",
    b"refused",
)
EVERY_OPAQUE = {*OPAQUE, b"unable_to_set\n"}  # not a word of lond there, so opaque too
RIGHT_ANSWERS = {
    ("classic", "INITIALIZED"): EVERY_OPAQUE,
    ("classic", "CHALLENGE_REPLIED"): {b"ok\n"},
    ("classic", "RECEIVING_KEY"): EVERY_OPAQUE,
    ("classic", "IDLE"): set(),
    ("versioned", "INITIALIZED"): EVERY_OPAQUE,
    ("versioned", "CHALLENGE_REPLIED"): {b"ok\n"},
    ("versioned", "READING_VERSION"): {b"version:1.489\n", b"unknown_cmd\n"},
    ("versioned", "SETTING_HOST"): {b"ok\n", b"unknown_cmd\n"},
    ("versioned", "RECEIVING_KEY"): EVERY_OPAQUE,
    ("versioned", "IDLE"): set(),
    ("line", "IDLE"): set(),
}


def dialogue_in(dialect: str, state: str = "IDLE", **answers: bytes) -> Dialogue:
    """A dialogue of msul2 with msul1, led to `state`; `answers` replace the script's, by state."""
    dialogue = Dialogue(DIALECTS[dialect], "msul2", "msul1")
    dialogue.begin()
    for _, here, answer in SCRIPTS[dialect]:
        if here == state:
            break
        given = answers.get(here, answer)
        assert given is not None
        dialogue.receive(given)
    assert dialogue.state == state
    return dialogue


@pytest.mark.parametrize("dialect", SCRIPTS)
def test_the_whole_dialogue(dialect: str) -> None:
    dialogue = Dialogue(DIALECTS[dialect], "msul2", "msul1")
    assert dialogue.state == "CONNECTED"
    assert not dialogue.done
    answer: bytes | None = None
    for said, state, next_answer in SCRIPTS[dialect]:
        outgoing = dialogue.begin() if answer is None else dialogue.receive(answer)
        assert outgoing == said
        assert dialogue.state == state
        assert dialogue.done == (state == "IDLE")
        answer = next_answer
    assert dialogue.done


@pytest.mark.parametrize(("dialect", "state"), RIGHT_ANSWERS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_every_answer_in_every_state(dialect: str, state: str, answer: bytes) -> None:
    dialogue = dialogue_in(dialect, state)
    if answer in RIGHT_ANSWERS[dialect, state]:
        states = [here for _, here, _ in SCRIPTS[dialect]]
        dialogue.receive(answer)
        assert dialogue.state == states[states.index(state) + 1]
        return
    before = (dialogue.key, dialogue.key_mode, dialogue.peer_version, dialogue.current_host)
    with pytest.raises(DialogueError) as caught:
        dialogue.receive(answer)
    event = event_of(answer)
    assert caught.value.reason == str(caught.value)
    assert event in caught.value.reason
    assert state in caught.value.reason
    assert caught.value.refused == (event == REFUSED)
    assert dialogue.state == state
    after = (dialogue.key, dialogue.key_mode, dialogue.peer_version, dialogue.current_host)
    assert after == before


def test_the_matrix_above_has_every_state_of_every_table() -> None:
    states = {(name, state) for name, dialect in DIALECTS.items() for state in dialect.steps}
    assert states == set(RIGHT_ANSWERS) | {(name, "CONNECTED") for name in DIALECTS}


@pytest.mark.parametrize("challenge", OPAQUE)
def test_a_challenge_is_echoed_byte_for_byte(challenge: bytes) -> None:
    assert dialogue_in("classic", "INITIALIZED").receive(challenge) == challenge


@pytest.mark.parametrize("dialect", ["classic", "versioned"])
def test_refused_is_never_echoed(dialect: str) -> None:
    with pytest.raises(DialogueError) as caught:
        dialogue_in(dialect, "INITIALIZED").receive(b"refused\n")
    assert caught.value.refused


def test_a_cut_refusal_is_an_end_and_no_refusal() -> None:
    with pytest.raises(DialogueError, match=END) as caught:
        dialogue_in("classic", "INITIALIZED").receive(b"refused")
    assert not caught.value.refused


@pytest.mark.parametrize("dialect", SCRIPTS)
def test_nothing_is_taken_before_the_beginning(dialect: str) -> None:
    dialogue = Dialogue(DIALECTS[dialect], "msul2", "msul1")
    with pytest.raises(DialogueError, match="CONNECTED"):
        dialogue.receive(CHALLENGE)
    assert dialogue.state == "CONNECTED"


@pytest.mark.parametrize("dialect", SCRIPTS)
def test_there_is_one_beginning(dialect: str) -> None:
    dialogue = Dialogue(DIALECTS[dialect], "msul2", "msul1")
    dialogue.begin()
    state = dialogue.state
    with pytest.raises(DialogueError, match=state):
        dialogue.begin()


def test_an_error_does_not_repeat_what_the_peer_sent() -> None:
    with pytest.raises(DialogueError) as caught:
        dialogue_in("classic", "CHALLENGE_REPLIED").receive(b"swordfish\n")
    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize("dialect", ["classic", "versioned"])
def test_the_key_comes_last(dialect: str) -> None:
    dialogue = dialogue_in(dialect, "RECEIVING_KEY")
    assert dialogue.key is None
    assert dialogue.key_mode is None
    assert dialogue.receive(BUILDKEY) == b""
    assert dialogue.key == KEY
    assert dialogue.key_mode == "insecure"


def test_a_buildkey_of_any_bytes_makes_a_key() -> None:
    assert dialogue_in("classic", RECEIVING_KEY=b"\x80\xff\0\r\n").key == bytes.fromhex(
        "62451624520f0d62451624520f0d6245"
    )


def test_the_line_dialect_has_no_key() -> None:
    dialogue = dialogue_in("line")
    assert (dialogue.key, dialogue.key_mode) == (None, None)
    assert (dialogue.peer_version, dialogue.current_host) == (None, None)
    assert not dialogue.inline_sethost


@pytest.mark.parametrize(
    ("text", "version", "inline"),
    [
        (b"1.340.2.1", "1.340.2.1", True),
        (b"$Revision: 1.489 $", "1.489", True),
        (b" $Revision: 1.489 $ ", "1.489", True),
        (b"1.489\r", "1.489", True),
        (b"1.322", "1.322", True),
        (b"1.321", "1.321", False),
        (b"1.321.9", "1.321.9", False),
        (b"1.99", "1.99", False),
        (b"489", "489", False),
        (b"489.1", "489.1", False),
        (b"1.", "1.", False),
        (b"1.x400", "1.x400", False),
        (b"1.-400", "1.-400", False),
        (b"1..400", "1..400", False),
        (b"1.0000322", "1.0000322", True),
        (b"2.400-rc1", "2.400-rc1", True),
        (b"", "", False),
        (b"\x1b[31m1.400\xff", "?[31m1.400?", True),
        pytest.param(b"1." + b"9" * 100_000, "1." + "9" * 62, True, id="very long"),
    ],
)
def test_what_the_version_says(text: bytes, version: str, inline: bool) -> None:
    dialogue = dialogue_in("versioned", READING_VERSION=b"version:" + text + b"\n")
    assert dialogue.peer_version == version
    assert dialogue.inline_sethost is inline


def test_a_peer_without_a_version() -> None:
    dialogue = dialogue_in("versioned", READING_VERSION=b"unknown_cmd\n")
    assert dialogue.peer_version is None
    assert not dialogue.inline_sethost
    assert dialogue.current_host == "msul1"
    assert dialogue.key == KEY


def test_the_current_host_is_known_only_after_an_ok() -> None:
    assert dialogue_in("versioned", "SETTING_HOST").current_host is None
    assert dialogue_in("versioned").current_host == "msul1"
    unknown = dialogue_in("versioned", SETTING_HOST=b"unknown_cmd\n")
    assert unknown.current_host is None
    assert unknown.key == KEY
    assert dialogue_in("classic").current_host is None


def test_a_host_id_that_no_line_can_hold_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="latin-1"):
        Dialogue(DIALECTS["versioned"], "msul2", "msul\N{SNOWMAN}")
