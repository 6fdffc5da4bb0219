"""The pid file and its lock, with real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from lonc.client import Client
from lonc.daemon.instance import PidFile, pid_file_path, running_pid
from lonc.daemon.settings import DaemonSettings
from lonc.errors import UsageError
from lonc.lond import Peer
from tests.conftest import wait_until
from tests.daemon.site import DEADLINE, children_of

# Holds a pid file until its standard input ends, as a daemon's process would.
HOLDER = """
import sys
from lonc.daemon.instance import PidFile
PidFile(sys.argv[1]).acquire(0)
print("held", flush=True)
sys.stdin.read()
"""


def test_the_file_holds_the_number_and_goes_at_the_end(site, peer):
    site.configure({"msul1": peer})
    daemon = site.start()
    assert site.pid_file.read_bytes() == b"%d\n" % daemon.pid
    assert running_pid(str(site.pid_file)) == daemon.pid
    daemon.terminate()
    assert daemon.wait(DEADLINE) == 0
    assert not site.pid_file.exists()
    assert running_pid(str(site.pid_file)) is None


def test_a_second_instance_says_so_and_leaves_the_first_alone(site, peer):
    site.configure({"msul1": peer})
    daemon = site.start()
    second = site.run("serve")
    assert (second.returncode, second.stdout) == (1, "")
    [line] = second.stderr.splitlines()
    assert line == f"lonc: another instance runs (pid {daemon.pid}): it holds {site.pid_file}"
    assert site.pid_file.read_bytes() == b"%d\n" % daemon.pid
    with Client(site.home / "msul1", DEADLINE) as client:
        assert client.request(b"ping") == b"msul1"


@pytest.mark.parametrize("left", [b"", b"4194304999\n", b"1\n", b"\xff\n", b"\xc2\xb2\n"])
def test_a_file_that_nobody_locks_means_nothing(site, peer, left):
    site.pid_file.write_bytes(left)
    assert running_pid(str(site.pid_file)) is None
    site.configure({"msul1": peer})
    daemon = site.start()
    assert site.pid_file.read_bytes() == b"%d\n" % daemon.pid


def test_a_new_parent_waits_for_the_children_of_a_killed_one(site_of_part):
    site = site_of_part
    asked, answer = threading.Event(), threading.Event()

    def handle(command):
        asked.set()
        answer.wait(DEADLINE)
        return command

    with Peer(handler=handle) as peer:
        site.configure({"msul1": peer})
        first = site.start()
        replies = []

        def ask():
            with Client(site.home / "msul1", DEADLINE) as client:
                replies.append(client.request(b"echo:slow"))

        thread = threading.Thread(target=ask)
        thread.start()
        assert asked.wait(DEADLINE)
        [child] = children_of(first.pid)
        site.orphans.add(child)
        first.kill()
        first.wait()
        assert running_pid(str(site.pid_file)) is None
        second = site.start(ready=False)
        # While the child finishes what is in flight, nobody else opens sockets.
        site.logged("the parent is gone")
        wait_until(lambda: str(site.pid_file) in open_files(second), DEADLINE)
        assert second.poll() is None
        assert site.log().count("INFO: ready in") == 1
        answer.set()
        thread.join(DEADLINE)
        assert replies == [b"echo:slow"]
        site.logged("INFO: ready in", 2)
        assert site.pid_file.read_bytes() == b"%d\n" % second.pid
        with Client(site.home / "msul1", DEADLINE) as client:
            assert client.request(b"echo:again") == b"echo:again"


def open_files(process):
    """The files that a process has open; fails if it has ended."""
    assert process.poll() is None
    files = []
    for fd in os.listdir(f"/proc/{process.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            files.append(os.readlink(f"/proc/{process.pid}/fd/{fd}"))
    return files


def hold(path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout.readline() == b"held\n"
    return process


def test_children_that_do_not_end_are_named(site):
    """The number in the file is of a process that has gone, and somebody holds the lock."""
    path = site.home / "pid"
    gone = subprocess.Popen(["true"])
    gone.wait()
    with hold(path) as holder:
        path.write_bytes(b"%d\n" % gone.pid)
        with pytest.raises(Exception, match=f"killed .pid {gone.pid}. do not end: .fuser {path}"):
            PidFile(str(path)).acquire(0)
        holder.stdin.close()


def test_the_file_that_was_locked_is_the_one_of_that_name(site):
    """A holder that ends removes its file: a lock on that one would keep nobody away."""
    path = site.home / "pid"
    with hold(path) as holder:
        path.unlink()
        file = PidFile(str(path))
        file.acquire(0)
        assert path.read_bytes() == b"%d\n" % os.getpid()
        file.release()
        assert not path.exists()
        holder.stdin.close()


def test_the_file_of_another_daemon_stays(site, peer):
    """Somebody made the directory anew under the first one, and started a second one there."""
    site.configure({"msul1": peer})
    first = site.start()
    site.pid_file.unlink()
    (site.home / "msul1").unlink()
    second = site.start()
    first.terminate()
    assert first.wait(DEADLINE) == 0
    assert site.pid_file.read_bytes() == b"%d\n" % second.pid
    assert running_pid(str(site.pid_file)) == second.pid
    second.terminate()
    assert second.wait(DEADLINE) == 0
    assert not site.pid_file.exists()


def test_a_link_is_not_followed(site):
    target = site.home / "precious"
    target.write_text("precious")
    (site.home / "pid").symlink_to(target)
    with pytest.raises(UsageError, match="pid_file .* cannot be made"):
        PidFile(str(site.home / "pid")).acquire(0)
    assert target.read_text() == "precious"


def test_a_directory_that_is_not_there(site, peer):
    site.configure({"msul1": peer}, pid_file=str(site.home / "no" / "pid"))
    done = site.run("serve")
    assert done.returncode == 2
    assert done.stderr == f"lonc: pid_file {site.home}/no/pid cannot be made: {os.strerror(2)}\n"
    assert not (site.home / "msul1").exists()


def test_without_a_setting_it_is_beside_the_sockets():
    assert pid_file_path(DaemonSettings(own_id="a", socket_dir="/s")) == "/s/.lonc.pid"
    assert pid_file_path(DaemonSettings(own_id="a", pid_file="/p")) == "/p"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGQUIT])
def test_a_crowd_of_starters_and_one_wins(site, peer, signum):
    site.configure({"msul1": peer})
    crowd = [site.start(ready=False) for _ in range(6)]
    wait_until(lambda: sum(one.poll() is None for one in crowd) == 1, DEADLINE)
    [winner] = [one for one in crowd if one.poll() is None]
    assert [one.returncode for one in crowd if one is not winner] == [1] * 5
    site.logged("INFO: ready in")
    assert site.pid_file.read_bytes() == b"%d\n" % winner.pid
    winner.send_signal(signum)
    assert winner.wait(DEADLINE) == 0
    assert not site.pid_file.exists()
