"""Real processes of the command `lonc`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import lonc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Run = Callable[..., subprocess.CompletedProcess[str]]
    Start = Callable[..., subprocess.Popen[str]]

# Far beyond what any of these takes; a test that hangs ends with this.
DEADLINE = 60.0

COMMAND = (sys.executable, "-m", "lonc")


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where the commands run; its path is short, because a socket's may have 107 bytes only."""
    with tempfile.TemporaryDirectory(prefix="lonc-") as directory:
        yield Path(directory)


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of a command: no HOME, and this lonc wherever it is started."""
    kept = {name: value for name, value in os.environ.items() if name != "HOME"}
    return kept | {"PYTHONPATH": str(Path(lonc.__file__).parents[1]), "COLUMNS": "100"}


@pytest.fixture(params=["compiled", "pure"])
def part(request: pytest.FixtureRequest, environment: dict[str, str]) -> str:
    """Have the commands of a test run over this part, for tests over both."""
    name: str = request.param
    if name == "compiled":
        pytest.importorskip("lonc._fastpath", reason="the compiled part is not built")
    environment["LONC_FASTPATH"] = "require" if name == "compiled" else "no"
    return name


@pytest.fixture
def run(environment: dict[str, str], directory: Path) -> Run:
    """Run a command to its end: run(*arguments, input="", env={}) -> what came of it."""

    def run(
        *arguments: str, input: str = "", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            input=input,
            env=environment | (env or {}),
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )

    return run


@pytest.fixture
def start(environment: dict[str, str], directory: Path) -> Iterator[Start]:
    """Start a command: start(*arguments, env={}) -> its process, killed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [*COMMAND, *arguments],
                env=environment | (env or {}),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def usage_error(run: Run) -> Callable[..., str]:
    """Run a command that must be refused: usage_error(*arguments) -> its one line of complaint."""

    def usage_error(*arguments: str, env: dict[str, str] | None = None) -> str:
        done = run(*arguments, env=env)
        assert (done.returncode, done.stdout) == (2, "")
        [line] = done.stderr.splitlines()
        assert line.startswith("lonc")
        return line

    return usage_error
