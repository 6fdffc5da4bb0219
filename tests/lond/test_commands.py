"""Each command, over a connection of the `line` dialect where that is possible."""

from __future__ import annotations

from pathlib import Path

import pytest

from lonc.lond import Store
from lonc.lond.commands import MAX_BLOB
from lonc.wire.envelope import seal, unseal

from .conftest import Bench, Caller

RECORD = b"msu:korte:environment"


@pytest.fixture
def caller(bench: Bench) -> Caller:
    return bench.caller(bench.peer(dialect="line"))


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"ping", b"msul1"),
        (b"pong", b"msul1:msul2"),
        (b"version", b"version:1.489"),
        (b"userload", b"1"),
        (b"nonsense", b"unknown_cmd"),
        (b"", b"unknown_cmd"),
        (b"echo:any:thing & all", b"any:thing & all"),
        (b"echo", b""),
        (b"blob:0", b""),
        (b"blob:3", b"xxx"),
        (b"blob:8:abc", b"abcabcab"),
        (b"blob", b"error: blob wants size:text"),
        (b"blob:many", b"error: blob wants a size of at most %d bytes" % MAX_BLOB),
        (b"blob:-1", b"error: blob wants a size of at most %d bytes" % MAX_BLOB),
        (b"blob:%d" % (MAX_BLOB + 1), b"error: blob wants a size of at most %d bytes" % MAX_BLOB),
        (b"blob:" + b"9" * 5000, b"error: blob wants a size of at most %d bytes" % MAX_BLOB),
        (b"put:msu:korte", b"error: put wants domain:user:namespace:pairs"),
        (b"put:msu::environment:a=1", b"error: put wants domain:user:namespace:pairs"),
        (b"store:msu:korte:grades:r", b"error: store wants domain:user:namespace:id:pairs"),
        (b"log:msu", b"error: log wants domain:user:text"),
    ],
)
def test_answers(caller: Caller, command: bytes, answer: bytes) -> None:
    assert caller.ask(command) == answer


def test_load_is_a_number(caller: Caller) -> None:
    assert float(caller.ask(b"load")) >= 0


def test_a_large_blob_comes_whole(caller: Caller) -> None:
    assert caller.ask(b"blob:5000000:0123456789") == b"0123456789" * 500_000


def test_put_get_del_keys_dump(caller: Caller) -> None:
    assert caller.ask(b"put:" + RECORD + b":b=2&a=1&empty=&bare") == b"ok"
    assert caller.ask(b"get:" + RECORD + b":a&none&b") == b"1&&2"
    assert caller.ask(b"keys:" + RECORD) == b"a&b&bare&empty"
    assert caller.ask(b"dump:" + RECORD) == b"a=1&b=2&bare=&empty="
    assert caller.ask(b"del:" + RECORD + b":bare&empty") == b"ok"
    assert caller.ask(b"dump:" + RECORD + b":.") == b"a=1&b=2"


def test_values_keep_their_equals_signs_and_colons(caller: Caller) -> None:
    assert caller.ask(b"put:" + RECORD + b":a=x=y:z") == b"ok"
    assert caller.ask(b"get:" + RECORD + b":a") == b"x=y:z"


def test_bytes_beyond_ascii(caller: Caller) -> None:
    odd = bytes(set(range(256)) - set(b"\n&=:"))
    assert caller.ask(b"put:" + RECORD + b":odd=" + odd) == b"ok"
    assert caller.ask(b"get:" + RECORD + b":odd") == odd


def test_dump_by_an_expression_over_the_unescaped_key(caller: Caller) -> None:
    caller.ask(b"put:" + RECORD + b":one%2etwo=1&onetwo=2&none=3")
    assert caller.ask(b"dump:" + RECORD + b":%5eone%5c%2e") == b"one%2etwo=1"
    assert caller.ask(b"dump:" + RECORD + b":%5b") == b"error: dump wants a regular expression"
    assert caller.ask(b"dump:" + RECORD + b":.:0-5") == b"error: dump takes no range here"


@pytest.mark.parametrize("expression", [b"a{99999999999}", b"(" * 5000], ids=["count", "depth"])
def test_dump_by_an_expression_that_python_cannot_take(caller: Caller, expression: bytes) -> None:
    answer = b"error: dump wants a regular expression"
    assert caller.ask(b"dump:" + RECORD + b":" + expression) == answer


@pytest.mark.parametrize("word", [b"get", b"eget", b"keys", b"dump"])
def test_a_database_that_is_not_there_yet(caller: Caller, word: bytes) -> None:
    answer = b"error: 2 tie(GDBM) Failed while attempting " + word
    assert caller.ask(b"%b:%b:a" % (word, RECORD)) == answer


