"""Copies of the source tree that a test can build, break and install."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from ..prove.prove import copy_source

ROOT = Path(__file__).resolve().parents[2]

#: Stands in for the compiled part: the switches are tested here, and a small module compiles fast.
SMALL_MODULE = """\
# cython: language_level=3
from lonc._purepath import *
"""

class Tree:
    """A copy of the source, to build from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pyx = root / "lonc/_fastpath.pyx"

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the tree with none of the switches of this run of the tests."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("LONC_", "PYTHON", "PIP_", "CFLAGS", "SETUPTOOLS_"))
        }
        settings = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "CFLAGS": "-O0 -g0"}
        return subprocess.run(
            command,
            cwd=self.root,
            env=inherited | settings | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )

    def python(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, *arguments, **environment)

    def build_in_place(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.python("setup.py", "build_ext", "--inplace", **environment)

    def try_wheel(self, **environment: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        """Build a wheel as pip does; return how that ended and the directory it is in."""
        target = self.root / "dist"
        shutil.rmtree(target, ignore_errors=True)
        arguments = ("-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", "dist", ".")
        return self.python(*arguments, **environment), target

    def wheel(self, **environment: str) -> Wheel:
        done, target = self.try_wheel(**environment)
        assert done.returncode == 0, done.stdout
        (path,) = target.glob("*.whl")
        return Wheel(path)


class Wheel:
    """A wheel that was built: its tag (as in py3-none-any) and the names of its files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tag = path.stem.removeprefix("lonc-").partition("-")[2]
        with zipfile.ZipFile(path) as archive:
            self.names = archive.namelist()
            self.metadata = {
                Path(name).name: archive.read(name).decode()
                for name in self.names
                if ".dist-info/" in name
            }

    def compiled(self) -> list[str]:
        return [name for name in self.names if name.endswith(".so")]


@pytest.fixture
def source() -> Path:
    """The source tree; skips where only the tests were installed, or nothing can build."""
    if not (ROOT / "setup.py").exists():
        pytest.skip("there is no source tree to build from")
    for tool in ("pip", "setuptools"):
        if find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed")
    return ROOT


@pytest.fixture
def whole_tree(source, tmp_path) -> Tree:
    """A copy of all of the source."""
    return Tree(copy_source(source, tmp_path / "lonc"))


@pytest.fixture
def tree(source, tmp_path) -> Tree:
    """A copy of what a wheel is built from, with a small module to compile."""
    root = tmp_path / "lonc"
    copy_source(source / "lonc", root / "lonc")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "Makefile"):
        shutil.copy(source / name, root)
    copy = Tree(root)
    copy.pyx.write_text(SMALL_MODULE)
    return copy


@pytest.fixture(scope="session")
def compiler(tmp_path_factory) -> None:
    """Skips where an extension cannot be built at all."""
    if find_spec("Cython") is None:
        pytest.skip("Cython is not installed")
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if shutil.which(command[0]) is None:
        pytest.skip("there is no C compiler")
    trial = tmp_path_factory.mktemp("compiler") / "trial.c"
    trial.write_text("#include <Python.h>\n")
    headers = f"-I{sysconfig.get_path('include')}"
    if subprocess.run([*command, headers, "-c", trial, "-o", trial.with_suffix(".o")]).returncode:
        pytest.skip("the C compiler cannot build for this Python")


@pytest.fixture
def without_cython(tmp_path) -> str:
    """A value for PYTHONPATH under which Cython cannot be imported."""
    hidden = tmp_path / "hidden/Cython"
    hidden.mkdir(parents=True)
    hidden.joinpath("__init__.py").write_text("raise ImportError('hidden by a test')\n")
    return str(hidden.parent)
