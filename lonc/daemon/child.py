"""The process of one host: a service, the signals, and the channel to the parent.

Between the two go these messages (see `Channel`)::

    parent: ping(number)                      child: pong(number)
    parent: settings(daemon's, host's)
    parent: revive()     a fresh budget, and a look at the delayed messages
    parent: report()                          child: report(status, last log line, health, numbers)
    parent: drain()                           and whenever its status changes
                                              child: show()  write the status file
"""

from __future__ import annotations

import faulthandler
import signal

from lonc.daemon.channel import Channel
from lonc.daemon.service import HostService, tracer
from lonc.daemon.titles import set_title
from lonc.reactor import Reactor

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from lonc.daemon.log import Log
    from lonc.daemon.settings import Configuration, HostConfig
    from lonc.reactor import Event

# How often a process looks whether it is still needed, as a share of `child_idle`.
LOOKS = 4


class Child:
    """Serves one host until the parent, a signal, or a lack of work ends it.

    listeners  the host's listening sockets
    channel    this end of the socket pair to the parent
    health     how an earlier process of the host left it (`Health.snapshot`), or None
    """

    def __init__(
        self,
        configuration: Configuration,
        host: HostConfig,
        listeners: list[socket.socket],
        channel: socket.socket,
        health: tuple[str, int, int, float] | None,
        log: Log,
    ) -> None:
        self._configuration = configuration
        self._log = log
        self._reactor = Reactor()
        self._reactor.died = tracer(log)
        for signum, handler in (
            (signal.SIGTERM, self._asked_to_end),
            (signal.SIGQUIT, self._stop),
            (signal.SIGINT, self._toggle_debug),
            (signal.SIGHUP, self._revive),
            (signal.SIGUSR1, self._show),
        ):
            self._reactor.signal(signum, handler)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        # The parent aborts a process that hangs: then the log shows where.
        faulthandler.enable(log.fileno())
        self._draining = False
        self._quiet_since: float | None = None
        self._channel = Channel(self._reactor, channel, self._told, self._parent_gone)
        self._service = HostService(self._reactor, configuration, host, log, self._report)
        if health is not None:
            self._service.broker.resume(health)
        for listener in listeners:
            self._service.listen(listener)
        self._looks = self._reactor.timer(self._look, interval=self._idle_time / LOOKS)
        self._report()

    def run(self) -> int:
        """Serve; return the exit status."""
        self._reactor.run()
        self._log.flush()
        self._report()
        self._channel.close()
        # The reactor keeps its handlers: a second signal must not make this another kind of end.
        return 0

    @property
    def _idle_time(self) -> float:
        return self._configuration.settings.child_idle

    def _told(self, word: str, *values: Any) -> None:
        if word == "ping":
            self._channel.send("pong", *values)
        elif word == "settings":
            self._reconfigure(*values)
        elif word == "revive":
            self._service.revive()
        elif word == "report":
            self._report()
        elif word == "drain":
            self._drain()

    def _reconfigure(self, for_all: dict[str, Any], for_host: dict[str, Any]) -> None:
        settings = self._configuration.settings.restored(for_all)
        self._configuration = self._configuration._replace(settings=settings)
        host = self._service.host
        host = host._replace(settings=host.settings.restored(for_host))
        self._service.reconfigure(self._configuration, host)
        self._looks.interval = self._idle_time / LOOKS
        self._looks.again()

    def _report(self) -> None:
        service = self._service
        set_title(service.status)
        self._channel.send(
            "report",
            service.status,
            self._log.last,
            service.broker.health.snapshot(),
            service.stats(),
        )

    def _parent_gone(self) -> None:
        self._log.log("WARNING", "the parent is gone: finishing what is in flight")
        self._drain()

    def _asked_to_end(self, event: Event) -> None:
        self._log.log("INFO", "ending: finishing what is in flight")
        self._drain()

    def _drain(self) -> None:
        if not self._draining:
            self._draining = True
            self._service.drain(self._reactor.unloop)

    def _stop(self, event: Event) -> None:
        self._draining = True
        self._service.stop()
        self._reactor.unloop()

    def _toggle_debug(self, event: Event) -> None:
        self._log.toggle_debug()

    def _revive(self, event: Event) -> None:
        self._service.revive()
        self._report()

    def _show(self, event: Event) -> None:
        self._revive(event)
        self._channel.send("show")

    def _look(self, event: Event) -> None:
        """End when there has been nothing to do for `child_idle`."""
        now = self._reactor.now
        if not self._service.is_quiet:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        elif now - self._quiet_since >= self._idle_time:
            self._log.log("INFO", "nothing to do: ending until a client comes")
            self._drain()
