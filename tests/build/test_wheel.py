"""What a build makes of each switch and each failure."""

from __future__ import annotations

import sys
import sysconfig

import pytest

from .conftest import Wheel

PURE = "py3-none-any"

#: setup.py run as if by another kind of Python.
PRETEND = """
import runpy, sys, sysconfig
implementation, free_threaded = sys.argv.pop(1), sys.argv.pop(1)
known = sysconfig.get_config_var
sysconfig.get_config_var = lambda name: (
    int(free_threaded) if name == "Py_GIL_DISABLED" else known(name)
)
sys.implementation.name = implementation
sys.path.insert(0, "")
runpy.run_path("setup.py", run_name="__main__")
"""


@pytest.fixture(params=["no compiler", "no Cython", "broken .pyx"])
def failure(request, tree, without_cython):
    """Something that keeps the extension from being built: (environment, what a message says)."""
    if request.param == "no Cython":
        return {"PYTHONPATH": without_cython}, "Cython is not installed"
    request.getfixturevalue("compiler")
    if request.param == "no compiler":
        return {"CC": "/bin/false"}, "/bin/false"
    tree.pyx.write_text(tree.pyx.read_text() + "def broken(:\n")
    return {}, "_fastpath.pyx"


def test_a_wheel_with_the_extension_is_for_this_python(tree, compiler):
    wheel = tree.wheel()
    assert wheel.compiled() == ["lonc/_fastpath" + sysconfig.get_config_var("EXT_SUFFIX")]
    assert wheel.tag.startswith("cp{}{}-cp".format(*sys.version_info))
    assert not list(tree.root.glob("lonc/_fastpath.c"))


def test_auto_leaves_out_what_cannot_be_built(tree, failure):
    environment, _ = failure
    wheel = tree.wheel(**environment)
    assert wheel.tag == PURE
    assert "Root-Is-Purelib: true" in wheel.metadata["WHEEL"]
    assert wheel.compiled() == []


def test_auto_says_what_it_left_out_and_why(tree, failure):
    environment, reason = failure
    done = tree.build_in_place(**environment)
    assert done.returncode == 0
    (notice,) = [line for line in done.stdout.splitlines() if "no extension is built" in line]
    assert "pure Python" in notice
    assert reason in done.stdout


def test_require_fails_and_says_why(tree, failure):
    environment, reason = failure
    done, target = tree.try_wheel(LONC_BUILD_EXT="require", **environment)
    assert done.returncode != 0
    assert reason in done.stdout
    assert not list(target.glob("*.whl"))


def test_no_builds_nothing(tree):
    wheel = tree.wheel(LONC_BUILD_EXT="no")
    assert (wheel.tag, wheel.compiled()) == (PURE, [])


def test_an_unknown_switch_is_refused(tree):
    done, _ = tree.try_wheel(LONC_BUILD_EXT="yes")
    assert done.returncode != 0
    assert "LONC_BUILD_EXT=yes: choose one of auto, require, no" in done.stdout


@pytest.mark.parametrize(
    ("implementation", "free_threaded", "wish", "expected"),
    [
        ("cpython", "0", "auto", 1),
        ("cpython", "1", "auto", 0),
        ("cpython", "1", "require", 1),
        ("pypy", "0", "auto", 0),
        ("pypy", "0", "no", 0),
    ],
)
def test_auto_builds_only_where_it_helps(
    tree, compiler, implementation, free_threaded, wish, expected
):
    arguments = (implementation, free_threaded, "-q", "build", "--build-lib", "out")
    done = tree.python("-c", PRETEND, *arguments, LONC_BUILD_EXT=wish)
    assert done.returncode == 0, done.stdout
    assert (tree.root / "out/lonc/fastpath.py").exists()
    assert len(list(tree.root.glob("out/lonc/_fastpath.*.so"))) == expected


def test_c_that_lies_about_is_never_compiled(tree, without_cython, compiler):
    old = "#include <Python.h>\nPyMODINIT_FUNC PyInit__fastpath(void) { return NULL; }\n"
    (tree.root / "lonc/_fastpath.c").write_text(old)
    assert tree.wheel(PYTHONPATH=without_cython).tag == PURE
    assert tree.wheel(LONC_BUILD_EXT="require").compiled()


def test_an_earlier_extension_does_not_outlive_a_failed_build(tree, compiler):
    assert tree.wheel().compiled()
    assert tree.wheel(CC="/bin/false").compiled() == []

    assert tree.build_in_place().returncode == 0
    assert list(tree.root.glob("lonc/_fastpath.*.so"))
    assert tree.build_in_place(CC="/bin/false").returncode == 0
    assert not list(tree.root.glob("lonc/_fastpath.*.so"))


