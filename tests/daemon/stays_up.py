"""A daemon under a load of mixed clients, while processes, peers and clients die and it reloads.

    python -m tests.daemon.stays_up --minutes 3

Every request must end: with its own reply, with `con_lost`, or with the connection closed.  And
what the daemon holds, descriptors, processes and memory, must not grow.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

from lonc.lond import Peer
from tests.conftest import wait_until
from tests.daemon.running import HOSTS, Running, descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Whoever has waited so long for an answer has been forgotten. Seconds.
FORGOTTEN = 60.0
CLIENTS = 8
# Of a reply that is longer than this a process that is killed may have written only a part.
SOCKET_HOLDS = 100_000
# A host whose process died more often is left alone until the parent has forgiven it; its pauses
# between restarts would become longer than anybody waits.
DEATHS, FORGIVEN = 3, 62.0
# How much more a process may hold at the end than at the beginning: a host's process keeps some of
# the room that the largest requests needed, and the next ones find it there.
KIB_MORE = 3 * 1024


class StaysUp:
    """One run; `counts` says what happened, `failures` what must not happen."""

    def __init__(self, directory: Path, mode: str, seed: int, env: dict[str, str]) -> None:
        self.random = random.Random(seed)
        self.counts: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self.peers = [Peer(also=HOSTS) for _ in range(2)]
        for peer in self.peers:
            peer.start()
        self.running = Running(
            directory,
            {host: (self.peers[number % 2], {}) for number, host in enumerate(HOSTS)},
            {"processes": mode, "watchdog": 1, "start": "eager"},
            env=env,
        )
        self.running.wait_for("ready in")
        self._mode = mode
        self._ended = threading.Event()
        self._killed: dict[str, list[float]] = {host: [] for host in HOSTS}

    def run(self, seconds: float) -> None:
        """Do everything for some time, then stop and look what is left."""
        before = self.warm()
        threads = [
            threading.Thread(target=self._be_client, args=(self.random.random(),), daemon=True)
            for _ in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.failures:
            self.trouble()
            self._ended.wait(self.random.uniform(0.05, 0.5))
        self._ended.set()
        for thread in threads:
            thread.join(FORGOTTEN)
            if thread.is_alive():
                self.failures.append("a client waits for ever")
        for host in HOSTS:
            self.running.hosts.setdefault(host, (self.peers[0], {}))
        self.running.write()
        self.running.send(signal.SIGHUP)
        after = self.warm()
        self.compare(before, after)

    def warm(self) -> dict[str, int]:
        """Have every host serve a request from a process that is well; return what is held."""
        for host in self.running.hosts:
            wait_until(lambda host=host: self.request(host, b"echo:1") == b"1\n", FORGOTTEN)
        held = {"processes": len(self.processes()), "parent's descriptors": self.settled()}
        held["KiB of the parent"] = private(self.running.pid)
        held["KiB of the largest child"] = max(map(private, self.processes()[1:]), default=0)
        return held

    def processes(self) -> list[int]:
        """The parent and its children."""
        return [self.running.pid, *self.running.children()]

    def settled(self) -> int:
        """The parent's descriptors, when nothing is going on any more."""
        counts: collections.deque[int] = collections.deque(maxlen=20)

        def same() -> bool:
            counts.append(len(descriptors(self.running.pid)))
            return len(counts) == 20 and len(set(counts)) == 1

        wait_until(same, FORGOTTEN)
        return counts[-1]

    def compare(self, before: dict[str, int], after: dict[str, int]) -> None:
        """Note what has grown."""
        # In one process for all, what is otherwise the children's is the parent's.
        hosts = len(HOSTS) if self._mode == "single" else 0
        allowed = {
            "KiB of the parent": KIB_MORE * max(1, hosts),
            "KiB of the largest child": KIB_MORE,
            "parent's descriptors": 10 * hosts,
        }
        for what, count in before.items():
            if after[what] > count + allowed.get(what, 0):
                self.failures.append(f"{what}: {count} before, {after[what]} after")
            self.counts[f"{what} before"] = count
            self.counts[f"{what} after"] = after[what]

    # What goes wrong

    def trouble(self) -> None:
        """One thing that goes wrong, or changes."""
        what = self.random.choice(
            [self.kill, self.stop_process, self.end_process, self.lose, self.restart, self.reload]
        )
        what()
        if what.__name__ not in ("kill", "stop_process", "end_process"):
            self.counts[what.__name__] += 1

    def kill(self) -> None:
        """A process dies."""
        self.send(signal.SIGKILL)

    def stop_process(self) -> None:
        """A process hangs."""
        self.send(signal.SIGSTOP)

    def end_process(self) -> None:
        """A process is told to end."""
        self.send(signal.SIGTERM)

    def send(self, signum: int) -> None:
        """Send a signal to the process of a host, unless that has suffered enough."""
        host = self.random.choice(HOSTS)
        pids = self.running.serving(host)
        now = time.monotonic()
        deaths = self._killed[host]
        if deaths and now - deaths[-1] > FORGIVEN:
            deaths.clear()
        if not pids or len(deaths) >= DEATHS:
            return
        if signum != signal.SIGTERM:
            deaths.append(now)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[0], signum)
            self.counts[f"children sent {signal.Signals(signum).name}"] += 1

    def lose(self) -> None:
        """All connections to a peer are lost."""
        self.random.choice(self.peers).disconnect()

    def restart(self) -> None:
        """A peer is away for a moment."""
        peer = self.random.choice(self.peers)
        peer.stop()
        peer.start()

    def reload(self) -> None:
        """The configuration changes: a limit, a host that comes or goes, one that moves."""
        running = self.running
        host = self.random.choice(HOSTS[1:])
        if host in running.hosts and self.random.random() < 0.5:
            del running.hosts[host]
        else:
            limits = {"max_connections": self.random.randint(1, 10)}
            running.hosts[host] = self.random.choice(self.peers), limits
        running.write()
        running.send(self.random.choice([signal.SIGHUP, signal.SIGUSR2, signal.SIGUSR1]))

    # Clients

    def _be_client(self, seed: float) -> None:
        chance = random.Random(seed)
        kinds: list[Callable[[random.Random, str], None]] = [
            self.worker, self.worker, self.big, self.leaver, self.pair, self.half,
        ]
        while not self._ended.is_set():
            host = chance.choice(HOSTS)
            try:
                chance.choice(kinds)(chance, host)
            except TimeoutError:
                self.failures.append(f"no answer from {host}, and no close, in {FORGOTTEN:g} s")
            except (FileNotFoundError, ConnectionError):
                self.counts["clients turned away"] += 1

    def worker(self, chance: random.Random, host: str) -> None:
        """Requests one after another on one connection."""
        with self.connected(host) as client:
            for _ in range(chance.randint(1, 200)):
                word = b"%d" % chance.getrandbits(60)
                if not self.judge(self.exchange(client, b"echo:" + word), word):
                    return

    def big(self, chance: random.Random, host: str) -> None:
        """One large request."""
        word = b"x" * chance.randint(1, 300_000)
        began = time.monotonic()
        with self.connected(host) as client:
            answer = self.exchange(client, b"echo:" + word)
        if len(answer) > SOCKET_HOLDS and word.startswith(answer) and self.killed_since(began):
            self.counts["cut by a kill"] += 1
        else:
            self.judge(answer, word)

    def killed_since(self, began: float) -> bool:
        """Whether a process was killed, or stopped and then replaced, in the time of a request."""
        return any(began - FORGOTTEN < when for deaths in self._killed.values() for when in deaths)

    def leaver(self, chance: random.Random, host: str) -> None:
        """A client that dies while it waits."""
        with self.connected(host) as client:
            client.sendall(b"echo:nobody reads this\n" * chance.randint(1, 5))
        self.counts["clients that died"] += 1

    def half(self, chance: random.Random, host: str) -> None:
        """A client that dies in the middle of a line."""
        with self.connected(host) as client:
            client.sendall(b"echo:not a whole li")
        self.counts["clients that died"] += 1

    def pair(self, chance: random.Random, host: str) -> None:
        """Two lines in one write."""
        with self.connected(host) as client:
            client.sendall(b"echo:first\necho:second\n")
            for answer in lines(client, 2).splitlines(keepends=True):
                self.judge(answer, b"first" if answer.startswith(b"f") else b"second")

    def request(self, host: str, command: bytes) -> bytes:
        """One request; nothing for a connection that was closed, or could not be made."""
        try:
            with self.connected(host) as client:
                return self.exchange(client, command)
        except (FileNotFoundError, ConnectionError):
            return b""

    def connected(self, host: str) -> socket.socket:
        """A client of a host."""
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(FORGOTTEN)
        try:
            client.connect(str(self.running.directory / host))
        except BaseException:
            client.close()
            raise
        return client

    def exchange(self, client: socket.socket, command: bytes) -> bytes:
        """Send one request; return the line that comes, or what came before the end."""
        client.sendall(command + b"\n")
        return lines(client, 1)

    def judge(self, answer: bytes, word: bytes) -> bool:
        """Count what a client got; return whether its connection is as good as before."""
        if answer == word + b"\n":
            self.counts["replies"] += 1
            return True
        if answer not in (b"con_lost\n", b""):
            self.failures.append(f"a wrong answer of {len(answer)} bytes: {answer[:20]!r}")
        self.counts["con_lost" if answer else "closed"] += 1
        return answer != b""

    def close(self) -> int:
        """End the daemon; return its exit status."""
        try:
            return self.running.end()
        finally:
            self.running.kill()
            for peer in self.peers:
                peer.close()


