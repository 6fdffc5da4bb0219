"""The prover itself: what it takes for a bug that the tests noticed, and what it does not."""

from __future__ import annotations

import shutil

import pytest

from . import prove as prover
from .prove import HERE, SOURCE, Patch, PatchError, copy_source, prove, read_patches

TWIN = "def double(value):\n    return 2 * value\n"

#: Stands in for the build of the extension: what is compiled is not the point here.
SETUP = """\
import pathlib
text = pathlib.Path("lonc/_fastpath.pyx").read_text()
compile(text, "lonc/_fastpath.pyx", "exec")
pathlib.Path("lonc/_fastpath.py").write_text(text)
"""

CONFTEST = """\
import importlib
import pytest

@pytest.fixture(params=["compiled", "pure"])
def part(request):
    return request.param

@pytest.fixture
def double(part):
    name = {"compiled": "_fastpath", "pure": "_purepath"}[part]
    return importlib.import_module("lonc." + name).double
"""

TESTS = """\
import time
from lonc.policy import LIMIT

def test_double(double):
    assert double(3) == 6

def test_nothing(double):
    double(3)

def test_limit():
    assert LIMIT == 10

def test_pure_alone():
    from lonc._purepath import double
    assert double(3) == 6
"""


@pytest.fixture
def project(tmp_path):
    """A source tree with a small module in two parts, and a third one."""
    files = {
        "setup.py": SETUP,
        "lonc/__init__.py": "",
        "lonc/_purepath.py": TWIN,
        "lonc/_fastpath.pyx": TWIN,
        "lonc/policy.py": "LIMIT = 10\n",
        "tests/conftest.py": CONFTEST,
        "tests/test_it.py": TESTS,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def hunk(path: str, old: str, new: str) -> str:
    return f"--- a/{path}\n+++ b/{path}\n@@ -1,2 +1,2 @@\n{old}\n{new}\n"


def twins(new: str) -> str:
    return "".join(
        hunk(f"lonc/{name}", " def double(value):\n-    return 2 * value", new)
        for name in ("_purepath.py", "_fastpath.pyx")
    )


def patch(diff: str, tests: str = "tests/test_it.py::test_double", parts: str = "both") -> Patch:
    return Patch("planted", f"law: twice is twice\ntests: {tests}\nparts: {parts}\n\n{diff}")


def test_a_bug_in_both_parts_that_is_noticed(project, capsys):
    assert prove(project, [patch(twins("+    return 3 * value"))], 2)
    printed = capsys.readouterr().out
    assert "planted: twice is twice" in printed
    assert printed.count("tests/test_it.py::test_double") == 2
    assert "compiled" in printed and "pure" in printed


@pytest.mark.parametrize(
    ("part", "file"), [("compiled", "_fastpath.pyx"), ("pure", "_purepath.py")]
)
def test_a_bug_in_one_part(project, capsys, part, file):
    diff = hunk(f"lonc/{file}", "-    return 2 * value", "+    return 3 * value")
    assert prove(project, [patch(diff, parts=part)], 1)
    other = {"compiled": "pure", "pure": "compiled"}[part]
    assert not prove(project, [patch(diff, parts=other)], 1)
    assert "SURVIVED" in capsys.readouterr().out


def test_a_bug_in_plain_python(project):
    diff = hunk("lonc/policy.py", "-LIMIT = 10", "+LIMIT = 11")
    assert prove(project, [patch(diff, "tests/test_it.py::test_limit", "python")], 1)


def test_a_bug_that_survives(project, capsys):
    survivor = patch(twins("+    return 3 * value"), "tests/test_it.py::test_nothing")
    noticed = patch(twins("+    return 4 * value"))
    noticed.name = "other"
    assert not prove(project, [survivor, noticed], 2)
    assert capsys.readouterr().out.count("SURVIVED") == 2


def test_a_bug_that_hangs_is_noticed(project, monkeypatch):
    monkeypatch.setattr(prover, "TIME_LIMIT", 1)
    endless = prover.run(project, "-c", "print('started', flush=True)\nwhile True: pass")
    assert endless.status is None
    assert prover.verdict(endless) == (True, "no end after 1 s")


def test_a_bug_that_crashes_is_noticed(project, capsys):
    assert prove(project, [patch(twins("+    import os; os.abort()"))], 2)
    assert capsys.readouterr().out.count("crashed: SIGABRT") == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (twins("+    return 2 *"), "the extension does not build"),
        (hunk("lonc/policy.py", "-LIMIT = 10", "+LIMIT ="), "pytest ended with status"),
        (hunk("lonc/policy.py", "-LIMIT = 12", "+LIMIT = 11"), "found 0 times"),
        (hunk("lonc/none.py", "-LIMIT = 10", "+LIMIT = 11"), "no such file"),
    ],
)
def test_a_patch_that_shows_nothing_is_not_success(project, capsys, change, message):
    assert not prove(project, [patch(change)], 1)
    printed = capsys.readouterr().out
    assert "CANNOT TELL" in printed
    assert message in printed


