"""The tables of settings: what each kind of value takes, and the frozen object."""

from __future__ import annotations

import grp
import math
import os
import pwd
import tomllib

import pytest

from lonc.broker.settings import Settings
from lonc.broker.table import MIB, Count, Kind, NotAllowed, Size, Table, written
from lonc.daemon.settings import DaemonSettings, PeerSettings
from lonc.errors import ConfigError

TABLES = (Settings, DaemonSettings, PeerSettings)
ME = pwd.getpwuid(os.geteuid())

# Every default that the specification gives.
SPECIFIED = {
    "dialect": "versioned",
    "max_connections": 10,
    "max_dialling": 3,
    "connect_timeout": 5,
    "dialogue_timeout": 30,
    "reply_timeout": 130,
    "transaction_timeout": 600,
    "queue_timeout": 60,
    "client_timeout": 60,
    "idle_timeout": 300,
    "idle_close_interval": 30,
    "connection_retries": 5,
    "retry_first": 0.1,
    "retry_longest": 60,
    "probe_while_asked": 600,
    "max_queue": 10000,
    "max_request": 8 * MIB,
    "max_reply": 64 * MIB,
    "max_early": 65536,
    "max_buffered": 256 * MIB,
    "abandoned": "send",
    "drain_timeout": 10,
    "backlog": 4096,
    "allow_insecure": True,
}


