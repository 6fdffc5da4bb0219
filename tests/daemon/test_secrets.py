"""No argument of a request gets anywhere but to the peer: every path, and every place to look."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from lonc.client import Client, ClientError
from lonc.lond import Peer
from lonc.lond.faults import Fault
from tests.conftest import wait_until
from tests.daemon.site import DEADLINE, children_of, kill

SECRET = b"Korte-%s-hunter2"
# This one stands in a delayed command that is not to be encrypted.
RECORDED = b"Korte-recorded-hunter2"
MARK = b"hunter2"


class Watch(threading.Thread):
    """Looks at the titles of a daemon's processes all the time."""

    def __init__(self, site, pid):
        super().__init__(daemon=True)
        self.site, self.pid = site, pid
        self.seen = set()
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.01):
            for pid in {self.pid} | children_of(self.pid):
                for name in ("cmdline", "comm"):
                    try:
                        self.seen.add(Path(f"/proc/{pid}/{name}").read_bytes())
                    except OSError:
                        pass


def ask(site, request, host="msul1"):
    """Send a request, and take what comes: a reply, or none."""
    with Client(site.home / host, DEADLINE) as client:
        try:
            return client.request(request)
        except ClientError:
            return b"con_lost"


def secret(where):
    return SECRET % where.encode()


