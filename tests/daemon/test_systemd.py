"""Sockets that systemd hands in, and what it is told, with real daemons."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

import pytest

from lonc.client import Client
from lonc.daemon.systemd import Notifier, passed_sockets
from tests.conftest import wait_until
from tests.daemon.running import descriptors
from tests.daemon.site import DEADLINE, children_of

# Starts a command as systemd does: the sockets from descriptor 3 on, and their number told.
LAUNCHER = """
import os, socket, sys
paths, command = sys.argv[1].split(","), sys.argv[2:]
sockets = []
for path in paths:
    if path == "tcp":
        sock = socket.create_server(("127.0.0.1", 0))
    elif path == "pipe":
        sock = open("/dev/null")
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        sock.listen()
    sockets.append(os.dup(sock.fileno()))
saved = [os.dup2(fd, 100 + number) for number, fd in enumerate(sockets)]
for number, fd in enumerate(saved):
    os.dup2(fd, 3 + number)
os.closerange(3 + len(saved), 200)
os.environ.update(
    LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(saved)), LISTEN_FDNAMES="a:b"
)
os.execv(command[0], command)
"""


class Manager:
    """A service manager that is notified."""

    def __init__(self, address):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.settimeout(DEADLINE)
        self.sock.bind(address)
        self.heard = []

    def wait_for(self, word):
        """Read notes until one begins with this word; return it as a dictionary."""
        while True:
            note = self.sock.recv(4096).decode()
            self.heard.append(note)
            if note.startswith(word):
                return dict(line.split("=", 1) for line in note.splitlines())


@pytest.fixture
def manager(site):
    manager = Manager(str(site.home / "notify"))
    yield manager
    manager.sock.close()


def launched(site, *names):
    paths = ",".join(name if name in ("tcp", "pipe") else str(site.home / name) for name in names)
    serve = site.command("serve", "--config", str(site.config))
    return site.start(args=[sys.executable, "-c", LAUNCHER, paths, *serve])


@pytest.mark.parametrize("processes", ["per-host", "single"])
def test_a_socket_is_found_by_its_path_used_and_never_removed(site, peer, processes):
    site.configure({"msul1": peer, "own": peer}, processes=processes)
    daemon = launched(site, "unknown", "tcp", "msul1", "pipe")
    inode = (site.home / "msul1").stat().st_ino
    with Client(site.home / "msul1", DEADLINE) as client:
        assert client.request(b"ping") == b"msul1"
    assert (site.home / "own").is_socket()
    # The command line's environment is what the launcher gave; its own children have none of it.
    for child in children_of(daemon.pid):
        sockets = [fd for fd in os.listdir(f"/proc/{child}/fd") if int(fd) in range(3, 7)]
        assert len(sockets) <= 4
    daemon.terminate()
    assert daemon.wait(DEADLINE) == 0
    assert (site.home / "msul1").stat().st_ino == inode
    assert not (site.home / "own").exists()


@pytest.fixture
def msul1(site):
    """The socket of host msul1 as systemd opens it, and keeps it while a daemon has it too."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(site.home / "msul1"))
        listener.listen()
        yield listener


def activated(site, listener):
    """Start a daemon that is passed a socket."""
    code = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid());"
    code += f"os.dup2({listener.fileno()}, 3); os.closerange(4, 200);"
    code += "os.execv(sys.argv[1], sys.argv[1:])"
    serve = site.command("serve", "--config", str(site.config))
    return site.start(
        args=[sys.executable, "-c", code, *serve],
        env={"LISTEN_FDS": "1"},
        pass_fds=(listener.fileno(),),
    )


def test_a_client_that_comes_before_the_daemon_is_served_by_it(site, peer, msul1):
    """That is what socket activation is for."""
    site.configure({"msul1": peer})
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(site.home / "msul1"))
        client.sendall(b"ping\n")
        activated(site, msul1)
        assert client.recv(100) == b"msul1\n"


