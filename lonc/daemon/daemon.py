"""The daemon: its configuration, its sockets, its signals, and the hosts it serves.

How the hosts are served, in a process each or all in this one, is the business of `Processes` and
`Services`; both are asked the same.
"""

from __future__ import annotations

import gc
import resource
import signal

from lonc.broker.broker import MANY_DESCRIPTORS, SPARE_DESCRIPTORS
from lonc.broker.table import RESTART, SUCCESSOR
from lonc.daemon.instance import PidFile, pid_file_path
from lonc.daemon.log import Log
from lonc.daemon.privileges import drop_root, forbid_core_dumps, is_root
from lonc.daemon.processes import HANDLED, LAST_BREATH, Processes
from lonc.daemon.service import tracer
from lonc.daemon.services import Services
from lonc.daemon.status_file import write_status_file
from lonc.daemon.systemd import Notifier, Unclaimed, passed_sockets
from lonc.daemon.titles import load_titles, set_title
from lonc.delayed import Directory
from lonc.errors import LoncError, UsageError
from lonc.net.listening import (
    UnixListener,
    check_directory,
    is_in_place,
    open_unix_listener,
    remove_unix_listener,
)
from lonc.reactor import Reactor

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from typing import Any

    from lonc.daemon.settings import Configuration, HostConfig
    from lonc.reactor import Event

# What each host needs beside its clients and peers: its listener, and a lookup of its name.
HOST_DESCRIPTORS = 4
# What the titles and the log say of the parent.
PARENT_STATUS = "Parent keeping the flock"


def serve(load: Callable[[], Configuration], ready: Callable[[], object] = lambda: None) -> int:
    """Serve until a signal ends it, and return the exit status.

    load    reads the configuration, now and at each reload; raises UsageError if it cannot
    ready   called when all sockets listen and the pid file is written

    Returns 0 after an orderly end.  Raises AnotherInstance, or UsageError where the configuration
    or the system does not let it serve; nothing is left behind then.  Must run in the main thread.
    """
    configuration = load()
    settings = configuration.settings
    forbid_core_dumps()
    log = Log()
    drop_root(settings.user)
    log.reconfigure(settings)
    log.status = PARENT_STATUS
    check_directory(settings.socket_dir)
    if settings.delayed_dir:
        Directory(settings.delayed_dir).check()
    pid_file = PidFile(pid_file_path(settings))
    longest = max((host.settings.drain_timeout for host in configuration.hosts), default=0.0)
    pid_file.acquire(longest + LAST_BREATH)
    try:
        daemon = Daemon(configuration, load, log, pid_file)
        try:
            daemon.open()
            ready()
            daemon.run()
        except Exception as error:
            if not isinstance(error, LoncError):
                log.trace("the daemon fails", error)
            raise
        finally:
            daemon.close()
    finally:
        pid_file.release()
    log.log("INFO", "ended")
    return 0


