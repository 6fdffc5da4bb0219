"""`lonc send`: requests from a shell, against a socket whose other side is a script."""

from __future__ import annotations

import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, DEADLINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Run

SECRET = "hunter2"


@pytest.fixture
def received(directory: Path) -> Iterator[list[bytes]]:
    """What arrives at the socket `msul1`; answers the line itself, and `con_lost` to `lose`.

    A line `close` closes, a line `wait` is never answered.
    """
    lines: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "msul1"))
        listener.listen()
        ended = threading.Event()

        def serve() -> None:
            while True:
                client, _ = listener.accept()
                with client, client.makefile("rb") as stream:
                    for line in stream:
                        lines.append(line)
                        if line == b"close\n":
                            break
                        if line == b"wait\n":
                            ended.wait()
                            break
                        client.sendall(b"con_lost\n" if line == b"lose\n" else line)
                if ended.is_set():
                    return

        server = threading.Thread(target=serve)
        server.start()
        yield lines
        ended.set()
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(directory / "msul1"))
        server.join()


def test_a_reply(run: Run, received: list[bytes], directory: Path) -> None:
    done = run("send", "--socket-dir", ".", "msul1", "ping a:b c")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ping a:b c\n", "")
    assert received == [b"ping a:b c\n"]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_options_may_stand_anywhere(run: Run, received: list[bytes], place: int) -> None:
    words = ["msul1", "ping"]
    words[place:place] = ["--socket-dir", "."]
    assert run("send", *words).stdout == "ping\n"


def test_requests_on_standard_input(run: Run, received: list[bytes]) -> None:
    done = run("send", "--socket-dir", ".", "msul1", "-", input="one\n\ntwo \r\nlast")
    assert (done.returncode, done.stderr) == (0, "")
    assert received == [b"one\n", b"\n", b"two \r\n", b"last\n"]
    assert done.stdout.split("\n") == ["one", "", "two ", "last", ""]


def test_no_standard_input(
    environment: dict[str, str], received: list[bytes], directory: Path
) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND, "send", "--socket-dir", ".", "msul1", "-"],
        env=environment,
        cwd=directory,
        capture_output=True,
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert received == []


def test_con_lost(run: Run, received: list[bytes]) -> None:
    done = run("send", "--socket-dir", ".", "msul1", "lose")
    assert (done.returncode, done.stdout) == (3, "con_lost\n")
    assert len(done.stderr.splitlines()) == 1


def test_each_request_has_a_line_and_one_loss_is_told_at_the_end(
    run: Run, received: list[bytes]
) -> None:
    done = run("send", "--socket-dir", ".", "msul1", "-", input="one\nclose\nlose\ntwo\n")
    assert (done.returncode, done.stdout) == (3, "one\ncon_lost\ncon_lost\ntwo\n")
    assert received == [b"one\n", b"close\n", b"lose\n", b"two\n"]


def test_a_reply_that_takes_too_long(run: Run, received: list[bytes]) -> None:
    done = run("send", "--socket-dir", ".", "--timeout", "0.1", "msul1", "wait")
    assert (done.returncode, done.stdout) == (3, "con_lost\n")
    assert "0.1 s" in done.stderr


def test_the_socket_is_found_through_the_configuration(
    run: Run, received: list[bytes], directory: Path, usage_error: Callable[..., str]
) -> None:
    (directory / "lonc.toml").write_text(
        f'own_id = "a"\nsocket_dir = "{directory}"\nhosts.msul1.address = "::1"\n'
    )
    assert run("send", "--config", "lonc.toml", "msul1", "ping").stdout == "ping\n"
    line = usage_error("send", "--config", "lonc.toml", "msul9", SECRET)
    assert line == "lonc: lonc.toml has no host msul9; it has msul1"


def test_no_daemon(run: Run) -> None:
    done = run("send", "--socket-dir", ".", "msul1", SECRET)
    assert (done.returncode, done.stdout) == (1, "")
    assert "msul1: cannot connect: No such file or directory" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["../msul1", SECRET],
        [".msul1", SECRET],
        ["msul1", f"a\n{SECRET}"],
        ["msul1", "auth", f"user:{SECRET}"],
        ["msul1", "auth", "--timeout", "5", f"user:{SECRET}"],
        ["--timeout", "0", "msul1", SECRET],
        ["--timeout", "inf", "msul1", SECRET],
        ["--nonsense", "msul1", f"auth:{SECRET}"],
        ["--config", "none.toml", "msul1", SECRET],
        ["--config", "none.toml", "--socket-dir", ".", "msul1", SECRET],
    ],
)
def test_usage_errors_do_not_show_the_request(
    usage_error: Callable[..., str], arguments: list[str]
) -> None:
    assert SECRET not in usage_error("send", *arguments)


@pytest.mark.parametrize("command", ["lose", "close"])
def test_a_lost_request_is_not_shown(run: Run, received: list[bytes], command: str) -> None:
    done = run("send", "--socket-dir", ".", "msul1", "-", input=f"{SECRET}\n{command}\n")
    assert done.returncode == 3
    assert SECRET not in done.stderr
