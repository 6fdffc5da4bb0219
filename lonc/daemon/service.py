"""One host in the process that serves it: its broker, its delayed messages, what is said of it."""

from __future__ import annotations

from lonc.broker.broker import Broker
from lonc.broker.health import DEAD
from lonc.broker.host import Host
from lonc.daemon.courier import Courier
from lonc.delayed import Delivery, Directory, PermanentLog

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

    from lonc.daemon.log import Log
    from lonc.daemon.settings import Configuration, HostConfig
    from lonc.reactor import Event, Reactor

# Changes that follow each other within so many seconds are told as one.
SETTLE = 0.1


class HostService:
    """Serves one host on a reactor.

    configuration   the daemon's, for what concerns all hosts
    host            which host, and its settings
    log             where lines about this host go; it shows the host's status with them
    changed         called, from the loop, after `status` or the broker's health has changed
    """

    def __init__(
        self,
        reactor: Reactor,
        configuration: Configuration,
        host: HostConfig,
        log: Log,
        changed: Callable[[], object] = lambda: None,
    ) -> None:
        self.host = host
        self.log = log
        self._configuration = configuration
        self._tell = changed
        log.status = f"Connected to {host.id}"
        # It may have been made for an earlier line, with the settings of that time.
        log.reconfigure(configuration.settings)
        self._told: tuple[object, ...] | None = None
        self._timer = reactor.timer(self._changed, after=0, start=False, desc="status")
        self.broker = Broker(
            reactor,
            Host(host.id, host.address, host.port, host.settings.dialect, configuration.own_id),
            host.settings,
            log=log,
            changed=self._changes,
        )
        self.couriers = self._new_couriers()

    @property
    def status(self) -> str:
        """What process titles, log lines and the status file say of the host."""
        broker = self.broker
        if broker.health.state == DEAD:
            return f"{self.host.id} >>> DEAD !!!! <<<"
        if not broker.exchange.links and not broker.exchange.replies:
            return f"Connected to {self.host.id}"
        return (
            f"{self.host.id} Connection count: {broker.exchange.usable}"
            f" Retries remaining: {broker.health.retries} ({broker.key_mode or 'insecure'})"
        )

    @property
    def is_quiet(self) -> bool:
        """Whether nothing would be lost if this process ended now."""
        exchange = self.broker.exchange
        return not (
            exchange.clients
            or exchange.links
            or exchange.attempts
            or exchange.outstanding
            or self.broker.health.state == DEAD
            or self.broker.waiting_elsewhere
        )

    def listen(self, sock: socket.socket) -> None:
        """Serve the clients of a listening socket, which stays the caller's."""
        self.broker.listen(sock)

    def revive(self) -> None:
        """Give the host a fresh budget, and look at its delayed messages."""
        self.broker.revive()
        self.look_at_delayed()

    def look_at_delayed(self) -> None:
        """Look through the delayed directory now."""
        for courier in self.couriers:
            courier.look()

    def reconfigure(self, configuration: Configuration, host: HostConfig) -> None:
        """Take over limits, timeouts and log settings; connections and requests stay."""
        self._configuration = configuration
        self.host = host
        self.broker.reconfigure(host.settings)
        for courier in self.couriers:
            delivery = courier.delivery
            delivery.settings = configuration.settings
            delivery.max_request = host.settings.max_request
            # The one that is there knows whether its file ends in the middle of a line.
            if delivery.permanent_log.path != configuration.settings.perm_log:
                delivery.permanent_log = PermanentLog(configuration.settings.perm_log)
        self.log.reconfigure(configuration.settings)

    def drain(self, done: Callable[[], object]) -> None:
        """Finish what is in flight, then close everything and call `done()`, from the loop."""
        for courier in self.couriers:
            courier.drain()
        self.broker.drain(done)

    def stop(self) -> None:
        """Close everything now; clients that wait get `con_lost`."""
        self._close_couriers()
        self._timer.cancel()
        self.broker.stop()

    def stats(self) -> dict[str, Any]:
        """Return the broker's numbers, and what waits in the delayed directory."""
        waiting = sum(courier.delivery.waiting for courier in self.couriers)
        return {**self.broker.stats(), "delayed": waiting, "status": self.status}

    def _new_couriers(self) -> list[Courier]:
        """Return one for each id that the host answers for: each has messages of its own."""
        settings = self._configuration.settings
        if not settings.delayed_dir:
            return []
        return [
            Courier(
                self.broker,
                Delivery(
                    host_id,
                    self.broker.dialect,
                    Directory(settings.delayed_dir),
                    PermanentLog(settings.perm_log),
                    settings,
                    self.log,
                    max_request=self.host.settings.max_request,
                ),
            )
            for host_id in self.host.ids
        ]

    def _close_couriers(self) -> None:
        for courier in self.couriers:
            courier.close()
        self.couriers = []

    def _changes(self) -> None:
        if not self._timer.is_active and not self.broker.is_closed:
            self._timer.at = self.broker.reactor.poller.now + SETTLE
            self._timer.start()

    def _changed(self, event: Event) -> None:
        was, self.log.status = self.log.status, self.status
        told = self.status, self.broker.health.snapshot()
        if told != self._told:
            self._told = told
            self._tell()
        if "Connection count" in self.log.status and "Connection count" not in was:
            self.look_at_delayed()


def tracer(log: Log) -> Callable[[Event | None, Exception], None]:
    """Return a `Reactor.died` that tells a log, and nothing of what the exception says."""

    def died(event: Event | None, error: Exception) -> None:
        what = "a handler" if event is None else event.watcher.desc
        log.trace(f"an error in {what}", error)

    return died
