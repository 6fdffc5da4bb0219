"""What is asked of a broker."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """Clients in a closed loop: each asks, takes the whole reply, and asks again.

    Sizes are bytes of a line with its line feed; ``delay`` is how long the peer takes, in
    microseconds.
    """

    name: str
    clients: int = 10
    each_new: bool = False  # a connection for each request
    silent: int = 0  # clients connected beside them that say nothing
    request: int = 32
    reply: int = 32
    delay: int = 0

    def options(self) -> list[str]:
        """The load generator's options."""
        options = ["-c", self.clients, "-i", self.silent, "-q", self.request, "-r", self.reply]
        options += ["-l", self.delay, *(["-n"] if self.each_new else [])]
        return [str(option) for option in options]


KEPT_10 = Workload("10 kept clients")
KEPT_200 = Workload("200 kept clients", clients=200)
NEW_50 = Workload("50 clients, new connections", clients=50, each_new=True)
REPLY_64K = Workload("64 KiB replies", reply=64 << 10)
BOTH_1K = Workload("1 KiB both ways", request=1 << 10, reply=1 << 10)
SILENT_2000 = Workload("2000 silent beside 10 busy", silent=2000)
SLOW_PEER = Workload("a peer that takes 2 ms", clients=50, delay=2000)
REPLY_1M = Workload("1 MiB replies", reply=1 << 20)

ALL = (KEPT_10, KEPT_200, NEW_50, REPLY_64K, BOTH_1K, SILENT_2000, SLOW_PEER, REPLY_1M)
SMALL_KEPT = (KEPT_10, KEPT_200)
