"""`lonc check`: what is wrong with a configuration, or what it means."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run

FILE = """\
own_id = "msul2"
socket_dir = "/run/lonc"
max_connections = 10

[hosts.msul1]
address = "127.0.0.1"
dialect = "classic"
max_connections = 4
max_reply = "2 MiB"

[hosts.six]
address = "::1"
port = 99
"""


def test_what_was_understood(run: Run, directory: Path) -> None:
    (directory / "lonc.toml").write_text(FILE)
    done = run("check", "--config", "lonc.toml")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout
        == """\
host   peer            dialect    socket
-----  --------------  ---------  ---------------
msul1  127.0.0.1:5663  classic    /run/lonc/msul1
six    [::1]:99        versioned  /run/lonc/six

setting  value
-------  -------
own_id   "msul2"

setting of msul1  value
----------------  ---------
dialect           "classic"
max_connections   4
max_reply         "2 MiB"
"""
    )


def test_all_settings_on_request(run: Run, directory: Path) -> None:
    (directory / "lonc.toml").write_text(FILE)
    lines = run("check", "--all", "--config", "lonc.toml").stdout.splitlines()
    words = [line.split() for line in lines]
    assert ["socket_mode", '"0660"'] in words
    assert words.count(["reply_timeout", "130"]) == 2
    assert ["max_connections", "4"] in words
    assert ["max_connections", "10"] in words


def test_every_problem_is_a_line(run: Run, directory: Path) -> None:
    (directory / "lonc.toml").write_text(FILE.replace("port", "prot").replace("4", "0"))
    done = run("check", "--config", "lonc.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "lonc: lonc.toml:8: hosts.msul1.max_connections = 0:"
        " must be a whole number from 1 to 2147483647\n"
        "lonc: lonc.toml:13: hosts.six.prot: there is no such setting; did you mean port?\n"
    )


def test_the_configuration_of_options_is_checked_too(
    run: Run, usage_error: Callable[..., str]
) -> None:
    done = run("check", "--own-id", "a", "--host", "b=::1", "--set", "dialect=line")
    assert ["b", "[::1]:5663", "line", "/run/lonc/b"] in map(str.split, done.stdout.splitlines())
    line = usage_error("check", "--own-id", "a", "--host", "b=::1", "--set", "dialect=linear")
    assert 'dialect = "linear": must be one of "versioned", "classic", "line"' in line


def test_no_configuration_at_all(usage_error: Callable[..., str]) -> None:
    assert "--config" in usage_error("check")
