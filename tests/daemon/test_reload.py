"""Reading the configuration again: what changed is followed, what did not is not touched."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path

import pytest

from lonc.client import Client, ConnectFailed, ConnectionLost
from lonc.lond import Peer
from tests.conftest import wait_until
from tests.daemon.running import DEADLINE, Stubborn, wait_gone


def ports(peer):
    """The local ports of the connections to a peer."""
    there = f"0100007F:{peer.address[1]:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[2] == there and row[3] == "01"}


def line_host(peer, **settings):
    return peer, {"dialect": "line", **settings}


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGUSR2])
def test_connections_of_unchanged_hosts_stay_up(serve, lond, mode, part_env, signum):
    running = serve({"one": lond, "two": lond}, processes=mode, env=part_env)
    with running.client("one") as client:
        assert client.request(b"ping") == b"one"
        before, children = ports(lond), running.children()
        assert len(before) == 1
        for number in range(3):
            # Something changes each time, but not for this host.
            running.settings["delayed_scan"] = 50 + number
            running.hosts[f"new{number}"] = lond
            assert "1 hosts new, 0 gone, 0 replaced" in running.reload(signum)
            assert client.request(b"ping") == b"one"
        assert ports(lond) == before
        assert running.children() == children
    assert lond.accepted == 1


def test_limits_change_while_a_client_is_connected(serve, lond, mode):
    running = serve({"one": lond}, processes=mode)
    with running.client("one") as client:
        assert client.request(b"echo:0123456789") == b"0123456789"
        running.hosts["one"] = lond, {"max_request": 10}
        assert "1 kept" in running.reload()

        # The parent has told the child, which may read the client before it reads the parent.
        def is_refused():
            try:
                return client.request(b"echo:0123456789") != b"0123456789"
            except ConnectionLost:
                return True

        wait_until(is_refused, DEADLINE)
        assert client.request(b"echo:1") == b"1"
        running.hosts["one"] = lond, {"max_request": 20}
        running.hosts["two"] = lond
        assert "1 hosts new" in running.reload()
        wait_until(lambda: not is_refused(), DEADLINE)
    assert lond.accepted == 1


def test_settings_of_the_log_reach_running_hosts(serve, lond, mode):
    running = serve({"one": lond}, processes=mode)
    assert running.ask("one") == b"one"
    running.settings["debug"] = True
    running.settings["log_format"] = "loncapa"
    running.reload()
    running.wait_for("SUCCESS: New debugging level for one now 10</font>")


def test_a_process_that_is_started_later_has_the_debug_setting(serve, lond):
    running = serve({"one": lond}, start="eager")
    # The parent has something to say of the host, too.
    os.kill(running.process_of("one"), signal.SIGKILL)
    running.wait_for("was killed by signal 9")
    pid = running.process_of("one")
    os.kill(pid, signal.SIGTERM)
    wait_gone(pid)
    running.settings["debug"] = True
    running.reload()
    assert running.ask("one") == b"one"
    running.wait_for("-Debug- dialogue in state")


def test_a_new_host_serves_at_once_and_an_old_one_drains(serve, lond, stubborn, mode):
    running = serve({"one": lond, "two": line_host(stubborn)}, processes=mode)
    listeners = running.listeners()
    with running.client("two") as client, socket.socket(socket.AF_UNIX) as slow:
        assert client.request(b"hello") == b"hello"
        slow.settimeout(DEADLINE)
        slow.connect(str(running.directory / "two"))
        slow.sendall(b"slow\n")
        assert stubborn.asked.wait(DEADLINE)
        old = running.process_of("two") if mode == "per-host" else None
        del running.hosts["two"]
        running.hosts["three"] = lond
        assert "1 hosts new, 1 gone, 0 replaced, 1 kept" in running.reload()
        assert running.ask("three") == b"three"
        with pytest.raises(ConnectFailed):
            running.ask("two")
        assert not (running.directory / "two").exists()
        # It comes back while its old process still has work.
        running.hosts["two"] = line_host(stubborn)
        assert "1 hosts new" in running.reload()
        assert running.ask("two", b"again") == b"again"
        stubborn.answer.set()
        assert slow.recv(100) == b"slow\n"
        assert slow.recv(100) == b""
    if old:
        wait_gone(old)
        assert running.process_of("two") != old
    assert running.listeners()["one"] == listeners["one"]
    assert running.end() == 0


def test_a_broken_file_changes_nothing_and_is_reported(serve, lond, mode):
    running = serve({"one": lond}, processes=mode)
    file = running.directory / "lonc.toml"
    with running.client("one") as client:
        assert client.request(b"ping") == b"one"
        for text, complaint in (
            ("own_id = \n", "lonc.toml:1: "),
            ('own_id = "msul2"\nmax_queue = 0\n[hosts.two]\nport = 1\n', "lonc.toml:2: max_queue"),
            (None, "cannot be read"),
        ):
            file.unlink() if text is None else file.write_text(text)
            line = running.reread()
            assert "WARNING: the configuration stays as it was: " in line
            assert complaint in line
            assert client.request(b"ping") == b"one"
        # Each problem has its line.
        running.wait_for("the configuration stays as it was", count=4)
        running.hosts["two"] = lond
        assert "1 hosts new" in running.reload()
        assert running.ask("two") == b"two"
        assert client.request(b"ping") == b"one"
    assert lond.accepted == 2


def test_a_socket_that_cannot_be_opened_changes_nothing(serve, lond, mode):
    running = serve({"one": lond}, processes=mode)
    (running.directory / "three").write_text("somebody's")
    del running.hosts["one"]
    running.hosts |= {"two": lond, "three": lond}
    assert "is not a socket" in running.reload()
    assert running.ask("one") == b"one"
    assert not (running.directory / "two").exists()
    (running.directory / "three").unlink()
    assert "2 hosts new, 1 gone" in running.reload()
    assert running.ask("two") == b"two"


def test_a_socket_file_that_is_gone_is_made_anew(serve, lond, mode):
    running = serve({"one": lond, "two": lond}, processes=mode)
    with running.client("one") as client, running.client("two") as other:
        assert client.request(b"ping") == b"one"
        assert other.request(b"ping") == b"two"
        (running.directory / "one").unlink()
        assert "0 hosts new, 0 gone, 1 replaced, 1 kept" in running.reload()
        running.wait_for(f"WARNING: socket {running.directory}/one was not there any more")
        assert running.ask("one") == b"one"
        assert other.request(b"ping") == b"two"
    # The successor's connection is the only new one.
    assert lond.accepted == 3
    # A socket whose file was merely touched is in its place.
    os.utime(running.directory / "two")
    assert "0 replaced, 2 kept" in running.reload()
    assert running.ask("two") == b"two"
    assert running.end() == 0


def test_sockets_whose_directory_was_made_anew(serve, lond, mode):
    running = serve({"one": lond, "two": lond}, processes=mode)
    shutil.rmtree(running.directory)
    running.directory.mkdir()
    assert "2 replaced, 0 kept" in running.reload()
    assert (running.ask("one"), running.ask("two")) == (b"one", b"two")
    assert running.end() == 0
    assert os.listdir(running.directory) == ["lonc.toml"]


def test_somebody_else_s_socket_in_the_place_of_one_stays(serve, lond, mode):
    running = serve({"one": lond, "two": lond}, processes=mode)
    path = running.directory / "one"
    path.unlink()
    (running.directory / "two").unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        inode = path.stat().st_ino
        assert "something answers on one already" in running.reload()
        assert path.stat().st_ino == inode
        assert not (running.directory / "two").exists()
    # Now it does not answer any more.
    assert "2 replaced, 0 kept" in running.reload()
    assert (running.ask("one"), running.ask("two")) == (b"one", b"two")


def test_what_needs_a_restart_is_said_and_left(serve, lond, mode):
    running = serve({"one": lond}, processes=mode)
    running.settings["processes"] = "single" if mode == "per-host" else "per-host"
    mark = len(running.log)
    assert "1 kept" in running.reload() or running.wait_for("1 kept", since=mark)
    running.wait_for("WARNING: processes was changed: that takes effect when", since=mark)
    assert running.ask("one") == b"one"
    assert len(running.children()) == (1 if mode == "per-host" else 0)


@pytest.mark.parametrize("change", ["port", "dialect", "own_id"])
def test_a_successor_takes_the_listener_while_the_old_one_drains(
    serve, lond, stubborn, mode, change, part_env
):
    hosts = {"one": line_host(stubborn), "two": lond}
    running = serve(hosts, processes=mode, env=part_env)
    file = (running.directory / "one").stat().st_ino
    assert running.ask("two") == b"two"
    two = ports(lond)
    with socket.socket(socket.AF_UNIX) as slow, Stubborn() as other, Peer(id="one") as lond_one:
        other.answer.set()
        slow.settimeout(DEADLINE)
        slow.connect(str(running.directory / "one"))
        slow.sendall(b"slow\n")
        assert stubborn.asked.wait(DEADLINE)
        old = running.process_of("one") if mode == "per-host" else None
        served = stubborn.served
        if change == "port":
            running.hosts["one"] = line_host(other)
        elif change == "dialect":
            running.hosts["one"] = lond_one
        else:
            running.settings["own_id"] = "other"
        running.write()
        if change == "own_id":
            text = (running.directory / "lonc.toml").read_text()
            (running.directory / "lonc.toml").write_text(text.replace('own_id = "msul2"\n', ""))
        replaced = 2 if change == "own_id" else 1
        assert f"0 hosts new, 0 gone, {replaced} replaced" in running.reread()
        # The first one that asks is answered by the successor, and nobody saw a closed door.
        assert running.ask("one", b"echo:now") == (b"now" if change == "dialect" else b"echo:now")
        assert {"port": other, "dialect": lond_one, "own_id": stubborn}[change].served == (
            served + 1 if change == "own_id" else 1
        )
        stubborn.answer.set()
        assert slow.recv(100) == b"slow\n"
        assert slow.recv(100) == b""
        if old:
            wait_gone(old)
    assert (running.directory / "one").stat().st_ino == file
    if change != "own_id":
        assert running.ask("two") == b"two"
        assert ports(lond) == two
    assert running.end() == 0


def test_names_that_move_between_hosts(serve, directory, lond, mode, part_env):
    """Hosts of a LON-CAPA site, each with a socket of its id and one of its machine's name."""
    with tempfile.TemporaryDirectory() as name:
        site = Path(name)
        table = site / "hosts.tab"
        (site / "loncapa.conf").write_text(
            f"PerlSetVar lonTabDir {site}\nPerlSetVar londPort {lond.address[1]}\n"
            "PerlSetVar lonHostID msul2\n"
        )
        table.write_text(
            "one:msu:library:a.example:127.0.0.1\n"
            "two:msu:library:b.example:127.0.0.1\n"
            "three:msu:library:c.example:127.0.0.1\n"
        )
        own = {"log_format": "plain", "pid_file": f"{directory}/pid"}
        own |= dict.fromkeys(("log_file", "delayed_dir", "perm_log", "status_file", "user"), "")
        arguments = ["--loncapa", str(site), "--socket-dir", str(directory)]
        for name, value in own.items():
            arguments += ["--set", f"{name}={value}"]
        running = serve({}, env=part_env, arguments=tuple(arguments), processes=mode)
        assert running.ask("a.example") == b"one"
        assert running.ask("b.example") == b"two"
        assert running.ask("three") == b"three"
        file = (running.directory / "a.example").stat().st_ino
        table.write_text(
            "one:msu:library:b.example:127.0.0.1\n"
            "four:msu:library:a.example:127.0.0.1\n"
            "three:msu:library:c.example:127.0.0.1\n"
        )
        assert "1 hosts new, 1 gone, 1 replaced, 1 kept" in running.reread()
        assert running.ask("a.example") == running.ask("four") == b"four"
        assert running.ask("b.example") == running.ask("one") == b"one"
        assert running.ask("c.example") == running.ask("three") == b"three"
        assert (running.directory / "a.example").stat().st_ino == file
        assert not (running.directory / "two").exists()
        assert running.end() == 0


