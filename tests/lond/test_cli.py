"""`lonc lond` as a person starts it: a process of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import PATIENCE

Start = Callable[..., subprocess.Popen[str]]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "lonc", "lond", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path]))},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def announced(
    process: subprocess.Popen[str], name: str = "msul1", dialect: str = "versioned"
) -> int:
    """Wait for the line that says where it listens; return the port."""
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(rf"lond {name} listens on 127\.0\.0\.1:(\d+) \({dialect}\)\n", line)
    assert found, line or process.communicate()[1]
    return int(found[1])


def ask(port: int, line: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(line + b"\n")
        with connection.makefile("rb") as answers:
            return answers.readline()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop(start: Start, number: int) -> None:
    process = start("--listen", "127.0.0.1:0")
    port = announced(process)
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(b"init\n")
        assert connection.recv(100).strip().isdigit()
        process.send_signal(number)
        assert connection.recv(1) == b""
        assert process.communicate(timeout=PATIENCE) == ("", "")
    assert process.returncode == 0


def test_what_is_stored_is_there_after_a_restart(start: Start, tmp_path: Path) -> None:
    options = ["--listen", "127.0.0.1:0", "--dialect", "line", "--store", str(tmp_path / "store")]
    first = start(*options)
    assert ask(announced(first, dialect="line"), b"put:a:b:c:d=1") == b"ok\n"
    first.terminate()
    assert first.wait(PATIENCE) == 0
    assert ask(announced(start(*options), dialect="line"), b"get:a:b:c:d") == b"1\n"


def test_every_option(start: Start) -> None:
    process = start(
        *("--listen", "127.0.0.1:0", "--id", "s10", "--also", "s11", "--caller", "s12"),
        *("--dialect", "line", "--revision", "1.300", "--execute-cut-lines"),
        *("--fault", "say,command=ping,count=1,text=no, not now"),
        *("--fault", "close,command=load"),
    )
    port = announced(process, "s10", "line")
    assert ask(port, b"ping") == b"no, not now\n"
    assert ask(port, b"load") == b""
    assert ask(port, b"pong") == b"s10:s12\n"
    assert ask(port, b"version") == b"version:1.300\n"
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(b"ping")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b"s10\n"
    process.terminate()
    _, complaints = process.communicate(timeout=PATIENCE)
    assert re.fullmatch(
        r"lond s10: 127\.0\.0\.1:\d+: ended the stream in the middle of a line, after 4 bytes\n",
        complaints,
    )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--listen", "5663"], "--listen '5663': write HOST:PORT"),
        (["--listen", "localhost:http"], "--listen 'localhost:http': write HOST:PORT"),
        (["--listen", "127.0.0.1:70000"], "--listen '127.0.0.1:70000': write HOST:PORT"),
        (["--listen", "127.0.0.1:" + "9" * 5000], "write HOST:PORT"),
        (["--listen", "192.0.2.1:0"], "cannot listen on 192.0.2.1:0: "),
        (["--listen", "no.such.host.invalid:0"], "cannot listen on no.such.host.invalid:0: "),
        (["--dialect", "keyed"], "no dialect 'keyed'"),
        (["--id", "a/b"], "host id 'a/b'"),
        (["--fault", "explode"], "fault explode: no such kind"),
        (["--fault", "close,step=version", "--dialect", "classic"], "no step 'version'"),
        (["--store", "/nowhere/store"], "cannot open the store /nowhere/store: "),
        (["--colour", "red"], "--colour"),
    ],
)
def test_a_wrong_option_is_one_line(start: Start, options: list[str], problem: str) -> None:
    if "--listen" not in options:
        options = ["--listen", "127.0.0.1:0", *options]
    process = start(*options)
    output, complaint = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (2, "")
    assert problem in complaint
    assert complaint.count("\n") == 1


def test_a_port_in_use(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start("--listen", f"127.0.0.1:{port}")
        _, complaint = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert complaint == f"lonc: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_help_names_every_kind_of_fault(start: Start) -> None:
    from lonc.lond.faults import KINDS, STEPS

    process = start("--help")
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    for word in (*KINDS, *STEPS):
        assert re.search(rf"\b{word}\b", output), word
