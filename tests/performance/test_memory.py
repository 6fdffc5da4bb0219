"""Memory for clients that are connected and say nothing."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

SILENT = 2000
EACH = 4096


@pytest.fixture
def descriptors():
    """Room for many sockets in this process and in those that it starts."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * SILENT
    if before[1] != resource.RLIM_INFINITY and before[1] < needed:
        pytest.skip(f"a process may open {before[1]} files here, and this needs {needed}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], needed), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def resident(pid):
    """Bytes of memory that a process has resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) << 10


def test_silent_clients(serve, load, part_env, descriptors):
    """Each costs a few objects, and no buffer."""
    daemon = serve({"one": load}, env=part_env, dialect="line", processes="single")
    path = daemon.directory / "one"
    load.ask(load.connect(path, 10), 1000)
    before = resident(daemon.pid)
    silent = load.connect(path, SILENT)
    # They are accepted in turn: who comes after them is answered when they all are there.
    load.ask(load.connect(path, 1), 1)
    each = (resident(daemon.pid) - before) / len(silent)
    assert each <= EACH, f"{each:.0f} bytes for each silent client"
