"""Reading a configuration: files, options, and every way in which they can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from lonc.daemon.config import load
from lonc.errors import ConfigError

EXAMPLE = """\
own_id = "msul2"
socket_dir = "/run/lonc"
max_connections = 10

[hosts.msul1]
address = "127.0.0.1"
port = 5663
dialect = "classic"
max_connections = 4        # any broker setting can be given for one host

[hosts."msul3.d"]
address = "::1"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "lonc.toml"


def problems(file: Path, text: str | bytes, **options: object) -> list[str]:
    """The lines that a file with this text is refused with, without the file's own path."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return refused(str(file), **options)


def refused(path: str | None, **options: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, **options)  # type: ignore[arg-type]
    assert str(caught.value) == "\n".join(caught.value.problems)
    return [line.removeprefix(str(path)) for line in caught.value.problems]


def test_a_file_is_read(file: Path) -> None:
    file.write_text(EXAMPLE)
    configuration = load(str(file))
    assert configuration.own_id == "msul2"
    assert configuration.settings.socket_dir == "/run/lonc"
    first, second = configuration.hosts
    assert (first.id, first.address, first.port) == ("msul1", "127.0.0.1", 5663)
    assert (first.settings.dialect, first.settings.max_connections) == ("classic", 4)
    assert (second.id, second.address, second.port) == ("msul3.d", "::1", 5663)
    assert (second.settings.dialect, second.settings.max_connections) == ("versioned", 10)
    assert configuration.socket_paths(configuration.hosts[0]) == ["/run/lonc/msul1"]


def test_the_same_text_gives_an_equal_configuration(file: Path) -> None:
    file.write_text(EXAMPLE)
    assert load(str(file)) == load(str(file))
    first = load(str(file))
    file.write_text(EXAMPLE.replace("= 4", "= 3"))
    second = load(str(file))
    assert first.settings == second.settings
    assert first.hosts[0] != second.hosts[0]
    assert first.hosts[1] == second.hosts[1]


def test_options_alone() -> None:
    configuration = load(
        own_id="msul2",
        socket_dir="/run/lonc",
        hosts=["a=127.0.0.1:99", "b=name.example", "c=[::1]:7", "d=::1", "e=[::1]"],
        sets=["max_queue=7", "max_reply=1 MiB", "dialect=line", "hosts.c.dialect=classic"],
    )
    assert [(host.address, host.port) for host in configuration.hosts] == [
        ("127.0.0.1", 99),
        ("name.example", 5663),
        ("::1", 7),
        ("::1", 5663),
        ("::1", 5663),
    ]
    assert {host.settings.max_queue for host in configuration.hosts} == {7}
    assert {host.settings.max_reply for host in configuration.hosts} == {1024 * 1024}
    assert [host.settings.dialect for host in configuration.hosts] == [
        "line",
        "line",
        "classic",
        "line",
        "line",
    ]


def test_options_win_over_the_file(file: Path) -> None:
    file.write_text(EXAMPLE)
    configuration = load(
        str(file),
        own_id="other",
        socket_dir="/tmp",
        hosts=["msul1=127.0.0.2", "new=::1"],
        sets=["max_connections=2", "hosts.msul3.d.max_connections=3"],
    )
    assert (configuration.own_id, configuration.settings.socket_dir) == ("other", "/tmp")
    assert [host.id for host in configuration.hosts] == ["msul1", "msul3.d", "new"]
    # What is said of one host is nearer than what is said of all.
    assert [host.settings.max_connections for host in configuration.hosts] == [4, 3, 2]
    assert configuration.hosts[0].address == "127.0.0.2"


def test_a_relative_socket_dir_of_the_command_line_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configuration = load(own_id="a", socket_dir="sockets", hosts=["b=::1"])
    assert configuration.settings.socket_dir == str(tmp_path / "sockets")


@pytest.mark.parametrize(
    ("text", "value"),
    [("send", "send"), ('"drop"', "drop"), ("'send'", "send")],
)
def test_quotes_may_be_left_out_on_the_command_line(text: str, value: str) -> None:
    configuration = load(own_id="a", hosts=["b=::1"], sets=[f"abandoned={text}"])
    assert configuration.hosts[0].settings.abandoned == value


def test_every_problem_is_told_in_one_go_with_its_line(file: Path) -> None:
    text = """\
