"""`lonc serve --background`, as an init script sees it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from lonc.client import Client
from lonc.daemon.instance import running_pid
from tests.conftest import wait_until
from tests.daemon.site import DEADLINE, kill

DETACH = """
import sys
from lonc.cli.main import main
from lonc.daemon.background import detach
from lonc.errors import LoncError, UsageError
import os, signal
def serve(ready):
    {body}
try:
    print("status", detach(serve))
except UsageError as error:
    print("unusable", error)
except LoncError as error:
    print("failed", error)
"""


@pytest.fixture
def background(site):
    """Start a daemon in the background: background(*arguments) -> what came of the command."""

    def background(*arguments):
        done = site.run("serve", "--background", *arguments)
        pid = running_pid(str(site.pid_file))
        if pid:
            site.orphans.add(pid)
        return done

    # Something whose end kills the orphans.
    site.started.append(subprocess.Popen(["true"]))
    return background


def test_it_returns_when_all_sockets_listen(site, peer, background):
    names = ["msul1", *(f"host{number}" for number in range(20))]
    site.configure(dict.fromkeys(names, peer), log_file=str(site.home / "log"))
    done = background()
    pid = int(site.pid_file.read_text())
    assert done.returncode == 0
    assert site.pid_file.read_bytes() == b"%d\n" % pid
    assert running_pid(str(site.pid_file)) == pid
    for name in names:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(site.home / name))
    with Client(site.home / "msul1", DEADLINE) as client:
        assert client.request(b"ping") == b"msul1"
    # It is nobody's, and holds nothing of the one who started it.
    assert os.getsid(pid) not in (pid, os.getsid(0))
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    for fd in (0, 1, 2):
        assert os.readlink(f"/proc/{pid}/fd/{fd}") == "/dev/null"
    pipes = [fd for fd in os.listdir(f"/proc/{pid}/fd") if "pipe:" in _target(pid, fd)]
    assert pipes == []
    kill(pid, signal.SIGTERM)
    wait_until(lambda: not site.pid_file.exists(), DEADLINE)
    assert "INFO: ended" in (site.home / "log").read_text()


def _target(pid, fd):
    return os.readlink(f"/proc/{pid}/fd/{fd}")


def test_a_second_instance_is_told_to_the_caller(site, peer, background):
    site.configure({"msul1": peer})
    assert background().returncode == 0
    done = background()
    assert (done.returncode, done.stdout) == (1, "")
    assert f"another instance runs (pid {site.pid_file.read_text().strip()})" in done.stderr


def test_a_broken_configuration_has_a_line_for_each_problem(site, peer, background):
    site.configure({"msul1": peer}, max_queue=0, wrong=1)
    done = background()
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 2 and all(line.startswith(f"lonc: {site.config}:") for line in lines)


def test_a_socket_that_cannot_be_opened(site, peer, background):
    site.configure({"good": peer, "taken": peer})
    (site.home / "taken").write_text("somebody's")
    done = background()
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert "taken is there and is not a socket" in line
    assert not site.pid_file.exists()
    assert not (site.home / "good").exists()


def test_relative_paths_are_of_where_it_was_started(site, peer, background):
    site.configure({"msul1": peer}, socket_dir="/nowhere", log_file=str(site.home / "log"))
    assert background("--socket-dir", ".").returncode == 0
    kill(int(site.pid_file.read_text()), signal.SIGHUP)
    # It reads them again, and finds what it found at first.
    wait_until(lambda: "configuration read again" in (site.home / "log").read_text(), DEADLINE)
    with Client(site.home / "msul1", DEADLINE) as client:
        assert client.request(b"ping") == b"msul1"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return 7", "status 7"),
        ("raise UsageError('do this')", "unusable do this"),
        ("raise LoncError('bad luck')", "failed bad luck"),
        ("raise KeyError('secret')", "failed the daemon failed: KeyError"),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "failed the daemon was killed before all its sockets listened",
        ),
        ("ready(); return 7", "status 0"),
        ("ready(); raise UsageError('too late')", "status 0"),
        ("ready(); raise KeyError('too late')", "status 0"),
    ],
)
def test_what_the_caller_is_told(body, told):
    done = subprocess.run(
        [sys.executable, "-c", DETACH.format(body=body)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stdout) == (0, f"{told}\n")
    # Nobody has to guess why an unforeseen error ended it.
    assert ("Traceback" in done.stderr) == ("KeyError" in told)
