"""Shows that the tests notice what they are there to notice. Run by `make prove`.

Each file in patches/ breaks one law, or plants one bug, in a copy of the source. The tests that it
names must pass without it and fail with it; otherwise this program ends with status 1. A patch is a
unified diff below three lines that say what it breaks, which tests see it, and where:

    law: a request of which a part was sent is never sent again
    tests: tests/broker/test_retry.py::test_partial_send tests/broker/test_cuts.py
    parts: both
    --- lonc/_purepath.py
    +++ lonc/_purepath.py
    @@
     lines that stay, enough of them to be found in one place only
    -a line to take out
    +a line to put in

`tests` are arguments of pytest. `parts` says over which part they must fail:

    both       once over the compiled part and once over the pure one; what breaks one of the twins
               must break the other too
    compiled   over the compiled part only: a bug that the pure one cannot have
    pure       the reverse
    python     once, with no part chosen: for code that does not use either

Of the tests named, a part is shown only by those that have the fixture `part`.

Line numbers are not looked at, so a patch lives as long as the lines that it names.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent.parent

PYX = "lonc/_fastpath.pyx"
TWINS = {PYX, "lonc/_purepath.py"}

#: The values of `parts`, and what the tests then run over; "" stands for no part.
RUNS = {"both": ("compiled", "pure"), "compiled": ("compiled",), "pure": ("pure",), "python": ("",)}

#: Seconds for one run of tests. A run that takes longer hangs, which no test did without the patch.
TIME_LIMIT = 300

#: Seconds that a test of those waits for what a planted bug may have made impossible.
DEADLINE = 3

NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv*", "*.egg-info", "__pycache__", ".*_cache", ".coverage*", "*.so", "_fastpath.c"
)


class PatchError(Exception):
    """A patch that cannot be read or applied."""


def copy_source(source: Path, target: Path) -> Path:
    """Copy a source tree without what was made in it."""

    def ignore(directory: str, names: list[str]) -> set[str]:
        made = {"build", "dist"} & set(names) if Path(directory) == source else set()
        return NOT_SOURCE(directory, names) | made

    shutil.copytree(source, target, symlinks=True, ignore=ignore)
    return target


class Patch:
    """One patch: what it breaks, which tests must notice, and for each file (old, new) texts."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        head, mark, body = text.partition("--- ")
        fields = dict(re.findall(r"^(\w+): +(.+)$", head, re.MULTILINE))
        if set(fields) != {"law", "tests", "parts"} or fields["parts"] not in RUNS:
            raise PatchError(f"needs the lines law:, tests: and parts: ({', '.join(RUNS)})")
        self.law = fields["law"]
        self.tests = tuple(shlex.split(fields["tests"]))
        self.parts = RUNS[fields["parts"]]
        self.hunks = list(_hunks((mark + body).rstrip("\n")))
        self.rebuilds = any(path == PYX for path, _, _ in self.hunks)
        if not self.hunks:
            raise PatchError("changes nothing")
        if fields["parts"] == "both" and len(TWINS & {path for path, _, _ in self.hunks}) == 1:
            raise PatchError("breaks one of the twins only, so it cannot be for both parts")

    def apply(self, root: Path) -> None:
        """Change the files below `root`; raises PatchError where a hunk has not one place."""
        for path, old, new in self.hunks:
            try:
                text = (root / path).read_text()
            except FileNotFoundError:
                raise PatchError(f"{path}: no such file") from None
            if text.count(old) != 1:
                first = old.split("\n")[0]
                raise PatchError(f"{path}: found {text.count(old)} times: the hunk at {first!r}")
            (root / path).write_text(text.replace(old, new))


def _hunks(diff: str) -> Iterable[tuple[str, str, str]]:
    for part in re.split(r"^--- .*\n", diff, flags=re.MULTILINE)[1:]:
        header, *hunks = re.split(r"^@@.*\n", part, flags=re.MULTILINE)
        path = header.removeprefix("+++ ").split("\t")[0].strip().removeprefix("b/")
        for hunk in hunks:
            lines = [line or " " for line in hunk.removesuffix("\n").split("\n")]
            if wrong := [line for line in lines if line[0] not in " -+"]:
                raise PatchError(f"{path}: not a line of a diff: {wrong[0]!r}")
            old = "".join(line[1:] + "\n" for line in lines if line[0] != "+")
            new = "".join(line[1:] + "\n" for line in lines if line[0] != "-")
            if not old or old == new:
                raise PatchError(f"{path}: a hunk without lines to find, or without a change")
            yield path, old, new


def read_patches(directory: Path, names: Iterable[str] = ()) -> tuple[list[Patch], list[str]]:
    """Return the patches (all, or those named) and one line for each that cannot be read."""
    patches, problems = [], []
    files = [directory / f"{name}.patch" for name in names] or sorted(directory.glob("*.patch"))
    for file in files:
        try:
            patches.append(Patch(file.stem, file.read_text()))
        except (PatchError, OSError) as error:
            problems.append(f"{file.name}: {error}")
    return patches, problems


