"""A supervised process for each host.

The parent owns the listening sockets, and a child inherits the one of its host.  So nothing is
bound anew when a child dies: clients that connect meanwhile wait in the kernel's backlog, and the
next child serves them.

A host's automaton::

    LISTENING   no process: the parent watches the socket for the first client
    WANTED      to be forked as soon as the loop has unwound
    RUNNING     there is a process
    WAITING     it died, or could not be forked: a pause before the next
    GONE        the host is served no more

A process that drains, because its host is to go or another takes its place, is kept apart, in
`_leaving`, until it has ended; so is one that was aborted.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from typing import NamedTuple

from lonc.daemon.channel import Channel
from lonc.daemon.child import Child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lonc.daemon.log import Log
    from lonc.daemon.settings import Configuration, HostConfig
    from lonc.reactor import Event, Reactor, Timer, Watcher

LISTENING = "listening"
WANTED = "wanted"
RUNNING = "running"
WAITING = "waiting"
GONE = "gone"

NEEDED = "is needed"
STARTED = "has started"
ENDED = "has ended in good order"
FAILED = "has died, or could not be started"
DISMISSED = "is dismissed"

STATES = {
    LISTENING: {NEEDED: WANTED, DISMISSED: GONE},
    WANTED: {STARTED: RUNNING, FAILED: WAITING, DISMISSED: GONE},
    RUNNING: {ENDED: LISTENING, FAILED: WAITING, DISMISSED: GONE},
    WAITING: {NEEDED: WANTED, DISMISSED: GONE},
    GONE: {DISMISSED: GONE},
}

# The pauses before a host's process is started again: at once, then these seconds, then the last.
PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
# A process that has lived so long, in seconds, starts the count anew.
LONG_LIFE = 60.0
# Questions of the watchdog in the time that a process has for an answer.
QUESTIONS = 2
# A watchdog that is late by this share of its interval did not run itself: silence proves nothing.
LATE = 0.25
# What a process may need to end beyond `drain_timeout`, or after it was told to end at once, in
# seconds.
LAST_BREATH = 2.0

# The signals that a parent or a child acts on.
HANDLED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)


class HostProcess:
    """One host as the parent sees it, and the present process of it."""

    def __init__(self, host: HostConfig, listeners: list[socket.socket]) -> None:
        self.host = host
        self.listeners = listeners
        self.state = LISTENING
        self.pid = 0
        self.channel: Channel | None = None
        self.status = f"Connected to {host.id}"
        self.last_log = ""
        self.health: tuple[str, int, int, float] | None = None
        self.stats: dict[str, Any] = {}
        self.reported = False
        self.deaths = 0
        self.started = 0.0
        self.unanswered = 0
        self.pause: Watcher | None = None
        self.watchers: list[Watcher] = []

    def enter(self, event: str) -> None:
        """Go where `event` leads: the only place where the state is set."""
        try:
            self.state = STATES[self.state][event]
        except KeyError:
            raise AssertionError(f"a host that is {self.state} {event}") from None


class Leaving(NamedTuple):
    """A process that is to end, and that `deadline` kills if it does not."""

    host_id: str
    channel: Channel
    deadline: Timer


class Processes:
    """The processes of all hosts.

    reactor         the parent's
    configuration   replaced by `reconfigure`
    fork_soon       called when `start_wanted` is to be called, outside of any callback
    in_child        called in each new process, to close what is only the parent's
    show            called when a process asks for the status file to be written
    log             the daemon's log; lines about a host go to `log.about(host)`
    """

    def __init__(
        self,
        reactor: Reactor,
        configuration: Configuration,
        fork_soon: Callable[[], object],
        in_child: Callable[[], object],
        show: Callable[[], object],
        log: Log,
    ) -> None:
        self._reactor = reactor
        self._configuration = configuration
        self._fork_soon = fork_soon
        self._in_child = in_child
        self._show = show
        self._log = log
        self._hosts: dict[str, HostProcess] = {}
        self._leaving: dict[int, Leaving] = {}
        self._ended: Callable[[], object] | None = None
        self._reporting: Callable[[], object] | None = None
        self._deaths = reactor.signal(signal.SIGCHLD, self._reap)
        self._watchdog = reactor.timer(
            self._ask, interval=configuration.settings.watchdog / QUESTIONS, desc="watchdog"
        )
        self._report_late = reactor.timer(
            self._reported, after=LAST_BREATH, start=False, desc="report"
        )

    # -- what the daemon asks --------------------------------------------------------------------

    def add(self, host: HostConfig, listeners: list[socket.socket]) -> None:
        """Serve one more host, whose sockets stay the caller's."""
        process = HostProcess(host, listeners)
        self._hosts[host.id] = process
        if self._configuration.settings.start == "eager":
            self.need(host.id)
        else:
            self._watch(process)

    def remove(self, host_id: str) -> None:
        """Let the host's process drain, and forget the host."""
        process = self._hosts.pop(host_id)
        self._dismiss(process)

    def reconfigure(self, configuration: Configuration, hosts: list[HostConfig]) -> None:
        """Give running processes their hosts' new limits, timeouts and log settings."""
        self._configuration = configuration
        for host in hosts:
            process = self._hosts[host.id]
            process.host = host
            if process.channel is not None:
                process.channel.send("settings", vars(configuration.settings), vars(host.settings))
        interval = configuration.settings.watchdog / QUESTIONS
        if interval != self._watchdog.interval:
            self._watchdog.interval = interval
            self._watchdog.again()

    def need(self, host_id: str) -> None:
        """Start the host's process if there is none: something waits for it."""
        process = self._hosts.get(host_id)
        if process is not None and process.state == LISTENING:
            self._stop_waiting(process)
            process.enter(NEEDED)
            self._fork_soon()

    def revive(self) -> None:
        """A fresh budget for all hosts, and a look at their delayed messages."""
        for process in self._hosts.values():
            process.health = None
            if process.channel is not None:
                process.channel.send("revive")

    def report(self, done: Callable[[], object]) -> None:
        """Ask all processes how they do, and call `done()` when they have said it.

        Those that do not answer in two seconds are taken as they last were.
        """
        self._reporting = done
        for process in self._hosts.values():
            process.reported = process.channel is None
            if process.channel is not None:
                process.channel.send("report")
        self._report_late.again()
        self._maybe_reported()

    def lines(self) -> list[tuple[int, str, str, str]]:
        """Return pid (0 without a process), host id, status and last log line of each host."""
        return [
            (process.pid, host_id, process.status, process.last_log)
            for host_id, process in self._hosts.items()
        ]

    def drain(self, done: Callable[[], object]) -> None:
        """Let all processes drain, and call `done()` when they have ended."""
        self._ended = done
        for process in self._hosts.values():
            self._dismiss(process)
        self._maybe_ended()

    def stop(self, done: Callable[[], object]) -> None:
        """End all processes at once, and call `done()` when they have ended."""
        self._ended = done
        for process in self._hosts.values():
            self._dismiss(process)
        deadline = self._reactor.now + LAST_BREATH
        for pid, leaving in self._leaving.items():
            _kill(pid, signal.SIGQUIT)
            leaving.deadline.at = min(leaving.deadline.at, deadline)
        self._maybe_ended()

    def start_wanted(self) -> None:
        """Fork the processes that are wanted.  Must be called outside of any callback."""
        for process in list(self._hosts.values()):
            if process.state == WANTED:
                self._fork(process)

    # -- starting --------------------------------------------------------------------------------

    def _watch(self, process: HostProcess) -> None:
        def wanted(event: Event) -> None:
            self.need(process.host.id)

        process.watchers = [
            self._reactor.io(listener, "r", wanted, desc=f"socket of {process.host.id}")
            for listener in process.listeners
        ]

    def _stop_waiting(self, process: HostProcess) -> None:
        for watcher in process.watchers:
            watcher.cancel()
        process.watchers = []
        if process.pause is not None:
            process.pause.cancel()
            process.pause = None

    def _fork(self, process: HostProcess) -> None:
        """Make the process of one host.  A signal must not reach a child that has our handlers."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            self._not_started(process, error)
            return
        gc.freeze()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            pid = os.fork()
            if pid == 0:
                self._be_child(process, ours, theirs, before)
        except OSError as error:
            ours.close()
            self._not_started(process, error)
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            gc.unfreeze()
            theirs.close()
        process.pid = pid
        process.started = self._reactor.now
        process.channel = Channel(
            self._reactor,
            ours,
            lambda word, *values: self._told(process, pid, word, *values),
            lambda: None,
        )
        process.enter(STARTED)

    def _not_started(self, process: HostProcess, error: OSError) -> None:
        log = self._log.about(process.host.id)
        log.log("CRITICAL", f"no process can be started: {error.strerror}")
        self._failed(process)

    def _be_child(
        self,
        process: HostProcess,
        ours: socket.socket,
        theirs: socket.socket,
        mask: set[signal.Signals] | Any,
    ) -> None:
        """Serve the host; never returns."""
        status = 1
        log = self._log.about(process.host.id)
        log.forget_repeats()
        try:
            # A key that interrupts the parent, which then ends its children, is not for them.
            os.setpgid(0, 0)
            ours.close()
            self._close_inherited(process)
            child = Child(
                self._configuration, process.host, process.listeners, theirs, process.health, log
            )
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            status = child.run()
        except Exception as error:
            log.trace("the process of this host fails", error)
        finally:
            os._exit(status)

    def _close_inherited(self, process: HostProcess) -> None:
        """Close every descriptor that is the parent's, or another child's."""
        self._reactor.close()
        for other in self._hosts.values():
            if other.channel is not None:
                other.channel.close()
            if other is not process:
                for listener in other.listeners:
                    listener.close()
        for leaving in self._leaving.values():
            leaving.channel.close()
        self._in_child()

    # -- living ----------------------------------------------------------------------------------

    def _told(self, process: HostProcess, pid: int, word: str, *values: Any) -> None:
        if pid != process.pid:
            # It drains, and another has taken its place.
            return
        if word == "pong":
            process.unanswered = 0
        elif word == "report":
            process.status, process.last_log, process.health, process.stats = values
            process.reported = True
            self._maybe_reported()
        elif word == "show":
            self._show()

    def _ask(self, event: Event) -> None:
        """Ask each process whether it lives, and abort one that has left two questions open."""
        interval = self._watchdog.interval
        assert interval is not None
        was_away = self._reactor.now - self._watchdog.at > LATE * interval
        for process in self._hosts.values():
            if process.channel is None:
                continue
            if was_away:
                process.unanswered = 0
            if process.unanswered == QUESTIONS:
                self._abort(process)
            else:
                process.unanswered += 1
                process.channel.send("ping", process.unanswered)

    def _abort(self, process: HostProcess) -> None:
        """End a process that hangs; its stack trace goes to the log."""
        pid, patience = process.pid, self._configuration.settings.watchdog
        self._log.about(process.host.id).log(
            "CRITICAL", f"process {pid} hangs: no answer for {patience:g} s; aborted"
        )
        _kill(pid, signal.SIGABRT)
        # One that was stopped gets the other signal only when it goes on.
        _kill(pid, signal.SIGCONT)
        self._leave(process, LAST_BREATH)
        self._failed(process)

    def _maybe_reported(self) -> None:
        if all(process.reported for process in self._hosts.values()):
            self._reported()

    def _reported(self, event: Event | None = None) -> None:
        self._report_late.stop()
        done, self._reporting = self._reporting, None
        if done is not None:
            done()

    # -- ending ----------------------------------------------------------------------------------

    def _dismiss(self, process: HostProcess) -> None:
        self._stop_waiting(process)
        if process.state == RUNNING:
            self._let_drain(process)
        process.enter(DISMISSED)

    def _let_drain(self, process: HostProcess) -> None:
        assert process.channel is not None
        process.channel.send("drain")
        self._leave(process, process.host.settings.drain_timeout + LAST_BREATH)

    def _leave(self, process: HostProcess, patience: float) -> None:
        """Go on without the present process, which has `patience` seconds to end."""
        pid, host_id = process.pid, process.host.id

        def too_late(event: Event) -> None:
            log = self._log.about(host_id)
            log.log("CRITICAL", f"process {pid} did not end in time: killed")
            _kill(pid, signal.SIGKILL)

        deadline = self._reactor.timer(too_late, after=patience, desc=f"end of process {pid}")
        self._leaving[pid] = Leaving(host_id, self._forget(process), deadline)

    def _forget(self, process: HostProcess) -> Channel:
        """Go on without the present process; return its channel."""
        channel = process.channel
        assert channel is not None
        if self._reactor.now - process.started >= LONG_LIFE:
            process.deaths = 0
        process.pid = process.unanswered = 0
        process.channel = None
        process.reported = True
        return channel

    def _reap(self, event: Event) -> None:
        for pid in self._pids():
            try:
                found, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                found, status = pid, 0
            if found:
                self._reaped(pid, status)
        self._maybe_ended()

    def _reaped(self, pid: int, status: int) -> None:
        leaving = self._leaving.pop(pid, None)
        if leaving is not None:
            leaving.channel.close()
            leaving.deadline.cancel()
            if status:
                self._log.about(leaving.host_id).log("CRITICAL", _how_it_died(pid, status))
            return
        process = next(process for process in self._hosts.values() if process.pid == pid)
        assert process.channel is not None
        process.channel.read_rest()
        self._forget(process).close()
        if status == 0:
            process.enter(ENDED)
            self._watch(process)
        else:
            self._log.about(process.host.id).log("CRITICAL", _how_it_died(pid, status))
            self._failed(process)
        self._maybe_reported()

    def _failed(self, process: HostProcess) -> None:
        """Plan the next try after a death or a failed fork."""
        pause = PAUSES[min(process.deaths, len(PAUSES) - 1)]
        process.deaths += 1
        process.enter(FAILED)

        def due(event: Event) -> None:
            process.pause = None
            process.enter(NEEDED)
            self._fork_soon()

        process.pause = self._reactor.timer(due, after=pause, desc=f"restart {process.host.id}")

    def _pids(self) -> list[int]:
        running = [process.pid for process in self._hosts.values() if process.pid]
        return [*running, *self._leaving]

    def _maybe_ended(self) -> None:
        if self._ended is not None and not self._pids():
            done, self._ended = self._ended, None
            self._deaths.cancel()
            self._watchdog.cancel()
            done()


def _kill(pid: int, signum: int) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass


def _how_it_died(pid: int, status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"process {pid} was killed by signal {-code} ({signal.strsignal(-code)})"
    return f"process {pid} ended with status {code}"