def lines(client: socket.socket, count: int) -> bytes:
    """So many lines, or what came before the end."""
    received = b""
    while received.count(b"\n") < count:
        try:
            data = client.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            return received
        received += data
    return received


def private(pid: int) -> int:
    """The memory that only this process has (USS), in KiB."""
    return memory(pid)["Private_Clean"] + memory(pid)["Private_Dirty"]


def memory(pid: int) -> dict[str, int]:
    """What the kernel says of the memory of a process, in KiB."""
    rows = [row.split() for row in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return {row[0].rstrip(":"): int(row[1]) for row in rows if row[-1] == "kB"}


def main() -> int:
    """Run it as long as asked, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--mode", choices=("per-host", "single"), default="per-host")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    print(f"seed {args.seed}, {args.mode}, {args.minutes:g} minutes")
    with tempfile.TemporaryDirectory(prefix="lonc-") as directory:
        world = StaysUp(Path(directory), args.mode, args.seed, {})
        try:
            world.run(args.minutes * 60)
        finally:
            status = world.close()
    for what, count in sorted(world.counts.items()):
        print(f"{count:10} {what}")
    texts = [row.partition("CRITICAL: ")[2].strip() for row in world.running.log]
    for text, count in collections.Counter(re.sub(r"\d+", "N", text) for text in texts).items():
        if text:
            print(f"{count:10} times CRITICAL: {text}")
    for failure in world.failures:
        print(f"FAILED: {failure}")
    return 1 if world.failures or status else 0


if __name__ == "__main__":
    sys.exit(main())