def test_one_extension_for_every_later_python(tree, compiler):
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("this Python has no stable ABI")
    import Cython

    if tuple(map(int, Cython.__version__.split(".")[:2])) < (3, 1):
        pytest.skip(f"Cython {Cython.__version__} cannot keep to the stable ABI")
    assert tree.wheel().compiled()
    wheel = tree.wheel(LONC_ABI3="1")
    assert wheel.tag.startswith("cp311-abi3-")
    assert wheel.compiled() == ["lonc/_fastpath.abi3.so"]
    assert tree.wheel(LONC_ABI3="1", CC="/bin/false").tag == PURE


def test_tracing_does_not_stay_in_the_next_build(tree, compiler):
    traced = tree.build_in_place(LONC_TRACE="1")
    assert traced.returncode == 0, traced.stdout
    assert "__Pyx_TraceLine(" in (tree.root / "lonc/_fastpath.c").read_text()
    assert tree.build_in_place().returncode == 0
    (plain,) = tree.root.glob("build/temp*/**/_fastpath.c")
    assert "__Pyx_TraceLine(" not in plain.read_text()


def test_the_same_source_gives_the_same_wheel(tree, compiler):
    settings = {"SOURCE_DATE_EPOCH": "1700000000", "CFLAGS": "-O0 -g0"}
    first = tree.wheel(**settings).path.read_bytes()
    moved = tree.root.rename(tree.root.with_name("elsewhere"))
    tree.root = moved
    assert tree.wheel(**settings).path.read_bytes() == first


def test_a_wheel_holds_every_module_and_no_source_of_the_extension(tree):
    wheel = tree.wheel(LONC_BUILD_EXT="no")
    modules = {str(path.relative_to(tree.root)) for path in tree.root.glob("lonc/**/*.*")}
    packaged = {name for name in wheel.names if ".dist-info/" not in name}
    assert packaged == modules - {"lonc/_fastpath.pyx"}
    assert {"lonc/py.typed", "lonc/_fastpath.pyi", "lonc/_purepath.py"} <= packaged


def test_the_metadata(tree):
    metadata = tree.wheel(LONC_BUILD_EXT="no").metadata
    lines = metadata["METADATA"].splitlines()
    assert "Name: lonc" in lines
    assert "Requires-Python: >=3.11" in lines
    assert "License-Expression: MIT" in lines or "License: MIT" in lines
    assert "lonc = lonc.cli.main:main" in metadata["entry_points.txt"]
    assert "MIT License" in metadata["LICENSE"]


def test_an_sdist_holds_all_that_a_packager_needs(whole_tree):
    root = whole_tree.root
    expected = {
        str(path.relative_to(root))
        for path in root.glob("**/*")
        if path.is_symlink() or path.is_file()
        if path.relative_to(root).parts[0] not in (".ci", ".gitignore")
    }
    (root / "lonc/_fastpath.c").write_text("#error old\n")
    (root / "lonc/_fastpath.old.so").write_bytes(b"")
    (root / "tests/__pycache__").mkdir()
    (root / "tests/__pycache__/old.pyc").write_bytes(b"")
    done = whole_tree.python("setup.py", "-q", "sdist", "--formats=zip")
    assert done.returncode == 0, done.stdout

    (sdist,) = root.glob("dist/*.zip")
    names = {name.partition("/")[2] for name in Wheel(sdist).names if not name.endswith("/")}
    made = {name for name in names if "egg-info/" in name} | {"PKG-INFO", "setup.cfg"}
    assert names - made == expected
    assert "lonc/_fastpath.pyx" in names


@pytest.mark.parametrize("prefix", ["/usr", "/usr/local", "/opt/lonc"])
def test_make_install_keeps_to_destdir_and_prefix(tree, tmp_path, prefix):
    if tree.run("make", "--version").returncode:
        pytest.skip("make is not installed")
    done = tree.run(
        "make", "install", f"PYTHON={sys.executable}", f"DESTDIR={tmp_path}/stage",
        f"PREFIX={prefix}", "ARGS=--no-build-isolation", LONC_BUILD_EXT="no",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    stage = tmp_path / "stage"
    assert (stage / prefix.lstrip("/") / "bin/lonc").exists()
    (door,) = stage.glob("**/lonc/fastpath.py")
    assert door.is_relative_to(stage / prefix.lstrip("/"))