def refused(table: type[Table], **overrides: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        table(**overrides)
    return caught.value.problems


def test_defaults_are_the_specified_ones() -> None:
    settings = Settings()
    assert {name: getattr(settings, name) for name in SPECIFIED} == SPECIFIED


@pytest.mark.parametrize("table", TABLES)
def test_every_row_is_documented_and_its_default_can_be_written_and_read(
    table: type[Table],
) -> None:
    for name, row in table.rows().items():
        assert row.name == name
        assert row.reason.endswith(".")
        assert row.kind.allowed
        assert row.effect in ("live", "by a successor", "at restart")
        if name in ("own_id", "address"):
            continue
        shown = row.kind.show(row.default)
        value = tomllib.loads(f"value = {shown}")["value"]
        assert row.kind.take(value) == row.default


def test_no_name_means_two_things() -> None:
    assert not Settings.rows().keys() & DaemonSettings.rows().keys()
    assert not Settings.rows().keys() & PeerSettings.rows().keys()


GOOD = [
    ("max_queue", 1, 1),
    ("max_clients", 0, 0),
    ("max_reply", 1, 1),
    ("max_reply", "2 KiB", 2048),
    ("max_reply", "3 MiB", 3 * MIB),
    ("max_reply", "1 GiB", 1024 * MIB),
    ("reply_timeout", 1, 1.0),
    ("reply_timeout", 0.25, 0.25),
    ("drain_timeout", 0, 0.0),
    ("retry_jitter", 0, 0.0),
    ("retry_jitter", 1, 1.0),
    ("allow_insecure", False, False),
    ("dialect", "line", "line"),
    ("allow_users", [], ()),
    ("allow_users", [ME.pw_name, 5], (ME.pw_uid, 5)),
    ("allow_groups", [grp.getgrgid(ME.pw_gid).gr_name], (ME.pw_gid,)),
]


@pytest.mark.parametrize(("name", "value", "kept"), GOOD)
def test_good_values(name: str, value: object, kept: object) -> None:
    taken = getattr(Settings(**{name: value}), name)
    assert taken == kept
    assert type(taken) is type(kept)


BAD = [
    ("max_queue", 0),
    ("max_queue", 2**31),
    ("max_queue", 1.0),
    ("max_queue", True),
    ("max_queue", "5"),
    ("max_clients", -1),
    ("max_reply", 0),
    ("max_reply", "1 TiB"),
    ("max_reply", "2 GiB"),
    ("max_reply", "MiB"),
    ("max_reply", "-1 MiB"),
    ("max_reply", "²  KiB"),
    ("max_reply", "9" * 5000 + " KiB"),
    ("max_reply", 1.5),
    ("max_reply", True),
    ("reply_timeout", 0),
    ("reply_timeout", -1),
    ("reply_timeout", math.nan),
    ("reply_timeout", math.inf),
    ("reply_timeout", 10**30),
    ("reply_timeout", {"a": 16**9999}),
    ("reply_timeout", "5"),
    ("reply_timeout", True),
    ("retry_jitter", 1.01),
    ("retry_jitter", -0.01),
    ("retry_jitter", math.nan),
    ("allow_insecure", 0),
    ("allow_insecure", "no"),
    ("dialect", "keyed"),
    ("dialect", None),
    ("dialect", ["line"]),
    ("allow_users", "root"),
    ("allow_users", ["no such user"]),
    ("allow_users", ["nul\0"]),
    ("allow_users", [-1]),
    ("allow_users", [2**32 - 1]),
    ("allow_users", [True]),
    ("allow_groups", ["no such group"]),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_one_line_with_name_value_and_what_is_allowed(
    name: str, value: object
) -> None:
    [problem] = refused(Settings, **{name: value})
    assert problem.startswith(
        f"{name} = {written(value)}: must be {Settings.rows()[name].kind.allowed}"
    )
    assert "\n" not in problem


def test_a_missing_account_is_named() -> None:
    [problem] = refused(Settings, allow_users=["no such user"])
    assert problem.endswith('; there is no user "no such user"')
    [problem] = refused(Settings, allow_groups=["nix"])
    assert problem.endswith('; there is no group "nix"')


def test_all_problems_are_told_at_once() -> None:
    problems = refused(Settings, max_queue=0, dialect="x", what=1)
    assert [problem.split(" ")[0] for problem in problems] == ["max_queue", "dialect", "what:"]


def test_values_that_cannot_hold_together() -> None:
    assert refused(Settings, retry_first=61) == [
        "retry_first = 61 is longer than retry_longest = 60"
    ]
    with pytest.raises(ConfigError):
        Settings(retry_first=5).replace(retry_longest=4)


def test_settings_are_frozen_and_compared_by_value() -> None:
    settings = Settings(max_queue=5)
    with pytest.raises(AttributeError):
        settings.max_queue = 6
    with pytest.raises(AttributeError):
        del settings.max_queue
    assert settings.max_queue == 5
    assert settings == Settings(max_queue=5)
    assert hash(settings) == hash(Settings(max_queue=5))
    assert settings != Settings()
    assert settings != vars(settings)
    assert repr(settings) == "Settings(max_queue=5)"


def test_replace_leaves_the_original_and_keeps_the_rest() -> None:
    first = Settings(max_queue=5, allow_users=[7])
    second = first.replace(max_reply="1 KiB")
    assert (second.max_queue, second.max_reply, second.allow_users) == (5, 1024, (7,))
    assert first.max_reply == 64 * MIB
    assert refused_replace(first, max_queue=0).startswith("max_queue = 0: must be")


def refused_replace(settings: Settings, **overrides: object) -> str:
    with pytest.raises(ConfigError) as caught:
        settings.replace(**overrides)
    [problem] = caught.value.problems
    return problem


DAEMON_GOOD = [
    ("socket_dir", "/a//b/../c", "/a/c"),
    ("pid_file", "", ""),
    ("socket_mode", "0600", 0o600),
    ("socket_mode", "666", 0o666),
    ("socket_owner", "", None),
    ("socket_owner", ME.pw_name, ME.pw_uid),
    ("socket_group", 12, 12),
    ("user", ME.pw_name, ME.pw_name),
    ("own_id", "a.b_c-D9", "a.b_c-D9"),
]


@pytest.mark.parametrize(("name", "value", "kept"), DAEMON_GOOD)
def test_good_values_of_the_daemon(name: str, value: object, kept: object) -> None:
    overrides = {"own_id": "here"} | {name: value}
    assert getattr(DaemonSettings(**overrides), name) == kept


DAEMON_BAD = [
    ("socket_dir", "relative"),
    ("socket_dir", ""),
    ("socket_dir", "/a\0b"),
    ("socket_dir", 5),
    ("pid_file", "x.pid"),
    ("socket_mode", 0o660),
    ("socket_mode", "0888"),
    ("socket_mode", "1777"),
    ("socket_mode", "60"),
    ("socket_owner", "no such user"),
    ("user", "no such user"),
    ("user", 0),
    ("own_id", ".hidden"),
    ("own_id", "a/b"),
    ("own_id", "ä"),
    ("own_id", ""),
    ("own_id", "a\n"),
]


@pytest.mark.parametrize(("name", "value"), DAEMON_BAD)
def test_bad_values_of_the_daemon(name: str, value: object) -> None:
    [problem] = refused(DaemonSettings, **{"own_id": "here"} | {name: value})
    assert problem.startswith(f"{name} = ")


@pytest.mark.parametrize("address", ["msul1.example.org", "127.0.0.1", "::1", "fe80::1%eth0"])
def test_addresses(address: str) -> None:
    assert PeerSettings(address=address).address == address


@pytest.mark.parametrize("address", ["", "a b", "[::1]", "a/b", "a,b", "ä", "a\n", 7, "x" * 256])
def test_what_is_no_address(address: object) -> None:
    [problem] = refused(PeerSettings, address=address)
    assert problem.startswith("address = ")


def test_what_must_be_given() -> None:
    assert refused(PeerSettings) == ["address is missing: a host name or an IP address"]
    assert refused(DaemonSettings) == ["own_id is missing: the id of this host in the cluster"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (5, "5"),
        (0.5, "0.5"),
        ('a"b\\', '"a\\"b\\\\"'),
        ("a\nb", '"a\\U0000000ab"'),
        ("ä", '"ä"'),
        (["a", 1], '["a", 1]'),
        ({"a": {"b": 1}}, "{a = {b = 1}}"),
        (-(2**64), "-0x10000000000000000"),
    ],
)
def test_values_are_shown_as_a_file_writes_them(value: object, text: str) -> None:
    assert written(value) == text


def test_sizes_are_shown_in_the_largest_unit_that_fits() -> None:
    assert [Size().show(size) for size in (1, 1025, 2048, 3 * MIB, 1024 * MIB)] == [
        "1",
        "1025",
        '"2 KiB"',
        '"3 MiB"',
        '"1 GiB"',
    ]


def test_a_kind_of_one_s_own() -> None:
    class Even(Kind):
        allowed = "an even number"

        def take(self, value: object) -> int:
            number = Count(0).take(value)
            if number % 2:
                raise NotAllowed("it is odd")
            return number

    assert Even().take(4) == 4
    with pytest.raises(NotAllowed, match="odd"):
        Even().take(3)