@pytest.mark.parametrize("log_format", ["json", "loncapa"])
def test_no_argument_is_ever_written_down(site_of_part, log_format):
    site = site_of_part
    log_file = site.home / "lonc.log"
    with Peer() as peer, Peer(dialect="line", handler=lambda line: line) as liner:
        site.configure(
            {"msul1": peer, "liner": liner},
            log_file=str(log_file),
            log_format=log_format,
            debug=True,
            reply_timeout=0.2,
            watchdog=0.4,
            max_request=1000,
            client_timeout=0.3,
            connection_retries=2,
            retry_first=0.02,
            retry_longest=0.05,
            delayed_scan=0.1,
            delayed_attempts=2,
        )
        text = site.config.read_text().replace(
            "[hosts.liner]", '[hosts.liner]\ndialect = "line"'
        )
        site.config.write_text(text)
        daemon = site.start()
        watch = Watch(site, daemon.pid)
        watch.start()

        # Answered, in clear and encrypted, for another host, in a dialect without commands.
        assert ask(site, b"echo:" + secret("reply")) == secret("reply")
        ask(site, b"encrypt:auth:msu:korte:" + secret("encrypted"))
        ask(site, b"sethost:other:put:" + secret("sethost"))
        assert ask(site, secret("line"), "liner") == secret("line")
        # A word that is none, for its length or its letters.
        ask(site, secret("word"))
        # Refused, too long, cut by the client, and one that never ends.
        ask(site, b"passwd:msu:korte:" + secret("refused"))
        ask(site, b"put:" + secret("long") + 2000 * b"x")
        ask(site, b"sethost:" + secret("nohost"))
        for request in (b"put:" + secret("cut"), b"put:" + secret("endless")):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(DEADLINE)
                client.connect(str(site.home / "msul1"))
                client.sendall(request)
                if b"cut" in request:
                    client.shutdown(socket.SHUT_WR)
                client.recv(100)
        # The peer fails in the middle, repeats it, answers with it, and does not answer at all.
        for kind, more in (
            ("close", {}),
            ("reset", {}),
            ("cut", {"byte": 3}),
            ("twice", {}),
            ("say", {"text": b"enc:16:" + secret("answer")}),
            ("stall", {}),
        ):
            peer.faults.add(Fault(kind, command="echo", count=1, **more))
            ask(site, b"echo:" + secret(kind))
        peer.faults.add(Fault("say", step="init", text=secret("dialogue"), count=1))
        peer.disconnect()
        ask(site, b"echo:" + secret("strayed"))

        # Delayed: one that is to be encrypted, one that is not, and errors that repeat it.
        peer.faults.add(
            Fault("say", command="log", text=b"error: " + secret("error"), count=2)
        )
        site.delay("msul1", b"encrypt:log:msu:korte:" + secret("delayed"), 1)
        site.delay("msul1", b"encrypt:put:msu:korte:space:k=" + secret("sent"), 2)
        site.delay("msul1", b"log:msu:korte:" + RECORDED, 3)
        (site.delayed / "4.0.1.put.msul1").write_bytes(b"put:" + secret("two\n") + b"\nlines\n")
        daemon.send_signal(signal.SIGUSR1)
        wait_until(lambda: not site.messages(), DEADLINE)

        # The host is down, then DEAD.
        peer.stop()
        while b"DEAD" not in log_file.read_bytes():
            ask(site, b"echo:" + secret("dead"))
        ask(site, b"encrypt:echo:" + secret("dead"))
        daemon.send_signal(signal.SIGUSR1)
        peer.start()
        wait_until(lambda: ask(site, b"echo:back") == b"back", DEADLINE)

        # A process is aborted with a request in it, from outside and by the watchdog.
        peer.faults.add(Fault("stall", command="echo", count=2))
        for abort in (signal.SIGABRT, signal.SIGSTOP):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(DEADLINE)
                client.connect(str(site.home / "msul1"))
                served = peer.served
                client.sendall(b"echo:" + secret("crash") + b"\n")
                wait_until(lambda served=served: peer.served > served, DEADLINE)
                for pid in children_of(daemon.pid):
                    kill(pid, abort)
                client.recv(100)
        wait_until(lambda: log_file.read_bytes().count(b"Current thread") >= 2, DEADLINE)
        # The debug level, by signal, and a look at everything.
        wait_until(lambda: ask(site, b"echo:back") == b"back", DEADLINE)
        for pid in children_of(daemon.pid):
            kill(pid, signal.SIGINT)
        ask(site, b"echo:" + secret("debug"))
        daemon.send_signal(signal.SIGUSR1)
        wait_until((site.home / "status.txt").exists, DEADLINE)
        listed = site.run("delayed", "list")
        shown = site.run("delayed", "show", "1000000001.0.77", "4.0.1")
        assert (listed.returncode, shown.returncode) == (0, 0)
        daemon.terminate()
        assert daemon.wait(DEADLINE) == 0
        watch.over.set()
        watch.join(DEADLINE)

    assert any(b"lonc" in title for title in watch.seen)
    assert not [title for title in watch.seen if MARK in title]
    assert MARK.decode() not in listed.stdout + listed.stderr + shown.stdout + shown.stderr
    written = {path: path.read_bytes() for path in everything(site.home)}
    for path, content in written.items():
        if path == site.perm_log:
            assert content.count(RECORDED) == 1
            content = content.replace(RECORDED, b"")
        if path.parent != site.delayed / "failed":
            # What was set aside is as its writer left it.
            assert MARK not in content, path
        assert MARK.decode() not in str(path)
    # And it was all there to be seen.
    assert {"stderr", "lonc.log", "perm.log", "status.txt"} <= {path.name for path in written}
    log = written[log_file]
    for sign in (b"DEAD", b"Debug", b"reply_timeout", b"signal 6", b"hangs", b"New debugging"):
        assert sign in log, sign
    assert not [path for path in written if path.name.startswith("core")]


def everything(directory):
    for root, _, names in os.walk(directory):
        for name in names:
            path = Path(root, name)
            if path.is_file():
                yield path


def test_no_core_is_left(site, peer):
    """A core would hold every request that was in memory."""
    site.configure({"msul1": peer})
    daemon = site.start()
    assert ask(site, b"ping") == b"msul1"
    for pid in {daemon.pid} | children_of(daemon.pid):
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        [line] = [line for line in limits if line.startswith("Max core file size")]
        assert line.split()[4] == "0"
