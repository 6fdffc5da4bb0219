"""The daemon and programs that know nothing of it: servers of socat and ncat, clients of nc."""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import wait_until
from tests.system.conftest import DEADLINE, TERM, need

# Each answers a line with a line, `re-` in front.
SED = "sed -u s/^/re-/"


def foreign_server(site, program):
    need(program)
    need("sed")
    listen = {
        "socat": ["socat", f"TCP-LISTEN:{site.port},bind=127.0.0.1,reuseaddr,fork", f"EXEC:{SED}"],
        "ncat": ["ncat", "-l", "-k", "-e", f"/usr/bin/env {SED}", "127.0.0.1", str(site.port)],
    }[program]
    process = site.start(*listen)
    wait_until(lambda: listens(site.port), DEADLINE)
    return process


def listens(port):
    """Tell whether somebody listens on a port, without connecting to it."""
    with open("/proc/net/tcp") as lines:
        return any(f":{port:04X} 00000000:0000 0A" in line for line in lines)


@pytest.mark.parametrize("program", ["socat", "ncat"])
def test_a_foreign_server(site, program):
    server = foreign_server(site, program)
    daemon = site.serve("line", max_connections=2, retry_first=0.01, retry_longest=0.1)
    with site.connect() as sock, sock.makefile("rb") as replies:
        sock.sendall(b"one\n\nthree \0\xff\r\n")
        assert [replies.readline() for _ in range(3)] == [
            b"re-one\n",
            b"re-\n",
            b"re-three \0\xff\r\n",
        ]
    assert site.ask(b"encrypt:is data here") == b"re-encrypt:is data here"
    long = b"x" * 300_000
    assert site.ask(long) == b"re-" + long
    # It goes away and comes back.
    server.kill()
    subprocess.run(["true"], check=True)
    site.processes.remove(server)
    server.close()
    daemon.signal(TERM)
    assert daemon.end() == 0
    server = foreign_server(site, program)
    site.serve("line")
    assert site.ask(b"again") == b"re-again"


def test_nobody_listens_then_a_foreign_server_does(site):
    need("socat")
    daemon = site.serve("line", retry_first=0.01, retry_longest=0.1, connection_retries=1)
    assert site.ask(b"ping") == b"con_lost"
    daemon.wait_for("DEAD")
    foreign_server(site, "socat")
    daemon.wait_for("not DEAD any more")
    assert site.ask(b"ping") == b"re-ping"


@pytest.mark.parametrize("speech", ["head -c 100000 /dev/urandom", "echo unasked", "true", "yes"])
def test_a_foreign_server_that_talks_rubbish(site, speech):
    """Whatever it says, no client hangs, and none gets two lines or half of one."""
    need("socat")
    listen = f"TCP-LISTEN:{site.port},bind=127.0.0.1,reuseaddr,fork"
    site.start("socat", listen, f"EXEC:{speech}")
    wait_until(lambda: listens(site.port), DEADLINE)
    daemon = site.serve("classic", retry_first=0.01, retry_longest=0.02, connection_retries=999)
    for _ in range(20):
        assert site.ask(b"ping") == b"con_lost"
    assert daemon.popen.poll() is None


CLIENTS = {
    "socat": ["socat", "-t", str(DEADLINE), "-", "UNIX-CONNECT:msul1"],
    "ncat": ["ncat", "-U", "msul1"],
    "nc": ["nc", "-N", "-U", "msul1"],
}


@pytest.mark.parametrize("program", CLIENTS)
def test_foreign_clients(site, program):
    need(program)
    if (
        program == "nc"
        and b"OpenBSD" not in subprocess.run(["nc", "-h"], capture_output=True).stderr
    ):
        pytest.skip("the nc of this machine is another one")
    site.lond()
    site.serve()
    asked = b"ping\necho:one\nblob:100000\necho:two\n"
    done = subprocess.run(
        CLIENTS[program], cwd=site.home, input=asked, capture_output=True, timeout=DEADLINE
    )
    replies = done.stdout.split(b"\n")
    assert (replies[0], replies[1], len(replies[2]), replies[3:]) == (
        b"msul1",
        b"one",
        100_000,
        [b"two", b""],
    )
    assert done.returncode == 0