class Daemon:
    """Owns the listening sockets, and acts on signals."""

    def __init__(
        self,
        configuration: Configuration,
        load: Callable[[], Configuration],
        log: Log,
        pid_file: PidFile,
    ) -> None:
        self._configuration = configuration
        self._load = load
        self._log = log
        self._pid_file = pid_file
        self._notifier = Notifier()
        # By path: at a reload, one host's name may become another's.
        self._listeners: dict[str, socket.socket] = {}
        self._ending = False
        self._ended = False
        self._reactor = reactor = Reactor()
        reactor.died = tracer(log)
        self._unclaimed = Unclaimed(reactor, passed_sockets())
        for signum, handler in (
            (signal.SIGTERM, self._drain),
            (signal.SIGINT, self._drain),
            (signal.SIGQUIT, self._stop),
            (signal.SIGHUP, self._reload),
            (signal.SIGUSR2, self._reload),
            (signal.SIGUSR1, self._report),
        ):
            reactor.signal(signum, handler)
        self._descriptors = raise_descriptor_limit()
        self._hosts: Processes | Services
        if configuration.settings.processes == "single":
            self._hosts = Services(reactor, configuration, log)
        else:
            self._hosts = Processes(
                reactor, configuration, self._fork_soon, self._close_in_child, self._show, log
            )
        self._scan = reactor.timer(
            self._scan_delayed, interval=configuration.settings.delayed_scan, desc="delayed scan"
        )
        if self._notifier.watchdog:
            reactor.timer(lambda event: self._notifier.alive(), interval=self._notifier.watchdog)

    def open(self) -> None:
        """Open all sockets, then begin to serve.  Raises ListenError."""
        self._listen(self._configuration, self._listeners)
        for host in self._sharing(self._configuration.hosts):
            self._serve(host)
        self._scan_delayed()
        load_titles()
        set_title(PARENT_STATUS)
        # What is there now is there for good: children share it as long as nobody writes to it.
        gc.collect()
        names = ", ".join(host.id for host in self._configuration.hosts) or "no hosts"
        self._log.log("INFO", f"ready in {self._configuration.settings.socket_dir}: {names}")
        if is_root():
            self._log.log(
                "WARNING", "running as root: give the setting user, and lonc becomes that user"
            )
        self._notifier.ready(f"serving {len(self._configuration.hosts)} hosts")

    def run(self) -> None:
        """Serve until a signal ends it."""
        while not self._ended:
            # Processes are made here, so that none ever returns into a callback of its parent.
            self._hosts.start_wanted()
            self._reactor.run()

    def close(self) -> None:
        """Close the sockets, remove their files, and end the loop for good.

        The signals stay blocked: one more must not keep the process from ending in good order.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        self._close_listeners(self._listeners)
        self._reactor.close()

    # -- signals ---------------------------------------------------------------------------------

    def _drain(self, event: Event) -> None:
        if self._ending:
            return
        self._ending = True
        self._log.log("INFO", "ending: finishing what is in flight")
        self._end(self._hosts.drain)

    def _stop(self, event: Event) -> None:
        self._ending = True
        self._log.log("INFO", "ending at once")
        self._end(self._hosts.stop)

    def _end(self, how: Callable[[Callable[[], object]], None]) -> None:
        self._notifier.stopping()
        how(self._has_ended)
        self._close_listeners(self._listeners)

    def _report(self, event: Event) -> None:
        self._hosts.revive()
        self._scan_delayed()
        self._show()

    def _show(self) -> None:
        path = self._configuration.settings.status_file
        if path:
            self._hosts.report(lambda: self._write_status(path))

    def _write_status(self, path: str) -> None:
        try:
            write_status_file(path, self._hosts.lines())
        except OSError as error:
            self._log.log("WARNING", f"status_file {path} cannot be written: {error.strerror}")

    def _reload(self, event: Event) -> None:
        if self._ending:
            return
        self._notifier.reloading()
        try:
            self._follow(self._load())
        except UsageError as error:
            for line in str(error).splitlines():
                self._log.log("WARNING", f"the configuration stays as it was: {line}")
        finally:
            # Also after what nobody thought of: the manager waits for it.
            self._notifier.ready(f"serving {len(self._configuration.hosts)} hosts")

    # -- reload ----------------------------------------------------------------------------------

    def _follow(self, new: Configuration) -> None:
        """Make the daemon what a new configuration says, and touch nothing else.

        Raises ListenError for a new socket, with nothing changed.
        """
        old = self._configuration
        late = needs_restart(old, new)
        settings = new.settings.restored(at_restart(old))
        if settings.delayed_dir and not settings.perm_log:
            # Both were taken out. As long as the directory stays it needs the log.
            settings = settings.replace(perm_log=old.settings.perm_log)
        new = new._replace(settings=settings)
        opened: dict[str, socket.socket] = {}
        try:
            self._listen(new, opened)
        except LoncError:
            self._let_go(opened)
            raise
        for line in late:
            self._log.log("WARNING", line)
        self._configuration = new
        self._log.reconfigure(new.settings)
        self._scan.interval = new.settings.delayed_scan
        before = {host.id: host for host in self._sharing(old.hosts)}
        after = {host.id: host for host in self._sharing(new.hosts)}
        missing = opened.keys() & self._listeners.keys()
        gone = before.keys() - after.keys()
        appeared = after.keys() - before.keys()
        kept = [host for host_id, host in after.items() if host_id in before]
        replaced = {
            host.id
            for host in kept
            if old.own_id != new.own_id
            or needs_successor(before[host.id], host)
            or missing.intersection(new.socket_paths(host))
        }
        # All that go leave their sockets before any that come take them.
        for host_id in gone | replaced:
            self._hosts.remove(host_id)
        self._hosts.reconfigure(new, [host for host in kept if host.id not in replaced])
        for path in missing:
            self._log.log("WARNING", f"socket {path} was not there any more: it was opened anew")
            self._listeners[path].close()
        self._listeners |= opened
        for host in after.values():
            if host.id in appeared | replaced:
                self._serve(host)
        wanted = {path for host in new.hosts for path in new.socket_paths(host)}
        unwanted = self._listeners.keys() - wanted
        self._let_go({path: self._listeners.pop(path) for path in unwanted})
        self._log.log(
            "INFO",
            f"configuration read again: {len(appeared)} hosts new, {len(gone)} gone,"
            f" {len(replaced)} replaced, {len(kept) - len(replaced)} kept",
        )

    # -- sockets ---------------------------------------------------------------------------------

    def _listen(self, configuration: Configuration, opened: dict[str, socket.socket]) -> None:
        """Add to `opened`, by path, the sockets that are wanted and not there: systemd's, or ours.

        One that is open, but whose file is gone, is not there.  Raises ListenError.
        """
        settings = configuration.settings
        for host in configuration.hosts:
            for path in configuration.socket_paths(host):
                present = self._listeners.get(path)
                if present is not None and is_in_place(path, present):
                    continue
                passed = self._unclaimed.claim(path)
                if passed is not None:
                    opened[path] = passed
                    continue
                opened[path] = open_unix_listener(
                    path,
                    mode=settings.socket_mode,
                    owner=settings.socket_owner,
                    group=settings.socket_group,
                    backlog=host.settings.backlog,
                )

    def _let_go(self, listeners: dict[str, socket.socket]) -> None:
        """Close sockets that are ours; systemd's are kept, for a later reload may want them."""
        for path, sock in list(listeners.items()):
            if not isinstance(sock, UnixListener):
                self._unclaimed.give_back(path, listeners.pop(path))
        self._close_listeners(listeners)

    def _close_listeners(self, listeners: dict[str, socket.socket]) -> None:
        """Take sockets out and close them; their files go too, if they are ours, not systemd's."""
        while listeners:
            path, sock = listeners.popitem()
            # Closed after that: one that answers is removed without waiting for anybody.
            try:
                remove_unix_listener(path, sock)
            except LoncError as error:
                self._log.log("WARNING", str(error))
            sock.close()

    def _serve(self, host: HostConfig) -> None:
        paths = self._configuration.socket_paths(host)
        self._hosts.add(host, [self._listeners[path] for path in paths])

    def _sharing(self, hosts: Sequence[HostConfig]) -> list[HostConfig]:
        """Return the hosts with the clients set that each may have in its process."""
        if self._configuration.settings.processes == "single":
            return shared_descriptors(hosts, self._descriptors)
        return list(hosts)

    # -- the rest --------------------------------------------------------------------------------

    def _has_ended(self) -> None:
        self._ended = True
        self._reactor.unloop()

    def _fork_soon(self) -> None:
        self._reactor.unloop()

    def _close_in_child(self) -> None:
        """In a new process: close what is only the parent's.  The lock stays with it."""
        self._unclaimed.close()

    def _scan_delayed(self, event: Event | None = None) -> None:
        """Wake the hosts that a delayed message waits for."""
        path = self._configuration.settings.delayed_dir
        if not path:
            return
        try:
            hosts = Directory(path).hosts()
        except OSError as error:
            self._log.log("CRITICAL", f"delayed_dir {path} cannot be read: {error.strerror}")
            return
        for host in self._configuration.hosts:
            if hosts.intersection(host.ids):
                self._hosts.need(host.id)