def is_turned_away(site, name):
    """Whether a client is let go at once, without an answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(site.home / name))
        return client.recv(100) == b""


def ask(site, name):
    with Client(site.home / name, DEADLINE) as client:
        return client.request(b"ping")


@pytest.mark.parametrize("processes", ["per-host", "single"])
def test_a_socket_waits_for_a_host_that_went_at_a_reload(site, lond, msul1, processes):
    site.configure({"msul1": lond, "one": lond}, processes=processes)
    daemon = activated(site, msul1)
    inode = (site.home / "msul1").stat().st_ino
    for number in (1, 3):
        assert ask(site, "msul1") == b"msul1"
        site.configure({"one": lond}, processes=processes)
        daemon.send_signal(signal.SIGHUP)
        site.logged("configuration read again", number)
        # systemd's copy still listens: nobody must wait in it for ever.
        for _ in range(3):
            assert is_turned_away(site, "msul1")
        site.configure({"msul1": lond, "one": lond}, processes=processes)
        daemon.send_signal(signal.SIGHUP)
        site.logged("configuration read again", number + 1)
    assert ask(site, "msul1") == b"msul1"
    assert ask(site, "one") == b"one"
    daemon.terminate()
    assert daemon.wait(DEADLINE) == 0
    assert (site.home / "msul1").stat().st_ino == inode
    assert "WARNING: the configuration" not in site.log()


def test_a_socket_waits_for_its_host_also_behind_a_reload_that_failed(site, lond, msul1):
    site.configure({"one": lond})
    daemon = activated(site, msul1)
    assert is_turned_away(site, "msul1")
    site.configure({"one": lond, "msul1": lond, "two": lond})
    (site.home / "two").write_text("in the way")
    daemon.send_signal(signal.SIGHUP)
    assert "two is there and is not a socket" in site.logged("the configuration stays as it was")
    assert is_turned_away(site, "msul1")
    (site.home / "two").unlink()
    daemon.send_signal(signal.SIGHUP)
    assert "2 hosts new" in site.logged("configuration read again")
    assert ask(site, "msul1") == b"msul1"


def test_a_socket_that_waits_is_not_given_to_a_process(site, lond, msul1):
    site.configure({"one": lond})
    daemon = activated(site, msul1)
    assert ask(site, "one") == b"one"
    socket_of = f"socket:[{os.fstat(msul1.fileno()).st_ino}]"
    assert socket_of in descriptors(daemon.pid)
    [child] = children_of(daemon.pid)
    assert socket_of not in descriptors(child)


def test_the_variables_are_taken_out_whoever_they_are_for():
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "OTHER": "1"}
    assert passed_sockets(environment) == {}
    assert environment == {"OTHER": "1"}


@pytest.mark.parametrize("count", ["", "x", "-1", "0", "\u00b2"])
def test_a_count_that_is_none(count):
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}
    assert passed_sockets(environment) == {}
    assert environment == {}


def test_from_ready_to_stopping(site, manager, peer):
    site.configure({"msul1": peer})
    daemon = site.start(env={"NOTIFY_SOCKET": str(site.home / "notify")})
    note = manager.wait_for("READY=1")
    assert note == {"READY": "1", "STATUS": "serving 1 hosts", "MAINPID": str(daemon.pid)}
    for _ in range(2):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        daemon.send_signal(signal.SIGHUP)
        note = manager.wait_for("RELOADING=1")
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert before <= int(note["MONOTONIC_USEC"]) <= after
        assert manager.wait_for("READY=1")["STATUS"] == "serving 1 hosts"
    site.configure({"msul1": peer}, max_queue=0)
    daemon.send_signal(signal.SIGHUP)
    manager.wait_for("RELOADING=1")
    manager.wait_for("READY=1")
    daemon.terminate()
    manager.wait_for("STOPPING=1")
    assert daemon.wait(DEADLINE) == 0


# A daemon whose second look at its configuration goes wrong in a way that nobody thought of.
UNTHOUGHT = """
import sys
from lonc.cli.main import main
from lonc.daemon import config
load = config.load
def once(*arguments, **options):
    config.load = None
    return load(*arguments, **options)
config.load = once
sys.exit(main())
"""


def test_a_reload_that_fails_ends_all_the_same(site, manager, peer):
    """Else the manager waits for its end, and takes the daemon for one that hangs."""
    site.configure({"msul1": peer})
    serve = site.command("serve", "--config", str(site.config))[3:]
    daemon = site.start(
        args=[sys.executable, "-c", UNTHOUGHT, *serve],
        env={"NOTIFY_SOCKET": str(site.home / "notify")},
    )
    manager.wait_for("READY=1")
    daemon.send_signal(signal.SIGHUP)
    manager.wait_for("RELOADING=1")
    manager.wait_for("READY=1")
    site.logged("CRITICAL: an error in")
    with Client(site.home / "msul1", DEADLINE) as client:
        assert client.request(b"ping") == b"msul1"


def test_the_manager_s_watchdog_is_kept_quiet(site, manager, peer):
    site.configure({"msul1": peer})
    daemon = site.start(
        env={"NOTIFY_SOCKET": str(site.home / "notify"), "WATCHDOG_USEC": "200000"}
    )
    manager.wait_for("READY=1")
    for _ in range(3):
        manager.wait_for("WATCHDOG=1")
    # Not while the daemon hangs.
    daemon.send_signal(signal.SIGSTOP)
    wait_until(lambda: "State:\tT" in _status(daemon.pid), DEADLINE)
    manager.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        while manager.sock.recv(4096):
            pass
    daemon.send_signal(signal.SIGCONT)
    manager.sock.settimeout(DEADLINE)
    manager.wait_for("WATCHDOG=1")


def _status(pid):
    with open(f"/proc/{pid}/status") as file:
        return file.read()


def test_a_manager_that_has_gone_is_no_trouble(site, peer):
    site.configure({"msul1": peer})
    daemon = site.start(env={"NOTIFY_SOCKET": str(site.home / "nobody"), "WATCHDOG_USEC": "10000"})
    with Client(site.home / "msul1", DEADLINE) as client:
        assert client.request(b"ping") == b"msul1"
    daemon.terminate()
    assert daemon.wait(DEADLINE) == 0


def test_an_address_outside_of_the_file_system():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"lonc-test-{os.getpid()}"
        manager.bind("\0" + name)
        manager.settimeout(DEADLINE)
        environment = {"NOTIFY_SOCKET": "@" + name, "OTHER": "1"}
        Notifier(environment).status("as always")
        assert manager.recv(100) == b"STATUS=as always"
        assert environment == {"OTHER": "1"}


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_how_often_the_watchdog_is_to_be_fed(environment, seconds):
    assert Notifier(environment).watchdog == seconds
    assert environment == {}


def test_nothing_is_sent_where_nobody_asked(monkeypatch):
    monkeypatch.setattr(socket.socket, "sendto", None)
    notifier = Notifier({})
    notifier.ready("x")
    notifier.reloading()
    notifier.stopping()
    notifier.alive()