class Run(NamedTuple):
    """How a command ended: its exit status (None: it did not), what it printed, and its seconds."""

    status: int | None
    output: str
    seconds: float


def run(root: Path, *arguments: str) -> Run:
    """Run Python in a copy of the source until it ends or takes too long."""
    environment = {name: value for name, value in os.environ.items() if name[:5] != "LONC_"}
    # The copy, not an installed lonc, and the plugin; no .pyc of a file changed a moment ago.
    environment |= {"PYTHONPATH": f"{root}:{HERE}", "PYTHONDONTWRITEBYTECODE": "1"}
    # Planted bugs are built to be run once.
    environment |= {"CFLAGS": "-O0 -g0", "LONC_BUILD_EXT": "require"}
    environment["LONC_TEST_DEADLINE"] = str(DEADLINE)
    started = time.monotonic()
    with subprocess.Popen(
        (sys.executable, *arguments),
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=TIME_LIMIT)
            status = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            status = None
    return Run(status, output, time.monotonic() - started)


def build(root: Path) -> Run:
    return run(root, "setup.py", "-q", "build_ext", "--inplace")


def test(root: Path, tests: tuple[str, ...], part: str) -> Run:
    over = ["-p", "over", "--over", part] if part else []
    return run(root, "-m", "pytest", "-x", "-q", "--no-header", *over, *tests)


def verdict(tested: Run) -> tuple[bool, str]:
    """Return whether the tests noticed, and what a person wants to know about it."""
    if tested.status is None:
        return True, f"no end after {TIME_LIMIT} s"
    if tested.status < 0:
        return True, f"crashed: {signal.Signals(-tested.status).name}"
    if tested.status == 1:
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", tested.output, re.MULTILINE)
        return True, found[1] if found else "failed"
    if tested.status == 0:
        return False, "SURVIVED: the tests pass with it"
    return False, f"CANNOT TELL: pytest ended with status {tested.status}\n{tested.output}"


class Prover:
    """Runs patches on copies of a source, which are made in `directory`."""

    def __init__(self, source: Path, directory: Path) -> None:
        self.directory = directory
        self.base = copy_source(source, directory / "base")

    def check_unpatched(self, selection: tuple[tuple[str, ...], str]) -> str:
        """Return "" if these tests pass over this part as they are, else what they print."""
        tests, part = selection
        tested = test(self.base, tests, part)
        if tested.status == 0:
            return ""
        return f"{shlex.join(tests)} ({part or 'python'})\n{tested.output}"

    def check(self, patch: Patch) -> list[tuple[str, bool, str, float]]:
        """Return for each part: its name, whether the tests noticed, by what, and seconds."""
        root = shutil.copytree(self.base, self.directory / patch.name, symlinks=True)
        try:
            patch.apply(root)
            if patch.rebuilds:
                built = build(root)
                if built.status != 0:
                    raise PatchError(f"the extension does not build\n{built.output}")
        except PatchError as error:
            return [("-", False, f"CANNOT TELL: {error}", 0.0)]
        results = []
        for part in patch.parts:
            tested = test(root, patch.tests, part)
            results.append((part or "python", *verdict(tested), tested.seconds))
        shutil.rmtree(root)
        return results


def prove(source: Path, patches: list[Patch], jobs: int) -> bool:
    """Print a table of what the tests noticed; return whether that is everything."""
    with (
        tempfile.TemporaryDirectory(prefix="prove-") as directory,
        ThreadPoolExecutor(jobs) as pool,
    ):
        prover = Prover(source, Path(directory))
        built = build(prover.base)
        if built.status != 0:
            print(f"The extension does not build:\n{built.output}")
            return False
        selections = dict.fromkeys((patch.tests, part) for patch in patches for part in patch.parts)
        if failed := [text for text in pool.map(prover.check_unpatched, selections) if text]:
            print("Without any patch these tests do not pass:", *failed, sep="\n")
            return False
        complete = True
        for patch, results in zip(patches, pool.map(prover.check, patches), strict=True):
            print(f"{patch.name}: {patch.law}")
            for part, noticed, by, seconds in results:
                print(f"    {part:9}{seconds:6.1f} s  {by}", flush=True)
                complete &= noticed
        return complete


def main() -> int:
    parser = argparse.ArgumentParser(description="Show that the tests notice each planted bug.")
    parser.add_argument("names", nargs="*", help="patches to try, without .patch; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default: 2)")
    arguments = parser.parse_args()
    patches, problems = read_patches(HERE / "patches", arguments.names)
    if problems:
        print(*problems, sep="\n")
        return 1
    complete = prove(SOURCE, patches, arguments.jobs)
    print(f"{len(patches)} bugs planted, {'all' if complete else 'NOT all'} noticed")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