own_id = ".bad"
max_conections = 3
socket_mode = 0o660
port = 5
[hosts.msul1]
port = 70000
dialect = "clasic"
socket_dir = "/x"
[hosts."a b"]
address = "1"
retry_longest = 0.01
[host.x]
a = 1
"""
    assert problems(file, text) == [
        ':1: own_id = ".bad": must be a host id: letters, digits and . _ - only, and no dot first',
        ":2: max_conections: there is no such setting; did you mean max_connections?",
        ':3: socket_mode = 432: must be permission bits as octal digits in quotes, as "0660"',
        ":4: port: belongs to one host and stands in its table [hosts.ID]",
        ":12: host: there is no such setting; did you mean hosts?",
        ":6: hosts.msul1.port = 70000: must be a whole number from 1 to 65535",
        ':7: hosts.msul1.dialect = "clasic": must be one of "versioned", "classic", "line"',
        ":8: hosts.msul1.socket_dir: is for all hosts and stands before the first table",
        ':9: hosts."a b": must be a host id: letters, digits and . _ - only, and no dot first',
        ":9: hosts.a b: retry_first = 0.1 is longer than retry_longest = 0.01",
    ]


def test_what_must_be_given(file: Path) -> None:
    assert problems(file, "") == [
        ": own_id is missing: the id of this host in the cluster",
        ": no host is given; each is a table [hosts.ID]",
    ]
    assert problems(file, 'own_id = "a"\n\n[hosts.b]\nport = 1\n') == [
        ":3: hosts.b: address is missing: a host name or an IP address"
    ]


def test_a_bad_value_for_all_hosts_is_told_once(file: Path) -> None:
    text = 'own_id = "a"\nmax_queue = 0\nhosts.b.address = "1"\nhosts.c.address = "2"\n'
    assert problems(file, text) == [
        ":2: max_queue = 0: must be a whole number from 1 to 2147483647"
    ]
    text = text.replace("max_queue = 0", "retry_first = 90")
    assert problems(file, text) == [": retry_first = 90 is longer than retry_longest = 60"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("hosts = 3", ":2: hosts: must be tables, [hosts.ID] for each host"),
        ("hosts.b = 3", ":2: hosts.b: must be a table [hosts.b]"),
        ("[[hosts]]", ":2: hosts: must be tables, [hosts.ID] for each host"),
        (
            "hosts = { b = { prot = 3 } }",
            ":2: hosts.b.prot: there is no such setting; did you mean port?",
        ),
        ("x = 1979-05-27", ":2: x: there is no such setting"),
    ],
)
def test_odd_shapes(file: Path, text: str, problem: str) -> None:
    assert problem in problems(file, f'own_id = "a"\n{text}\n')


def test_names_in_quotes_and_with_dots_have_lines_too(file: Path) -> None:
    text = 'own_id = "a"\n\n[ hosts . "b.c" ]\naddress = "1"\n"max_queue" = 0\nx.y = 1\n'
    assert problems(file, text) == [
        ":5: hosts.b.c.max_queue = 0: must be a whole number from 1 to 2147483647",
        ":6: hosts.b.c.x: there is no such setting",
    ]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("own_id = \n", ":1: not TOML: "),
        ('own_id = "a"\n\n[hosts\n', ":3: not TOML: "),
        ('own_id = "a"\nown_id = "b"\n', ":2: not TOML: "),
        ('own_id = """a\n\n', ":2: not TOML: "),
        ("a = " + "[" * 5000, ": not TOML: nested too deeply"),
        ("a = " + "1" * 5000, ": not TOML: "),
        (b'own_id = "a"\n# \xff\n', ":2: not UTF-8 text"),
    ],
)
def test_a_syntax_error_stands_alone_with_its_line(
    file: Path, text: str | bytes, start: str
) -> None:
    [problem] = problems(file, text)
    assert problem.startswith(start)
    assert "(at line" not in problem
    assert "\n" not in problem


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert refused(str(tmp_path / "none")) == [": cannot be read: No such file or directory"]
    assert refused(str(tmp_path)) == [": cannot be read: Is a directory"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"hosts": ["b"]}, "--host b: must be ID=ADDRESS or ID=ADDRESS:PORT"),
        (
            {"hosts": ["b=c:d"]},
            '--host: hosts.b.port = "d": must be a whole number from 1 to 65535',
        ),
        (
            {"hosts": ["b=[::1]x"]},
            '--host: hosts.b.port = "x": must be a whole number from 1 to 65535',
        ),
        ({"hosts": ["b="]}, '--host: hosts.b.address = "": must be a host name or an IP address'),
        (
            {"hosts": ["../b=::1"]},
            '--host: hosts."../b": must be a host id: letters, digits and . _ - only',
        ),
        ({"sets": ["max_queue"]}, "--set max_queue: must be NAME=VALUE"),
        (
            {"sets": ["max_quue=1"]},
            "--set: max_quue: there is no such setting; did you mean max_queue?",
        ),
        ({"sets": ["max_queue=1\nmax_reply=1"]}, '--set: max_queue = "1\\U0000000amax_reply=1": '),
        ({"sets": ["hosts.z.port=1"]}, '--set hosts.z.port=1: there is no host "z"'),
        ({"sets": ["hosts=1"]}, "--set: hosts: there is no such setting"),
        ({"socket_dir": ""}, '--socket-dir: socket_dir = "": must be an absolute path'),
        ({"own_id": ""}, '--own-id: own_id = "": must be a host id'),
    ],
)
def test_bad_options(options: dict[str, object], problem: str) -> None:
    found = refused(None, **{"own_id": "a", "hosts": ["h=::1"]} | options)
    assert any(line.startswith(problem) for line in found), found


def test_a_socket_path_that_is_too_long_names_its_parts() -> None:
    hosts = ["b=::1", "longer=::1"]
    [problem] = refused(None, own_id="a", socket_dir="/" + 104 * "d", hosts=hosts)
    assert problem == (
        "--host: hosts.longer: its socket's path would have 112 bytes, and the system allows 107:"
        " 105 of socket_dir, 6 of the host id"
    )
