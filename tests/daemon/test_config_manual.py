"""The manual's page on settings is the one that the program would write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lonc

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.skipif(not DOCS.is_dir(), reason="the manual is not here")
def test_the_page_on_settings_is_current() -> None:
    package = str(Path(lonc.__file__).parents[1])
    written = subprocess.run(
        [sys.executable, str(DOCS / "make_settings.py")],
        env=os.environ | {"PYTHONPATH": package},
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    assert (DOCS / "settings.md").read_text() == written.stdout, (
        "run: python docs/make_settings.py > docs/settings.md"
    )
