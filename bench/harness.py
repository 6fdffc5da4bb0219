"""The C programs, the processors, and processes that never outlive the bench."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from bench.contenders import Contender
from bench.running import Failure, Running

SOURCES = Path(__file__).resolve().parent / "c"
PROGRAMS = ("broker", "load", "peer")
STOP_LIMIT = 5.0  # seconds for a process to end by itself
PR_SET_PDEATHSIG = 1
WANTED_DESCRIPTORS = 65536


class Bench:
    """Programs, processors and processes of one run, all within one temporary directory.

    On two processors the broker has the first; load generator and peer share the second, and give
    it to each other when they have nothing to do. With three or more each has one of its own.
    Whatever was started is ended when the body of ``with`` is left.
    """

    def __enter__(self) -> Bench:
        with contextlib.ExitStack() as stack:
            signal.signal(signal.SIGTERM, _exit)
            self._libc = ctypes.CDLL(None)
            self._processes: list[subprocess.Popen[str]] = []
            self.directory = Path(tempfile.mkdtemp(prefix="lonc-bench-"))
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            stack.callback(self._stop_all)
            self.directory.chmod(0o755)  # a broker may run as somebody else
            cores = sorted(os.sched_getaffinity(0))
            if len(cores) < 2:
                raise Failure("the bench needs two processors, one for the broker alone")
            self.cores = {"broker": cores[0], "load": cores[1], "peer": cores[:3][-1]}
            self.shared = len(cores) == 2
            self.core_count = len(cores)
            # This process looks at what it has started, and must not take the broker's time for it.
            stack.callback(os.sched_setaffinity, 0, cores)
            os.sched_setaffinity(0, cores[1:])
            self.descriptors = _raise_descriptors()
            # Compiled once, wherever the sources are, as it is where a program is installed.
            self._environment = dict(os.environ)
            self._environment["PYTHONPYCACHEPREFIX"] = str(self.directory / "pycache")
            self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
            self._build()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _build(self) -> None:
        compiler = os.environ.get("CC", "cc").split()
        for name in PROGRAMS:
            source, program = SOURCES / f"{name}.c", self.directory / name
            try:
                subprocess.run([*compiler, "-O2", "-o", program, source], check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                raise Failure(f"cannot build {source}: {error}") from None

    def about(self) -> dict[str, Any]:
        """The machine, for whoever reads the figures."""
        with open("/proc/cpuinfo") as info:
            models = [line.partition(":")[2].strip() for line in info if "model name" in line]
        return {
            "processor": models[0] if models else platform.machine(),
            "cores": self.core_count,
            "kernel": platform.release(),
            "python": platform.python_version(),
            "load average before": round(os.getloadavg()[0], 1),
            "placement": "the broker alone on a core, load generator and peer "
            + ("together on another" if self.shared else "each on one of its own"),
        }

    # -- processes -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def started(
        self,
        command: Sequence[str],
        core: str,
        *,
        environment: dict[str, str] | None = None,
        user: str | None = None,
        **streams: Any,
    ) -> Iterator[Any]:
        """A process on the core of "broker", "load" or "peer"; ended with all that it started."""

        def prepare() -> None:
            os.sched_setaffinity(0, {self.cores[core]})
            self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

        process: subprocess.Popen[str] = subprocess.Popen(
            command,
            env=self._environment | (environment or {}),
            user=user,
            extra_groups=[] if user else None,
            cwd=self.directory,
            preexec_fn=prepare,
            start_new_session=True,
            text=True,
            **streams,
        )
        self._processes.append(process)
        try:
            yield process
        finally:
            self._stop(process)

    def _stop(self, process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_LIMIT)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()
        self._processes.remove(process)

    def _stop_all(self) -> None:
        for process in self._processes[::-1]:
            self._stop(process)

    @contextlib.contextmanager
    def peer(self, protocol: str) -> Iterator[int]:
        """The service behind the broker; gives its port."""
        options = ["-y"] * self.shared + ["-P"] * (protocol == "postgres")
        command = [str(self.directory / "peer"), *options]
        with self.started(command, "peer", stdout=subprocess.PIPE) as process:
            yield int(process.stdout.readline().split()[1])

    @contextlib.contextmanager
    def launched(self, contender: Contender, port: int, **settings: Any) -> Iterator[Running]:
        """A broker that has just been started, with the peer at ``port`` behind it.

        ``settings`` go to the contender's ``launch``.
        """
        with contextlib.ExitStack() as stack:
            directory = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="s", dir=self.directory))
            )
            if contender.user:
                shutil.chown(directory, contender.user)
            launch = contender.launch(self.directory, directory, port, **settings)
            log = stack.enter_context(open(directory / "log", "w+"))
            process = stack.enter_context(
                self.started(
                    launch.command,
                    "broker",
                    environment=launch.environment,
                    user=contender.user,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )
            yield Running(self, process, contender.protocol, launch, log)

    @contextlib.contextmanager
    def broker(self, contender: Contender, **settings: Any) -> Iterator[Running]:
        """A broker with a peer behind it, once it has answered a request."""
        with self.peer(contender.protocol) as port:
            with self.launched(contender, port, **settings) as running:
                running.wait_for_reply()
                yield running


def _exit(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def _raise_descriptors() -> int:
    """The limit for us and for what we start, raised as far as we may."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for wanted in (max(hard, WANTED_DESCRIPTORS), hard):
        with contextlib.suppress(ValueError, PermissionError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
