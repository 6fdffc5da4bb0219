"""Real processes: the daemon, peers of this project and of others, and clients of all kinds."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

import lonc
from tests.conftest import wait_until

# Far beyond what anything here takes.
DEADLINE = 30.0

LONC = (sys.executable, "-m", "lonc")


class Process:
    """A program, and what it has said so far on standard output and error together."""

    def __init__(self, home, environment, *command):
        self.file = tempfile.TemporaryFile(dir=home, buffering=0)
        self.popen = subprocess.Popen(
            command,
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self.file,
            stderr=self.file,
        )

    @property
    def said(self):
        size = os.fstat(self.file.fileno()).st_size
        return os.pread(self.file.fileno(), size, 0).decode()

    def wait_for(self, pattern):
        """Wait until it has said something that the pattern finds; return the match."""

        def found():
            match = re.search(pattern, self.said)
            assert match or self.popen.poll() is None, f"ended: {self.said}"
            return match

        return wait_until(found, DEADLINE)

    def signal(self, signum):
        self.popen.send_signal(signum)

    def kill(self):
        self.popen.kill()
        self.popen.wait(DEADLINE)

    def end(self):
        """Wait until it has ended; return its status."""
        return self.popen.wait(DEADLINE)

    def close(self):
        self.popen.kill()
        self.popen.wait(DEADLINE)
        self.file.close()


class Site:
    """A directory with a daemon for one host, msul1, and a peer that may go and come back."""

    def __init__(self, home, environment):
        self.home = Path(home)
        self.environment = environment
        self.path = str(self.home / "msul1")
        self.processes = []
        # Bound and never listening, so that the port is the peer's whenever it wants it.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port = self._held.getsockname()[1]

    def start(self, *command):
        process = Process(self.home, self.environment, *command)
        self.processes.append(process)
        return process

    def lond(self, *options):
        """Start `lonc lond`, and wait until it listens."""
        listen = f"127.0.0.1:{self.port}"
        process = self.start(*LONC, "lond", "--listen", listen, "--caller", "msul2", *options)
        process.wait_for("listens on")
        return process

    def serve(self, dialect="versioned", port=None, **settings):
        """Start `lonc serve`, and wait until it is ready."""
        command = [*LONC, "serve", "--own-id", "msul2", "--socket-dir", "."]
        command += ["--host", f"msul1=127.0.0.1:{port or self.port}", "--set", f"dialect={dialect}"]
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        process = self.start(*command)
        process.wait_for("ready")
        return process

    def connect(self):
        """Return a connection of a client; its timeout is for a broken program only."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE)
        try:
            sock.connect(self.path)
        except OSError:
            sock.close()
            raise
        return sock

    def ask(self, line):
        """Return a new client's reply to a line, without LF."""
        with self.connect() as sock:
            sock.sendall(line + b"\n")
            with sock.makefile("rb") as replies:
                reply = replies.readline()
        assert reply.endswith(b"\n")
        return reply[:-1]

    def close(self):
        self._held.close()
        for process in self.processes:
            process.close()


class Traffic:
    """Clients that ask `echo:` with texts of their own, one after another, until they are stopped.

    `replies` counts what came: "right", "con_lost", "closed" (no byte of a reply came), and what
    must never be: "wrong" and "cut".
    """

    def __init__(self, site, clients=8, size=20):
        self._site = site
        self._size = size
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self.replies = dict.fromkeys(("right", "con_lost", "closed", "wrong", "cut"), 0)
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(clients)]
        for thread in self._threads:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()

    def wait_for(self, kind, more=50):
        """Wait until so many more replies of a kind have come."""
        aim = self.replies[kind] + more
        wait_until(lambda: self.replies[kind] >= aim, DEADLINE)

    def stop(self):
        """Let each client have its last reply."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive(), "a client waits for ever"

    def _run(self, number):
        count = 0
        while not self._stopped.is_set():
            try:
                sock = self._site.connect()
            except OSError:
                # The daemon has gone, orderly: so does its socket.
                return
            with sock, sock.makefile("rb") as replies:
                # Some clients are kept, others come anew each time.
                for _ in range(1 if number % 2 else 20):
                    count += 1
                    text = (b"%d.%d." % (number, count)).ljust(self._size, b"x")
                    try:
                        sock.sendall(b"echo:" + text + b"\n")
                        reply = replies.readline()
                    except (BrokenPipeError, ConnectionResetError):
                        reply = b""
                    kind = self._kind(text, reply)
                    with self._lock:
                        self.replies[kind] += 1
                    if kind == "closed" or self._stopped.is_set():
                        break

    @staticmethod
    def _kind(text, reply):
        if not reply:
            return "closed"
        if not reply.endswith(b"\n"):
            return "cut"
        if reply == b"con_lost\n":
            return "con_lost"
        return "right" if reply == text + b"\n" else "wrong"


def need(program):
    """Skip the test where this machine does not have a program."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


@pytest.fixture
def site(part_env):
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    environment |= {"PYTHONPATH": str(Path(lonc.__file__).parents[1]), **part_env}
    with tempfile.TemporaryDirectory(prefix="lonc-") as home:
        site = Site(home, environment)
        try:
            yield site
            for process in site.processes:
                assert "Traceback" not in process.said, process.said
        finally:
            site.close()


TERM, INT, QUIT, STOP, CONT = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGSTOP,
    signal.SIGCONT,
)
