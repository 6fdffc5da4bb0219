"""`lonc demo`: the whole story as a real process, and what it counts as wrong."""

from __future__ import annotations

import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from lonc.cli import load
from lonc.cli.demo import judge, summary
from lonc.wire.cipher import CipherUnavailable, new_cipher
from tests.cli.conftest import DEADLINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Run, Start


def test_the_story(part: str, run: Run, directory: Path) -> None:
    done = run("demo", "--seconds", "4", "--clients", "20", env={"TMPDIR": str(directory)})
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    assert lines[-1] == "Nothing was wrong."
    killed = next(line for line in lines if line.endswith("The peer is killed."))
    assert lines.index(killed) < lines.index(
        next(line for line in lines if line.endswith("The peer is started again."))
    )
    numbers = dict(line.strip().rsplit("  ", 1) for line in lines if "  " in line[:25])
    counts = {name.strip(): value.strip() for name, value in numbers.items()}
    assert int(counts["requests"]) == int(counts["replies"]) + int(counts["con_lost"])
    assert int(counts["con_lost"]) > 0
    assert counts["wrong replies"] == "0"
    assert int(counts["connections used"]) > 1
    assert counts["in use"] == {"compiled": "compiled", "pure": "pure Python"}[part]
    try:
        new_cipher(bytes(16))
    except CipherUnavailable:
        assert lines[0].startswith("No request will be encrypted: ")
        assert counts["of them encrypted"] == "0"
    else:
        assert int(counts["of them encrypted"]) > 0
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(
    part: str, start: Start, directory: Path, signum: signal.Signals
) -> None:
    process = start("demo", "--seconds", "1000", env={"TMPDIR": str(directory)})
    assert process.stdout
    for line in process.stdout:
        if "requests  " in line:
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    process.send_signal(signum)
    process.stdout.read()
    assert process.stderr
    assert process.stderr.read() == ""
    assert process.wait(DEADLINE) == 128 + signal.SIGINT
    assert list(directory.iterdir()) == []
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def seen(**values: object) -> load.Seen:
    """What clients would have seen in a demo that went well, but for these values."""
    good = load.Seen()
    good.requests = 4
    good.latencies = [0.1, 0.2, 0.3]
    good.lost = [11.0]
    good.last = 30.0
    for name, value in values.items():
        assert hasattr(good, name)
        setattr(good, name, value)
    return good


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"wrong": 1, "requests": 5}, "1 replies were not those of the request"),
        ({"forgotten": 1, "requests": 5}, "1 requests were forgotten"),
        # A client that ended before its time.
        ({"requests": 6}, "2 requests were forgotten"),
        ({"lost": [9.9]}, "1 con_lost before the peer was killed"),
        ({"last": 19.9}, "no reply after the peer came back"),
    ],
)
def test_what_counts_as_wrong(values: dict[str, object], problem: str) -> None:
    assert judge(seen(), killed=10.0, back=20.0) == []
    assert judge(seen(**values), killed=10.0, back=20.0) == [problem]


def test_the_table() -> None:
    rows = dict(summary(seen(encrypted=2), seconds=2.0, connections=7))  # type: ignore[arg-type]
    assert rows["requests"] == "4"
    assert rows["  of them encrypted"] == "2"
    assert rows["replies"] == "3"
    assert rows["con_lost"] == "1"
    assert rows["connections used"] == "7"
    assert rows["requests a second"] == "2"
    assert rows["p50 of a reply"] == "200.0 ms"
    assert rows["p99 of a reply"] == "200.0 ms"


@pytest.fixture
def answering(directory: Path) -> Iterator[Callable[[Callable[[bytes], bytes]], str]]:
    """A socket whose other side answers by a function: answering(function) -> path."""
    listener = socket.socket(socket.AF_UNIX)
    threads = []
    path = str(directory / "host")

    def serve(client: socket.socket, answer: Callable[[bytes], bytes]) -> None:
        with client, client.makefile("rb") as stream:
            for line in stream:
                client.sendall(answer(line[:-1]) + b"\n")

    def accept(answer: Callable[[bytes], bytes]) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(client, answer)))
            threads[-1].start()

    def start(answer: Callable[[bytes], bytes]) -> str:
        listener.bind(path)
        listener.listen()
        threads.append(threading.Thread(target=accept, args=(answer,)))
        threads[-1].start()
        return path

    with listener:
        yield start
        listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def as_the_peer_would(line: bytes) -> bytes:
    word, _, rest = line.removeprefix(b"encrypt:").partition(b":")
    if word == b"echo":
        return rest
    size, _, text = rest.partition(b":")
    return (text * int(size))[: int(size)]


def test_clients_know_their_replies(answering: Callable[..., str]) -> None:
    asked: list[bytes] = []

    def answer(line: bytes) -> bytes:
        asked.append(line)
        return as_the_peer_would(line)

    saw = load.run(answering(answer), clients=3, seconds=0.3, encrypt=True)
    assert (saw.wrong, saw.forgotten, saw.lost) == (0, 0, [])
    assert saw.requests == len(saw.latencies) == len(asked) == len(set(asked)) > 30
    assert saw.encrypted == sum(line.startswith(b"encrypt:") for line in asked) > 0
    assert any(b"blob:65536:" in line for line in asked)
    assert saw.last <= time.monotonic()


def test_a_reply_of_another_is_noticed(answering: Callable[..., str]) -> None:
    replies = [b"somebody else's"]

    def answer(line: bytes) -> bytes:
        return replies.pop() if replies else as_the_peer_would(line)

    saw = load.run(answering(answer), clients=2, seconds=0.1, encrypt=False)
    assert saw.wrong == 1
    assert saw.encrypted == 0
    assert saw.requests == len(saw.latencies) + 1


def test_lost_requests_are_counted_with_their_time(answering: Callable[..., str]) -> None:
    before = time.monotonic()
    saw = load.run(answering(lambda line: b"con_lost"), clients=2, seconds=0.1, encrypt=False)
    assert saw.requests == len(saw.lost) > 0
    assert saw.latencies == []
    assert all(before < when < time.monotonic() for when in saw.lost)
