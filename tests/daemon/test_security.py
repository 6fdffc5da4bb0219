"""Who may reach the daemon, through real sockets and directories."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from lonc.client import Client
from tests.daemon.site import DEADLINE


def test_a_socket_is_seen_only_with_its_mode(site, peer):
    """It is made and narrowed under another name: whoever looks all the time sees it whole."""
    seen = set()
    over = threading.Event()

    def look():
        while not over.is_set():
            for number in range(30):
                try:
                    seen.add((site.home / f"host{number}").stat().st_mode & 0o777)
                except FileNotFoundError:
                    pass

    site.configure({f"host{number}": peer for number in range(30)}, socket_mode="0600")
    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        site.start(umask=0)
    finally:
        over.set()
        watcher.join()
    look_again = {(site.home / f"host{number}").stat().st_mode & 0o777 for number in range(30)}
    assert look_again == {0o600}
    assert seen <= {0o600}


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("who", ["users", "groups"])
@pytest.mark.parametrize("processes", ["per-host", "single"])
def test_only_those_who_are_allowed_are_answered(site_of_part, peer, allowed, who, processes):
    site = site_of_part
    own = os.geteuid() if who == "users" else os.getegid()
    number = own if allowed else own + 1
    site.configure({"msul1": peer}, processes=processes)
    with site.config.open("a") as file:
        file.write(f"allow_{who} = [{number}]\n")
    site.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(site.home / "msul1"))
        try:
            client.sendall(b"ping\n")
            answer = client.recv(100)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        assert answer == (b"msul1\n" if allowed else b"")
    if not allowed:
        site.logged(f"uid {os.geteuid()} and gid {os.getegid()}")
    assert peer.executed[b"ping"] == allowed


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o703, 0o702])
@pytest.mark.parametrize("which", ["home", "delayed"])
def test_a_directory_that_others_may_write_is_refused(site, peer, mode, which):
    site.configure({"msul1": peer})
    directory = getattr(site, which)
    directory.chmod(mode)
    done = site.run("serve")
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert str(directory) in line and f"chmod o-w {directory}" in line
    assert not (site.home / "msul1").exists()
    directory.chmod(0o700)


@pytest.mark.parametrize(
    "host", ["../evil", "a/b", ".hidden", "..", "a b", "", "a\\u0000b", "h\u00f6"]
)
def test_a_host_id_that_is_no_file_name(site, peer, host):
    site.configure({"msul1": peer})
    with site.config.open("a") as file:
        file.write(f'[hosts."{host}"]\naddress = "127.0.0.1"\n')
    done = site.run("serve")
    assert (done.returncode, done.stdout) == (2, "")
    assert "must be a host id" in done.stderr
    assert not (site.home / "msul1").exists()


@pytest.mark.parametrize("host", ["a", "A-1_b.c", "0", "-", "x" * 20])
def test_a_host_id_that_is_one(site, peer, host):
    site.configure({host: peer})
    text = site.config.read_text().replace(f"[hosts.{host}]", f'[hosts."{host}"]\ndialect = "line"')
    site.config.write_text(text)
    site.start()
    assert (site.home / host).is_socket()


def test_a_delayed_message_cannot_name_a_path(site, peer):
    """The host in a file's name is only ever compared with the ids that are configured."""
    site.configure({"msul1": peer}, delayed_scan=0.05)
    for name in ("1.0.1.put.../evil".replace("/", "%2f"), "1.0.1.put..hidden", "1.0.1.put.\n"):
        (site.delayed / name).write_bytes(b"put:a\n")
    site.delay("msul1", b"log:msu:korte:good")
    daemon = site.start()
    with Client(site.home / "msul1", DEADLINE) as client:
        assert client.request(b"ping") == b"msul1"
    site.logged("(log) for msul1 delivered")
    assert len(site.messages()) == 3
    assert daemon.poll() is None