def test_a_process_that_does_not_drain_is_killed(serve, lond):
    running = serve({"one": (lond, {"drain_timeout": 0.1}), "two": lond}, start="eager")
    pid = running.process_of("one")
    os.kill(pid, signal.SIGSTOP)
    del running.hosts["one"]
    running.reload()
    running.wait_for(f"[one] CRITICAL: process {pid} did not end in time: killed")
    running.wait_for(f"[one] CRITICAL: process {pid} was killed by signal 9 (Killed)")
    wait_gone(pid)
    assert running.ask("two") == b"two"


def test_the_watchdog_s_patience_changes_at_once(serve, lond):
    running = serve({"one": lond}, start="eager", watchdog=3600)
    pid = running.process_of("one")
    os.kill(pid, signal.SIGSTOP)
    running.settings["watchdog"] = 0.2
    running.reload()
    running.wait_for(f"process {pid} hangs: no answer for 0.2 s")
    assert running.process_of("one", other_than=pid)


def test_reloads_under_load(serve, lond, mode):
    """Hosts come and go, and the clients of one that stays notice nothing."""
    running = serve({"one": lond, "two": lond}, processes=mode)
    with Client(running.directory / "one", DEADLINE) as client:
        for number in range(10):
            if number % 2:
                running.hosts["two"] = lond
            else:
                del running.hosts["two"]
            running.write()
            mark = len(running.log)
            running.send(signal.SIGHUP)
            answers = 0
            while not any("configuration" in line for line in running.log[mark:]):
                assert client.request(b"echo:%d" % answers) == b"%d" % answers
                answers += 1
        assert running.ask("two") == b"two"
    assert running.end() == 0
    assert "CRITICAL" not in "".join(running.log)
    wait_until(lambda: lond.connections == 0, DEADLINE)
