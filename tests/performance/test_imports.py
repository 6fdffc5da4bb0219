"""What a daemon imports: each module costs every start, and every process, time and memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.daemon.running import without_titles

# Each takes 1 to 30 ms and 0.3 to 10 MB; only a configuration file needs tomllib.
HEAVY = (
    "asyncio",
    "dataclasses",
    "importlib.metadata",
    "json",
    "logging",
    "random",
    "shutil",
    "ssl",
    "subprocess",
    "threading",
    "tomllib",
    "traceback",
)


@pytest.mark.parametrize("processes", ["per-host", "single"])
def test_what_a_daemon_imports(directory, load, processes):
    """Until the first reply, and with all it needs told on the command line."""
    options = ["--own-id", "one", "--socket-dir", str(directory), "--set", "dialect=line"]
    options += ["--set", f"processes={processes}", "--host", "one={}:{}".format(*load.address)]
    daemon = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "lonc", "serve", *options],
        env=without_titles(directory),
        stderr=subprocess.PIPE,
        text=True,
    )
    said = []
    with daemon:
        try:
            for line in daemon.stderr:
                said.append(line)
                if "ready in" in line:
                    break
            load.ask_anew(directory / "one", 1, 1)
        finally:
            daemon.terminate()
            said += daemon.stderr
    imported = {line.rpartition("|")[2].strip() for line in said if line.startswith("import time:")}
    assert "lonc.broker.broker" in imported
    assert sorted(imported.intersection(HEAVY)) == []
