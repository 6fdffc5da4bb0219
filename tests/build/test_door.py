"""LONC_FASTPATH, and what a person is told about the part that serves."""

from __future__ import annotations

import pytest

SHOW = """
import sys
from lonc import fastpath
print(fastpath.parts.__name__)
print(fastpath.describe())
print("lonc._purepath" in sys.modules)
"""


@pytest.fixture
def built(tree, compiler):
    """A tree with an extension in place, one that does not import the pure part."""
    tree.pyx.write_text("# cython: language_level=3\nREAD = 1\n")
    done = tree.build_in_place(LONC_BUILD_EXT="require")
    assert done.returncode == 0, done.stdout
    return tree


def served(tree, wish: str) -> tuple[str, str, str]:
    done = tree.python("-c", SHOW, LONC_FASTPATH=wish)
    assert done.returncode == 0, done.stdout
    module, description, pure_loaded = done.stdout.splitlines()
    return module, description, pure_loaded


def refusal(tree, wish: str) -> str:
    done = tree.python("-c", SHOW, LONC_FASTPATH=wish)
    assert done.returncode == 1
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("wish", ["", "auto", "require"])
def test_the_compiled_part_serves_alone_where_it_is_there(built, wish):
    assert served(built, wish) == ("lonc._fastpath", "compiled", "False")


def test_no_takes_the_pure_part(built):
    assert served(built, "no") == ("lonc._purepath", "pure Python: LONC_FASTPATH=no", "True")


def test_auto_without_extension_says_how_to_learn_more(tree):
    module, description, _ = served(tree, "auto")
    assert module == "lonc._purepath"
    assert description.startswith("pure Python: no extension was built for ")
    assert "LONC_BUILD_EXT=require" in description


def test_require_without_extension_fails(tree):
    assert refusal(tree, "require").startswith(
        "ImportError: LONC_FASTPATH=require: no extension was built"
    )


def test_an_extension_that_does_not_load_is_named(built):
    (extension,) = built.root.glob("lonc/_fastpath.*.so")
    extension.write_bytes(b"not an extension")
    module, description, _ = served(built, "auto")
    assert module == "lonc._purepath"
    assert description.startswith("pure Python: the extension cannot be loaded: ")
    assert extension.name in description
    assert "cannot be loaded" in refusal(built, "require")


def test_an_unknown_switch_is_refused(tree):
    assert refusal(tree, "yes") == (
        "ImportError: LONC_FASTPATH=yes: choose one of auto, require, no"
    )


def test_version_tells_which_part_serves(tree, compiler):
    def version(**environment: str) -> str:
        done = tree.python("-m", "lonc", "--version", **environment)
        assert done.returncode == 0, done.stdout
        return done.stdout

    assert "pure Python: no extension was built" in version()
    assert tree.build_in_place(LONC_BUILD_EXT="require").returncode == 0
    assert "compiled" in version()
    assert "pure Python: LONC_FASTPATH=no" in version(LONC_FASTPATH="no")


def test_version_with_an_unknown_switch_is_one_line(tree):
    done = tree.python("-m", "lonc", "--version", LONC_FASTPATH="yes")
    assert done.returncode == 2
    (line,) = done.stdout.splitlines()
    assert "LONC_FASTPATH=yes: choose one of auto, require, no" in line