def needs_successor(old: HostConfig, new: HostConfig) -> bool:
    """Whether a change of a host cannot reach its broker while that runs."""
    # All that is the host's own, and not a setting of its broker.
    if old._replace(settings=new.settings) != new:
        return True
    rows = type(new.settings).rows()
    return any(
        row.effect == SUCCESSOR and getattr(old.settings, name) != getattr(new.settings, name)
        for name, row in rows.items()
    )


def at_restart(old: Configuration) -> dict[str, Any]:
    """Return the settings of the daemon that stay as they are until a restart."""
    rows = type(old.settings).rows()
    kept = [name for name, row in rows.items() if row.effect == RESTART]
    return {name: getattr(old.settings, name) for name in kept}


def needs_restart(old: Configuration, new: Configuration) -> list[str]:
    """Return a line for each setting that was changed and stays as it is until a restart."""
    names = [
        name for name, value in at_restart(old).items() if getattr(new.settings, name) != value
    ]
    before = {host.id: host.settings for host in old.hosts}
    for host in new.hosts:
        settings = before.get(host.id, host.settings)
        names += [
            f"hosts.{host.id}.{name}"
            for name, row in type(settings).rows().items()
            if row.effect == RESTART and getattr(settings, name) != getattr(host.settings, name)
        ]
    return [f"{name} was changed: that takes effect when lonc is restarted" for name in names]


def raise_descriptor_limit() -> int:
    """Raise the number of files that this process may open as far as it may; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return MANY_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard


def shared_descriptors(hosts: Sequence[HostConfig], limit: int) -> list[HostConfig]:
    """Return the hosts with the clients set that each may have in one process together.

    `limit` is the number of files that the process may open.  A host with `max_clients` = 0 alone
    would take all of it, and leave the peers of the others none.
    """
    taken = SPARE_DESCRIPTORS
    for host in hosts:
        taken += HOST_DESCRIPTORS + host.settings.max_connections + host.settings.max_clients
    sharing = sum(host.settings.max_clients == 0 for host in hosts)
    share = max(1, (limit - taken) // max(1, sharing))
    return [
        host
        if host.settings.max_clients
        else host._replace(settings=host.settings.replace(max_clients=share))
        for host in hosts
    ]
