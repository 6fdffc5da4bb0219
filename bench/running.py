"""A broker that runs, and what is measured of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bench.contenders import Launch
from bench.workloads import Workload

if TYPE_CHECKING:
    from bench.harness import Bench

START_LIMIT = 20.0  # seconds for a broker to answer its first request
END_LIMIT = 60  # more seconds than asked for, and the load generator is stopped
SAMPLED_ENOUGH = 0.1  # seconds of CPU time that tell a share in user mode
REQUEST = b"00000000 32 0 \n"  # for the peer, see c/common.h: 32 bytes, at once


class Failure(Exception):
    """A measurement that did not come about; the text says why."""


class Running:
    """A broker's process, with all below it."""

    def __init__(
        self,
        bench: Bench,
        process: subprocess.Popen[str],
        protocol: str,
        launch: Launch,
        log: IO[str],
    ) -> None:
        self._bench = bench
        self._process = process
        self._first = Path(f"{launch.socket}0") if launch.hosts else launch.socket
        self._log = log
        self._common = ["-s", str(launch.socket), "-H", str(launch.hosts)]
        self._common += ["-y"] * bench.shared + ["-P"] * (protocol == "postgres")

    def pids(self) -> list[int]:
        """The process that was started and all below it."""
        children: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as stat:
                    parent = int(stat.read().rpartition(")")[2].split()[1])
                    children.setdefault(parent, []).append(int(entry))
        found = [self._process.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def resident(self) -> int:
        """Bytes of memory that the processes have resident, shared pages counted in each."""
        total = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/status") as status:
                total += sum(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
        return total << 10

    # -- start-up --------------------------------------------------------------------------------

    def _until_started(self, attempt: Callable[[], bool], pause: float) -> None:
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._first.exists() and attempt():
                return
            time.sleep(pause)
        raise self._failure("the broker did not start")

    def wait_for_reply(self) -> None:
        """Return when a request of the load generator was answered."""
        command = self._load_command("-t", "0", "-w", "0")
        output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

        def answered() -> bool:
            with self._loading(command, 0, **output) as process:
                return process.wait() == 0

        self._until_started(answered, 0.005)

    def first_reply(self) -> float:
        """Wait for the first reply to a line; return when it came, on the monotonic clock."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(START_LIMIT)

            def connected() -> bool:
                with contextlib.suppress(ConnectionRefusedError):
                    client.connect(str(self._first))
                    return True
                return False

            self._until_started(connected, 0.0005)
            client.sendall(REQUEST)
            if client.recv(64)[-1:] != b"\n":
                raise self._failure("no whole reply")
            return time.monotonic()

    # -- under load ------------------------------------------------------------------------------

    def load(self, workload: Workload, seconds: float) -> dict[str, Any]:
        """One loaded phase: the load generator's figures (see c/load.c) and what follows from them.

        ``cpu_us``: CPU time of the broker's processes a request. ``user_share``: the part of it in
        user mode, as sampled by the kernel; None where too little was sampled. ``rate``: requests
        a second. ``busy``: CPU time over wall-clock time.
        """
        pids = [option for pid in self.pids() for option in ("-p", str(pid))]
        times = ("-t", str(seconds), "-w", str(min(seconds / 4, 0.25)))
        command = self._load_command(*workload.options(), *times, *pids)
        with self._loading(command, seconds) as process:
            result = self._result(process)
        sampled = result["user"] + result["system"]
        return result | {
            "cpu_us": result["cpu"] / result["requests"] * 1e6,
            "user_share": result["user"] / sampled if sampled >= SAMPLED_ENOUGH else None,
            "rate": result["requests"] / result["seconds"],
            "busy": result["cpu"] / result["seconds"],
        }

    @contextlib.contextmanager
    def gated(
        self, workload: Workload, seconds: float
    ) -> Iterator[Callable[[], dict[str, float]]]:
        """A loaded phase that begins when the function that this gives is called.

        All clients are connected, and those that ask have had replies, when the body begins; they
        stay connected until it ends.
        """
        times = ("-t", str(seconds), "-w", "0.05", "-g")
        command = self._load_command(*workload.options(), *times)
        with self._loading(command, seconds, stdin=subprocess.PIPE) as process:
            if process.stdout.readline() != "ready\n":
                raise self._failure(process.stderr.read())

            def go() -> dict[str, float]:
                process.stdin.write("\n")
                process.stdin.flush()
                return self._result(process)

            yield go

    def count_calls(self, workload: Workload, seconds: float) -> float:
        """System calls a request in a loaded phase, counted by strace.

        Under strace the broker is so slow that work is always waiting for it, so this is the count
        of a broker that is kept busy.
        """
        table = self._bench.directory / "calls"
        pids = self.pids()
        command = ["strace", "-f", "-c", "-U", "name,calls", "-o", str(table)]
        command += [option for pid in pids for option in ("-p", str(pid))]
        with self.gated(workload, seconds) as go, self._bench.started(
            command, "load", stderr=subprocess.PIPE
        ) as tracer:
            for _ in pids:
                line = tracer.stderr.readline()
                if "attached" not in line:
                    raise Failure(line.strip() or "strace ended at once")
            requests = go()["requests"]
            time.sleep(0.1)  # the ends of the last connections belong to it
            tracer.send_signal(signal.SIGINT)
            tracer.communicate()
        with open(table) as lines:
            total = next(line for line in lines if line.startswith("total"))
        return int(total.split()[1]) / requests

    def _load_command(self, *options: str) -> list[str]:
        return [str(self._bench.directory / "load"), *self._common, *options]

    @contextlib.contextmanager
    def _loading(self, command: list[str], seconds: float, **streams: Any) -> Iterator[Any]:
        """The load generator. It ends by itself; an alarm sees to it where it does not."""
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
        with self._bench.started(command, "load", **streams) as process:
            signal.signal(signal.SIGALRM, lambda *_: process.kill())
            signal.alarm(int(seconds) + END_LIMIT)
            try:
                yield process
            finally:
                signal.alarm(0)

    def _result(self, process: subprocess.Popen[str]) -> dict[str, float]:
        assert process.stdout and process.stderr
        line = process.stdout.readline()
        if not line:
            raise self._failure(process.stderr.read())
        result: dict[str, float] = json.loads(line)
        return result

    def _failure(self, complaint: str) -> Failure:
        self._log.seek(0)
        said = self._log.read()[-500:].strip()
        return Failure("; ".join(filter(None, [complaint.strip(), said])))
