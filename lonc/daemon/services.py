"""All hosts in this one process, for containers and small systems.

The same questions are asked of it as of `Processes`, and clients see no difference.
"""

from __future__ import annotations

import os

from lonc.daemon.service import HostService

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from lonc.daemon.log import Log
    from lonc.daemon.settings import Configuration, HostConfig
    from lonc.reactor import Reactor


class Services:
    """The services of all hosts on one reactor."""

    def __init__(self, reactor: Reactor, configuration: Configuration, log: Log) -> None:
        self._reactor = reactor
        self._configuration = configuration
        self._log = log
        self._hosts: dict[str, HostService] = {}
        # Those that drain because another has taken their place, or their host is to go.
        self._leaving: list[HostService] = []
        self._ended: Callable[[], object] | None = None

    def add(self, host: HostConfig, listeners: list[socket.socket]) -> None:
        """Serve one more host, whose sockets stay the caller's."""
        service = HostService(
            self._reactor, self._configuration, host, self._log.about(host.id)
        )
        for listener in listeners:
            service.listen(listener)
        self._hosts[host.id] = service

    def remove(self, host_id: str) -> None:
        """Let the host's service drain, and forget the host."""
        self._leave(self._hosts.pop(host_id))

    def reconfigure(self, configuration: Configuration, hosts: list[HostConfig]) -> None:
        """Give the hosts their new limits, timeouts and log settings."""
        self._configuration = configuration
        self._log.reconfigure(configuration.settings)
        for host in hosts:
            self._hosts[host.id].reconfigure(configuration, host)

    def need(self, host_id: str) -> None:
        """Something waits for the host, which is served already: look at its messages."""
        if host_id in self._hosts:
            self._hosts[host_id].look_at_delayed()

    def revive(self) -> None:
        """A fresh budget for all hosts, and a look at their delayed messages."""
        for service in self._hosts.values():
            service.revive()

    def report(self, done: Callable[[], object]) -> None:
        """Call `done()`: all that `lines` tells is known."""
        done()

    def lines(self) -> list[tuple[int, str, str, str]]:
        """Return pid, host id, status and last log line of each host."""
        return [
            (os.getpid(), host_id, service.status, service.log.last)
            for host_id, service in self._hosts.items()
        ]

    def drain(self, done: Callable[[], object]) -> None:
        """Let all services drain, and call `done()` when they have ended."""
        self._ended = done
        for host_id in list(self._hosts):
            self.remove(host_id)
        self._maybe_ended()

    def stop(self, done: Callable[[], object]) -> None:
        """End everything at once, and call `done()`."""
        for service in self._hosts.values():
            service.stop()
        for service in self._leaving:
            service.stop()
        self._hosts.clear()
        self._leaving.clear()
        done()

    def start_wanted(self) -> None:
        """There is nothing to start."""

    def _leave(self, service: HostService) -> None:
        self._leaving.append(service)

        def drained() -> None:
            self._leaving.remove(service)
            self._maybe_ended()

        service.drain(drained)

    def _maybe_ended(self) -> None:
        if self._ended is not None and not self._leaving and not self._hosts:
            done, self._ended = self._ended, None
            done()
