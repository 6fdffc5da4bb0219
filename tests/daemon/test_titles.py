"""Process titles, with setproctitle and without it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, types
if {installed}:
    shown = []
    sys.modules["setproctitle"] = types.SimpleNamespace(setproctitle=shown.append)
else:
    shown = None
    sys.modules["setproctitle"] = None
from lonc.daemon.titles import load_titles, set_title
import time
time.asctime = time.ctime = lambda *when: "Wed Aug 27 16:00:00 2003"
load_titles()
set_title("Parent keeping the flock")
set_title("msul1 >>> DEAD !!!! <<<")
print(shown)
"""


def run(*, installed: bool) -> str:
    program = PROGRAM.format(installed=installed)
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return result.stdout


def test_title_is_status_and_local_time():
    assert run(installed=True) == (
        "['lonc: Parent keeping the flock Wed Aug 27 16:00:00 2003',"
        " 'lonc: msul1 >>> DEAD !!!! <<< Wed Aug 27 16:00:00 2003']\n"
    )


def test_nothing_happens_where_it_is_not_installed():
    assert run(installed=False) == "None\n"
