"""The command itself: finding what is meant, and telling what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import lonc
from lonc.cli.main import COMMANDS, main
from tests.cli.conftest import COMMAND, DEADLINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run


def test_version_says_which_part_is_in_use(run: Run) -> None:
    done = run("--version", env={"LONC_FASTPATH": "no"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"lonc {lonc.__version__}, pure Python: LONC_FASTPATH=no\n"
    done = run("--version", env={"LONC_FASTPATH": "auto"})
    part = done.stdout.removeprefix(f"lonc {lonc.__version__}, ")
    assert part == "compiled\n" or part.startswith("pure Python: ")


def test_help_names_every_command(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0
    assert all(f"\n    {command} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: lonc {command} ")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "COMMAND"),
        (["srve"], "'srve'"),
        (["check", "--confg", "x"], "--confg"),
        (["check", "more"], "more"),
        (["check", "--config"], "--config"),
        (["serve", "--conf", "x"], "--conf"),
        (["demo", "--seconds", "x"], "'x'"),
        (["demo", "--seconds", "nan"], "--seconds nan"),
        (["demo", "--clients", "0"], "--clients 0"),
        (["send"], "HOST"),
    ],
)
def test_usage_errors_name_the_word(
    usage_error: Callable[..., str], arguments: list[str], word: str
) -> None:
    assert word in usage_error(*arguments)


def test_a_wrong_choice_of_the_part_is_one_line(usage_error: Callable[..., str]) -> None:
    line = usage_error("check", env={"LONC_FASTPATH": "maybe"})
    assert line == "lonc: LONC_FASTPATH=maybe: choose one of auto, require, no"


def test_only_the_command_that_is_named_is_imported(environment: dict[str, str]) -> None:
    code = (
        "import sys\nfrom lonc.cli.main import main\n"
        "status = main(['check', '--own-id', 'a', '--host', 'b=::1'])\n"
        "print(sorted(m for m in sys.modules if m.startswith('lonc.cli.')), file=sys.stderr)\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0
    for command in COMMANDS:
        assert (f"lonc.cli.{command}'" in done.stderr) == (command == "check")


def test_nobody_reads_the_output(environment: dict[str, str]) -> None:
    # More output than a pipe holds, so that some of it is written after the reader has gone.
    arguments = ["check", "--all", "--own-id", "a"]
    for number in range(200):
        arguments += ["--host", f"host{number}=::1"]
    process = subprocess.Popen(
        [*COMMAND, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(DEADLINE) == 128 + 13


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("address", "status"), [("::1", 0), ("", 2)])
def test_standard_streams_may_be_closed(
    environment: dict[str, str], closed: str, address: str, status: int
) -> None:
    words = [*COMMAND, "check", "--own-id", "a", "--host", f"b={address}"]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *words],
        env=environment,
        capture_output=True,
        timeout=DEADLINE,
    )
    assert done.returncode == status
    assert bool(done.stdout) == (status == 0 and " >&-" not in f" {closed}")
    assert bool(done.stderr) == (status == 2 and "2>&-" not in closed)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    ("words", "streams", "status", "complaint"),
    [
        (["check", "--own-id", "a", "--host", "b=::1"], ">/dev/full", 1, True),
        (["--help"], ">/dev/full", 1, True),
        (["check", "--own-id", "a", "--host", "b=::1"], ">/dev/full 2>/dev/full", 1, False),
        (["check", "--config", "/nonexist"], "2>/dev/full", 2, False),
        (["check", "--confg", "x"], "2>/dev/full", 2, False),
    ],
)
def test_standard_streams_may_be_full(
    environment: dict[str, str], words: list[str], streams: str, status: int, complaint: bool
) -> None:
    # Written without a buffer, the help is lost before lonc can know of it.
    environment.pop("PYTHONUNBUFFERED", None)
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {streams}', "sh", *COMMAND, *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == status
    assert done.stderr == ("lonc: No space left on device\n" if complaint else "")


def test_main_can_be_called(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["check", "--config", str(tmp_path / "none")]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"lonc: {tmp_path}/none: cannot be read: No such file or directory\n"
