"""`lonc serve` between programs that know nothing of lonc: socat, ncat and nc."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import DEADLINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Start

# Answers each line with itself, a process for each connection, and tells its port.
SERVER = ["socat", "-d", "-d", "TCP-LISTEN:0,bind=127.0.0.1,fork", "EXEC:cat"]

# Clients that send their input, half-close, and print what comes back.
CLIENTS = {
    "socat": ["socat", "-t", str(DEADLINE), "-", "UNIX-CONNECT:msul1"],
    "ncat": ["ncat", "-U", "msul1"],
    "nc": ["nc", "-N", "-U", "msul1"],
}


def need(program: str) -> None:
    """Skip the test where this machine does not have a program."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    if program == "nc":
        shown = subprocess.run(["nc", "-h"], capture_output=True, timeout=DEADLINE)
        if b"OpenBSD" not in shown.stdout + shown.stderr:
            pytest.skip("the nc of this machine is another one")


@pytest.fixture
def port() -> Iterator[int]:
    """The TCP port of the server."""
    need("socat")
    server = subprocess.Popen(SERVER, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with server:
        try:
            assert server.stderr
            for line in server.stderr:
                if found := re.search(r"listening on .*127\.0\.0\.1:(\d+)", line):
                    break
            else:
                pytest.fail("socat does not tell its port")
            yield int(found[1])
        finally:
            server.kill()


@pytest.mark.parametrize("client", CLIENTS)
def test_lines_go_there_and_back(
    part: str, start: Start, directory: Path, port: int, client: str
) -> None:
    need(client)
    daemon = start(
        *["serve", "--own-id", "msul2", "--socket-dir", ".", "--host", f"msul1=127.0.0.1:{port}"],
        *["--set", "dialect=line", "--set", "max_connections=3"],
    )
    assert daemon.stderr
    assert "ready" in daemon.stderr.readline()
    # Seven clients at once share three connections.
    clients = [
        subprocess.Popen(
            CLIENTS[client],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(7)
    ]
    lines = [f"client {number}\nand again, {number}\n" for number in range(7)]
    for process, text in zip(clients, lines, strict=True):
        assert process.stdin
        process.stdin.write(text)
        process.stdin.close()
        process.stdin = None
    for process, text in zip(clients, lines, strict=True):
        assert process.communicate(timeout=DEADLINE) == (text, None)
        assert process.returncode == 0
    daemon.terminate()
    assert daemon.wait(DEADLINE) == 0
