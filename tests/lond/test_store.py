"""The store: what is written is read again, by anyone, and only whole."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lonc.errors import UsageError
from lonc.lond import Store
from lonc.lond.store import Missing

NAME = (b"msu", b"korte", b"environment")
OTHER = (b"msu", b"korte", b"grades")


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.close()


def test_a_namespace_that_was_never_written_is_missing(store: Store) -> None:
    with pytest.raises(Missing):
        store.get(NAME, [b"a"])
    with pytest.raises(Missing):
        store.dump(NAME)


def test_values_come_in_the_order_of_the_keys_asked_for(store: Store) -> None:
    store.put(NAME, [(b"a", b"1"), (b"b", b"2")])
    assert store.get(NAME, [b"b", b"none", b"a"]) == [b"2", b"", b"1"]


def test_put_overwrites(store: Store) -> None:
    store.put(NAME, [(b"a", b"1")])
    store.put(NAME, [(b"a", b"2")])
    assert store.dump(NAME) == [(b"a", b"2")]


def test_namespaces_are_apart(store: Store) -> None:
    store.put(NAME, [(b"a", b"1")])
    store.put(OTHER, [(b"a", b"2")])
    assert store.dump(NAME) == [(b"a", b"1")]


def test_any_byte_is_kept(store: Store) -> None:
    every = bytes(range(256))
    store.put((every, every, every), [(every, every)])
    assert store.dump((every, every, every)) == [(every, every)]


def test_dump_is_in_the_order_of_the_keys(store: Store) -> None:
    store.put(NAME, [(b"b", b""), (b"c", b""), (b"a", b"")])
    assert [key for key, _ in store.dump(NAME)] == [b"a", b"b", b"c"]


def test_delete_leaves_the_namespace(store: Store) -> None:
    store.put(NAME, [(b"a", b"1")])
    store.delete(NAME, [b"a", b"none"])
    assert store.dump(NAME) == []


def test_put_new_changes_nothing_where_a_key_is_there(store: Store) -> None:
    assert store.put_new(NAME, [(b"a", b"1")]) is None
    assert store.put_new(NAME, [(b"b", b"2"), (b"a", b"2")]) == b"a"
    assert store.dump(NAME) == [(b"a", b"1")]


def test_increment_begins_at_zero(store: Store) -> None:
    store.increment(NAME, [(b"a", 2), (b"b", 0.5)])
    store.increment(NAME, [(b"a", 3), (b"b", 0.25)])
    assert store.dump(NAME) == [(b"a", b"5"), (b"b", b"0.75")]


def test_increment_of_what_is_no_number_changes_nothing(store: Store) -> None:
    store.put(NAME, [(b"b", b"text")])
    with pytest.raises(ValueError):
        store.increment(NAME, [(b"a", 1), (b"b", 1)])
    assert store.dump(NAME) == [(b"b", b"text")]


def test_each_version_is_kept(store: Store) -> None:
    assert store.append_version(NAME, b"r", [(b"x", b"1"), (b"y", b"2")]) == 1
    assert store.append_version(NAME, b"r", [(b"x", b"3")]) == 2
    assert store.append_version(NAME, b"other", [(b"x", b"4")]) == 1
    kept = dict(store.dump(NAME))
    assert kept[b"version:r"] == b"2"
    assert (kept[b"1:r:x"], kept[b"2:r:x"], kept[b"1:other:x"]) == (b"1", b"3", b"4")
    assert kept[b"1:keys:r"] == b"x:y"
    assert kept[b"2:r:timestamp"].isdigit()


def test_accounts(store: Store) -> None:
    assert not store.has_account(b"msu", b"korte")
    assert not store.check_password(b"msu", b"korte", b"secret")
    assert store.create_account(b"msu", b"korte", b"secret")
    assert not store.create_account(b"msu", b"korte", b"another")
    assert store.has_account(b"msu", b"korte")
    assert store.check_password(b"msu", b"korte", b"secret")
    assert not store.check_password(b"msu", b"korte", b"another")
    assert not store.change_password(b"msu", b"korte", b"wrong", b"new")
    assert not store.change_password(b"msu", b"nobody", b"secret", b"new")
    assert store.change_password(b"msu", b"korte", b"secret", b"new")
    assert store.check_password(b"msu", b"korte", b"new")


def test_no_password_is_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "store"
    store = Store(str(file))
    store.create_account(b"msu", b"korte", b"correct horse battery")
    store.create_account(b"msu", b"albertelli", b"correct horse battery")
    store.close()
    assert b"korte" in file.read_bytes()
    assert b"battery" not in file.read_bytes()
    with sqlite3.connect(file) as db:
        kept = [row[0] for row in db.execute("SELECT password FROM account")]
    db.close()
    assert kept[0] != kept[1], "the same password twice has two digests"


def test_activity_log(store: Store) -> None:
    store.log(b"msu", b"korte", b"first")
    store.log(b"msu", b"korte", b"second")
    store.log(b"msu", b"other", b"third")
    assert [text for _, text in store.logged(b"msu", b"korte")] == [b"first", b"second"]


def test_a_file_outlives_the_store(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    first = Store(path)
    first.put(NAME, [(b"a", b"1")])
    first.close()
    second = Store(path)
    assert second.dump(NAME) == [(b"a", b"1")]
    second.close()


def test_a_file_that_is_none_of_ours(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text(
        "This has never been a data base, and it is long enough to look like one. " * 20
    )
    with pytest.raises(UsageError, match="cannot use .*text as a store"):
        Store(str(text))


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot open the store .*none/store"):
        Store(str(tmp_path / "none" / "store"))


def test_threads_lose_no_update(store: Store) -> None:
    def add() -> None:
        for _ in range(50):
            store.increment(NAME, [(b"a", 1)])

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get(NAME, [b"a"]) == [b"400"]
