"""The brokers that are compared, and how each is started."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.workloads import ALL, SMALL_KEPT, Workload

BROKERS = Path(__file__).resolve().parent / "brokers"
ROOT = Path(__file__).resolve().parent.parent
SOCKET = "peer"  # the name of the socket, and of the host that it stands for


@dataclass(frozen=True)
class Launch:
    """How one process is started. ``socket``: where clients connect."""

    command: list[str]
    socket: Path
    environment: dict[str, str] = field(default_factory=dict)
    hosts: int = 0  # so many sockets, their numbers from 0 on after that name; 0: one, no number


@dataclass(frozen=True)
class Contender:
    """A broker.

    ``launch(programs, sockets, port)`` says how it is started between a Unix socket in the
    directory ``sockets`` and the peer's ``port``; ``programs`` has the C programs. ``why_not()`` is
    the reason why it cannot run here, None where it can. ``user``: whom it has to run as.
    """

    name: str
    launch: Callable[..., Launch]
    why_not: Callable[[], str | None]
    workloads: tuple[Workload, ...] = ALL
    protocol: str = "line"
    user: str | None = None


def script(interpreter: str, name: str) -> Callable[..., Launch]:
    """Start one of brokers/."""

    def launch(programs: Path, sockets: Path, port: int) -> Launch:
        socket = sockets / SOCKET
        return Launch([interpreter, str(BROKERS / name), str(socket), str(port)], socket)

    return launch


def runs(*command: str, environment: dict[str, str] | None = None) -> str | None:
    """None if the command succeeds, else the last line of what it complains of."""
    try:
        run = subprocess.run(
            command, env=os.environ | (environment or {}), cwd="/", capture_output=True, text=True
        )
    except OSError as error:
        return str(error)
    if run.returncode == 0:
        return None
    return run.stderr.strip().rpartition("\n")[2] or f"exit status {run.returncode}"


# -- the limit, and those that run on another loop ---------------------------------------------


def _c(programs: Path, sockets: Path, port: int, *, connections: int = 10) -> Launch:
    socket = sockets / SOCKET
    command = [str(programs / "broker"), str(socket), str(port), str(connections)]
    return Launch(command, socket)


C = Contender("C, epoll", _c, lambda: None)
ASYNCIO = Contender("asyncio", script(sys.executable, "asyncio_broker.py"), lambda: None)
UVLOOP = Contender(
    "uvloop",
    script(sys.executable, "uvloop_broker.py"),
    lambda: None if importlib.util.find_spec("uvloop") else "uvloop is not installed",
)
PERL = Contender(
    "Perl's Event",
    script("perl", "event_broker.pl"),
    lambda: runs("perl", "-MEvent", "-e1") and "Perl or its module Event is not installed",
)


# -- lonc --------------------------------------------------------------------------------------


@functools.cache
def lonc_environment(fastpath: str) -> dict[str, str]:
    """For a lonc with that part: the one installed for this interpreter, else this source tree."""
    environment = {"LONC_FASTPATH": fastpath}
    if runs(sys.executable, "-c", "import lonc"):
        environment["PYTHONPATH"] = str(ROOT)
    return environment


def _lonc(name: str, fastpath: str) -> Contender:
    def launch(
        programs: Path, sockets: Path, port: int, *, hosts: int = 0, single: bool = False
    ) -> Launch:
        names = [f"{SOCKET}{number}" for number in range(hosts)] or [SOCKET]
        command = [sys.executable, "-m", "lonc", "serve", "--own-id", "bench"]
        command += ["--socket-dir", str(sockets), "--set", "dialect=line"]
        command += ["--set", "processes=single"] if single or hosts else []
        for host in names:
            command += ["--host", f"{host}=127.0.0.1:{port}"]
        return Launch(command, sockets / SOCKET, lonc_environment(fastpath), hosts)

    def why_not() -> str | None:
        command = (sys.executable, "-m", "lonc", "--version")
        return runs(*command, environment=lonc_environment(fastpath))

    return Contender(name, launch, why_not)


def _embedded(programs: Path, sockets: Path, port: int, *, timers: int) -> Launch:
    socket = sockets / SOCKET
    command = [sys.executable, str(BROKERS / "lonc_timers.py"), str(socket), str(port)]
    return Launch([*command, str(timers)], socket, lonc_environment("require"))


COMPILED = _lonc("lonc, compiled", "require")
PURE = _lonc("lonc, pure Python", "no")
WITH_TIMERS = Contender("lonc, compiled", _embedded, COMPILED.why_not)


# -- PgBouncer ---------------------------------------------------------------------------------

PGBOUNCER_CONFIGURATION = """\
[databases]
bench = host=127.0.0.1 port={port} user=bench dbname=bench
[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {sockets}
auth_type = any
pool_mode = statement
default_pool_size = 10
max_client_conn = 1000
listen_backlog = 4096
server_tls_sslmode = disable
log_connections = 0
log_disconnections = 0
"""


def _pgbouncer(programs: Path, sockets: Path, port: int) -> Launch:
    configuration = sockets / "pgbouncer.ini"
    configuration.write_text(PGBOUNCER_CONFIGURATION.format(port=port, sockets=sockets))
    return Launch([_pgbouncer_program(), str(configuration)], sockets / ".s.PGSQL.6432")


def _pgbouncer_program() -> str:
    return shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin") or "pgbouncer"


PGBOUNCER = Contender(
    "PgBouncer",
    _pgbouncer,
    lambda: runs(_pgbouncer_program(), "--version") and "PgBouncer is not installed",
    SMALL_KEPT,
    protocol="postgres",
    user="nobody" if os.getuid() == 0 else None,  # it refuses to run as root
)

EVERYBODY = (C, COMPILED, PURE, UVLOOP, ASYNCIO, PGBOUNCER, PERL)


def available(wanted: Sequence[Contender]) -> tuple[list[Contender], dict[str, str]]:
    """Those of them that can run here, and by name why the others cannot."""
    reasons = {contender.name: contender.why_not() for contender in wanted}
    return (
        [contender for contender in wanted if reasons[contender.name] is None],
        {name: reason for name, reason in reasons.items() if reason is not None},
    )