@pytest.mark.parametrize(
    "tests",
    [
        "tests/test_it.py::test_none",
        "tests/test_it.py -k none",
        "tests/test_it.py::test_pure_alone",  # which is not over a part
    ],
)
def test_a_selection_without_tests_is_not_success(project, capsys, tests):
    assert not prove(project, [patch(twins("+    return 3 * value"), tests)], 1)
    assert "Without any patch these tests do not pass" in capsys.readouterr().out


def test_tests_that_fail_anyway_show_nothing(project, capsys):
    wrong = "def test_wrong(double):\n    assert double(3) == 7\n"
    (project / "tests/test_it.py").write_text(TESTS + wrong)
    assert not prove(project, [patch(twins("+    return 3 * value"), "tests/test_it.py")], 1)
    assert "Without any patch these tests do not pass" in capsys.readouterr().out


def test_the_source_is_left_alone(project):
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
    assert prove(project, [patch(twins("+    return 3 * value"))], 2)
    assert {path: path.stat().st_mtime_ns for path in project.rglob("*")} == before


def test_a_hunk_must_have_one_place(project):
    (project / "lonc/policy.py").write_text("LIMIT = 10\nother = 1\nLIMIT = 10\n")
    ambiguous = patch(hunk("lonc/policy.py", "-LIMIT = 10", "+LIMIT = 11"))
    with pytest.raises(PatchError, match="found 2 times"):
        ambiguous.apply(project)
    clear = patch(hunk("lonc/policy.py", " other = 1\n-LIMIT = 10", "+LIMIT = 11"))
    clear.apply(project)
    assert (project / "lonc/policy.py").read_text() == "LIMIT = 10\nother = 1\nLIMIT = 11\n"


def test_blank_context_lines_may_have_lost_their_space(project):
    (project / "lonc/policy.py").write_text("A = 1\n\n\nLIMIT = 10\n")
    patch(hunk("lonc/policy.py", " A = 1\n\n \n-LIMIT = 10", "+LIMIT = 11")).apply(project)
    assert (project / "lonc/policy.py").read_text() == "A = 1\n\n\nLIMIT = 11\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("law: x\ntests: y\n" + twins("+ z"), "needs the lines"),
        ("law: x\ntests: y\nparts: all\n" + twins("+ z"), "needs the lines"),
        ("law: x\ntests: y\nparts: both\n", "changes nothing"),
        ("law: x\ntests: y\nparts: pure\n" + hunk("a.py", " b", " c"), "without a change"),
        ("law: x\ntests: y\nparts: pure\n" + hunk("a.py", "?b", "+c"), "not a line of a diff"),
        (
            "law: x\ntests: y\nparts: both\n" + hunk("lonc/_purepath.py", "-a", "+b"),
            "one of the twins only",
        ),
    ],
)
def test_a_patch_that_cannot_be_read_says_why(tmp_path, text, message):
    (tmp_path / "wrong.patch").write_text(text)
    patches, (problem,) = read_patches(tmp_path)
    assert patches == []
    assert problem.startswith("wrong.patch: ")
    assert message in problem


def test_a_patch_that_is_named_must_exist(tmp_path):
    assert read_patches(tmp_path, ["none"])[1][0].startswith("none.patch: ")


def test_every_patch_of_the_project_still_applies(tmp_path):
    if not (SOURCE / "setup.py").exists():
        pytest.skip("there is no source tree to apply them to")
    patches, problems = read_patches(HERE / "patches")
    for each in patches:
        root = tmp_path / each.name
        copy_source(SOURCE / "lonc", root / "lonc")
        try:
            each.apply(root)
        except PatchError as error:
            problems.append(f"{each.name}.patch: {error}")
        shutil.rmtree(root)
    assert problems == []