def test_inc(caller: Caller) -> None:
    assert caller.ask(b"inc:" + RECORD + b":n=2&m") == b"ok"
    assert caller.ask(b"inc:" + RECORD + b":n=2.5&m") == b"ok"
    assert caller.ask(b"dump:" + RECORD) == b"m=2&n=4.5"
    assert caller.ask(b"inc:" + RECORD + b":n=much") == b"error: inc wants numbers"
    assert caller.ask(b"put:" + RECORD + b":t=text") == b"ok"
    assert caller.ask(b"inc:" + RECORD + b":n=1&t=1") == b"error: inc wants numbers"
    assert caller.ask(b"get:" + RECORD + b":n") == b"4.5"


def test_newput(caller: Caller) -> None:
    assert caller.ask(b"newput:" + RECORD + b":a=1") == b"ok"
    assert caller.ask(b"newput:" + RECORD + b":b=2&a=2") == b"key_exists: a"
    assert caller.ask(b"dump:" + RECORD) == b"a=1"


def test_store_is_not_idempotent(caller: Caller) -> None:
    assert caller.ask(b"store:" + RECORD + b":r:x=1") == b"ok"
    assert caller.ask(b"store:" + RECORD + b":r:x=1") == b"ok"
    assert caller.ask(b"get:" + RECORD + b":version%3ar&version:r") == b"&2"


@pytest.mark.parametrize("counter", [b"SECRET", b"9" * 5000, b"9" * 4300])
def test_store_where_the_count_is_no_number(caller: Caller, counter: bytes) -> None:
    assert caller.ask(b"put:" + RECORD + b":version:r=" + counter) == b"ok"
    answer = b"error: store wants a number in version:<id>"
    assert caller.ask(b"store:" + RECORD + b":r:x=1") == answer
    assert caller.ask(b"dump:" + RECORD) == b"version:r=" + counter


def test_log(bench: Bench) -> None:
    peer = bench.peer(dialect="line")
    assert bench.caller(peer).ask(b"log:msu:korte:some%20text: and more") == b"ok"
    assert [text for _, text in peer.store.logged(b"msu", b"korte")] == [b"some%20text: and more"]


def test_exit_says_bye_and_closes(caller: Caller) -> None:
    assert caller.ask(b"exit") == b"bye"
    assert caller.left() == b""


@pytest.mark.parametrize("word", [b"auth", b"currentauth", b"passwd", b"makeuser"])
@pytest.mark.parametrize("dialect", ["classic", "line"])
def test_what_must_be_encrypted_is_refused_in_clear(
    bench: Bench, dialect: str, word: bytes
) -> None:
    peer = bench.peer(dialect=dialect)
    caller = bench.caller(peer, dialect)
    assert caller.ask(word + b":msu:korte:secret:secret") == b"refused"
    assert bench.ended(peer) == [f"sent {word.decode()} in clear"]


def test_accounts(bench: Bench) -> None:
    caller, cipher = bench.sealing(bench.peer(dialect="classic"))

    def ask(command: bytes) -> bytes:
        return caller.ask(seal(cipher, command))

    assert ask(b"currentauth:msu:korte") == b"unknown_user"
    assert ask(b"makeuser:msu:korte:krb5:REALM") == b"auth_mode_error"
    assert ask(b"makeuser:msu:korte:internal:top%3asecret") == b"ok"
    assert ask(b"makeuser:msu:korte:internal:other") == b"already_exists"
    assert ask(b"currentauth:msu:korte") == b"internal:"
    assert ask(b"auth:msu:korte:%74op%3Asecret:1:1") == b"authorized"
    assert ask(b"auth:msu:korte:other") == b"non_authorized"
    assert ask(b"passwd:msu:korte:other:new") == b"non_authorized"
    assert ask(b"passwd:msu:korte:top%3asecret:new:preferences") == b"ok"
    assert ask(b"auth:msu:korte:new") == b"authorized"


def test_eget_answers_in_an_envelope(bench: Bench) -> None:
    caller, cipher = bench.sealing(bench.peer(dialect="classic"))
    assert caller.ask(b"put:" + RECORD + b":password=secret") == b"ok"
    for line in (b"eget:" + RECORD + b":password", seal(cipher, b"eget:" + RECORD + b":password")):
        answer = caller.ask(line)
        assert answer.startswith(b"enc:6:")
        assert unseal(cipher, answer) == b"secret"


def test_eget_without_a_key(caller: Caller) -> None:
    caller.ask(b"put:" + RECORD + b":a=1")
    assert caller.ask(b"eget:" + RECORD + b":a") == b"error:no_key"


def test_a_failing_store_is_an_error_and_no_end(bench: Bench, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    caller = bench.caller(bench.peer(dialect="line", store=store))
    store.close()
    answer = caller.ask(b"put:" + RECORD + b":a=1")
    assert answer.startswith(b"error: ") and answer.endswith(b" while attempting put")
    assert caller.ask(b"ping") == b"msul1"
