"""Builds the one extension, lonc._fastpath; everything else about the package is in pyproject.toml.

The environment may say:

LONC_BUILD_EXT=auto      build the extension if that works, else leave it out (the default)
LONC_BUILD_EXT=require   fail if it cannot be built: for distributions
LONC_BUILD_EXT=no        leave it out
LONC_ABI3=1              one extension for CPython 3.11 and every later one, a little slower
LONC_TRACE=1             trace lines, to measure the coverage of the .pyx
"""

import os
import sys
import sysconfig
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import setuptools
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import PlatformError

WISHES = ("auto", "require", "no")


def is_wanted(wish: str, implementation: str, free_threaded: bool) -> bool:
    """Whether to build the extension; `auto` builds it only where it is safe and faster."""
    if wish not in WISHES:
        raise SystemExit(f"LONC_BUILD_EXT={wish}: choose one of {', '.join(WISHES)}")
    if wish == "auto":
        return implementation == "cpython" and not free_threaded
    return wish == "require"


class BuildOrLeaveOut(build_ext):
    """Builds the extension; if that fails and nobody requires it, makes the wheel a pure one.

    setuptools' own `optional` would keep the platform's name for a wheel without extension, and
    does not cover what Cython raises.
    """

    def initialize_options(self):
        super().initialize_options()
        self.required = False
        self.traced = False

    def finalize_options(self):
        super().finalize_options()
        self.force = True  # C made with tracing looks up to date to a build without, and vice versa
        if self.traced:
            self.cython_directives = {"linetrace": True}
        else:
            # Coverage looks for the C beside the .pyx; otherwise the source stays as it is.
            self.cython_c_in_temp = True

    def run(self):
        self.remove_earlier_results()
        try:
            super().run()
        except Exception as error:
            if self.required:
                raise
            self.leave_out(error)

    def remove_earlier_results(self):
        """After a failure they would be taken for this build's, by a wheel or by an import."""
        for extension in self.extensions:
            directory = Path(self.get_ext_fullpath(extension.name)).parent
            module = extension.name.rpartition(".")[2]
            for suffix in EXTENSION_SUFFIXES:
                (directory / (module + suffix)).unlink(missing_ok=True)

    def build_extension(self, ext):
        # setuptools loads Cython if it can, and otherwise compiles any C that lies about.
        if "Cython.Compiler.Main" not in sys.modules:
            raise PlatformError("Cython is not installed")
        super().build_extension(ext)

    def leave_out(self, error):
        self.warn(f"no extension is built, lonc will run as pure Python: {error}")
        self.extensions[:] = []
        self.distribution.ext_modules = []
        bdist_wheel = self.distribution.get_command_obj("bdist_wheel", create=False)
        if bdist_wheel:
            bdist_wheel.root_is_pure = True


def extension_arguments(environ) -> dict:
    """The part of setup()'s arguments that is about the extension."""
    wish = environ.get("LONC_BUILD_EXT") or "auto"
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    if not is_wanted(wish, sys.implementation.name, free_threaded):
        return {}
    abi3 = environ.get("LONC_ABI3") == "1"
    traced = environ.get("LONC_TRACE") == "1"
    macros = []
    if abi3:
        macros += [("Py_LIMITED_API", "0x030B0000")]
    if traced:
        macros += [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]
    extension = Extension(
        "lonc._fastpath", ["lonc/_fastpath.pyx"], define_macros=macros, py_limited_api=abi3
    )
    options = {"build_ext": {"required": wish == "require", "traced": traced}}
    if abi3:
        options["bdist_wheel"] = {"py_limited_api": "cp311"}
    return {
        "ext_modules": [extension],
        "cmdclass": {"build_ext": BuildOrLeaveOut},
        "options": options,
    }


def license_argument(setuptools_version: str) -> dict[str, str]:
    """The licence, under the name that this setuptools has for an SPDX expression."""
    major = int(setuptools_version.partition(".")[0])
    return {"license_expression" if major >= 77 else "license": "MIT"}


if __name__ == "__main__":
    setup(**extension_arguments(os.environ), **license_argument(setuptools.__version__))
