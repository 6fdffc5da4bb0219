"""The broker for one host: policy around an exchange.

The steady path of a request runs inside the exchange (`lonc.fastpath`) and comes here only when it
leaves the ordinary; the methods under "what the exchange asks" are that door.
"""

from __future__ import annotations

import resource

from lonc.broker import special
from lonc.broker.complaints import Complaints, NoLog
from lonc.broker.health import DEAD, Health, by_chance
from lonc.broker.janitor import Janitor
from lonc.broker.session import Session
from lonc.broker.settings import Settings
from lonc.net.connector import Connector
from lonc.wire.cipher import new_cipher
from lonc.wire.dialects import DIALECTS
from lonc.wire.requests import command_word

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

    from lonc._purepath import Exchange, Link, Listener, Transaction
    from lonc.broker.complaints import Log
    from lonc.broker.host import Host
    from lonc.reactor import Reactor

# Kept free beside the clients and the connections to the peer: log, sockets, pipes, a name lookup.
SPARE_DESCRIPTORS = 32
# What counts as the limit where the system sets none.
MANY_DESCRIPTORS = 1 << 20


class Broker:
    """Spreads requests over at most `max_connections` connections to one host.

    reactor    the loop that it lives on
    host       which host, and where
    settings   limits and timeouts; by default the default ones
    connector  what opens connections, by default TCP to the host's address
    log        an object with `log(severity, text)` and `debug(text)`; by default nothing is logged
    random     a function that returns numbers from 0 to 1, for spreading the attempts
    changed    called when connections come or go or the host's health changes, in the middle of
               that: it is to take note, and not to act

    Requests come from `submit`, and from the clients of the sockets given to `listen`.  Each ends
    exactly once: with the peer's reply, or as lost.

    `health` tells how the host does, `exchange` has the counters.
    """

    def __init__(
        self,
        reactor: Reactor,
        host: Host,
        settings: Settings | None = None,
        *,
        connector: Any = None,
        log: Log | None = None,
        random: Callable[[], float] = by_chance,
        changed: Callable[[], object] = lambda: None,
    ) -> None:
        self.reactor = reactor
        self.host = host
        self.settings = Settings() if settings is None else settings
        self.dialect = DIALECTS[host.dialect]
        self.log: Log = NoLog() if log is None else log
        self.health = Health(self.settings, random)
        self.sessions: dict[Session, None] = {}
        # How many requests wait elsewhere for the host, as in the delayed directory.
        self.waiting_elsewhere = 0
        self.key_mode: str | None = None
        self._changed = changed
        self._complaints = Complaints(self.log)
        self._cipher_works = False
        self._drained: Callable[[], object] | None = None
        self._closed = False
        if connector is None:
            connector = Connector(reactor, host.address, host.port, self.settings)
        self.connector = connector
        self.exchange: Exchange = reactor.parts.Exchange(reactor.poller, self)
        self.janitor = Janitor(self)
        self._retry = reactor.timer(self._retry_due, after=0, start=False, desc="retry")
        self._reopen = reactor.timer(self._accept_again, after=0, start=False, desc="accept again")
        self._last_reading = reactor.timer(
            lambda event: self.exchange.drain(), after=0, start=False, desc="last reading"
        )
        self._end = reactor.timer(self._drain_ends, after=0, start=False, desc="drain")
        self._configure()
        if not self.settings.allow_insecure:
            self.exchange.refusing = True
            self.log.log(
                "CRITICAL",
                f"no connection to {host.id} is made: allow_insecure is false, and no dialect that"
                " agrees on its key over TLS or a local file is there; every request gets con_lost",
            )

    # -- for those who embed it ------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether it was stopped or closed."""
        return self._closed

    def submit(
        self,
        request: bytes,
        callback: Callable[[Transaction], object],
        *,
        background: bool = False,
    ) -> Transaction:
        """Send one request, and have `callback(transaction)` called once when it has ended.

        request     one line, with or without its LF
        background  it gets a connection only when no other request waits for one

        Then `transaction.reply` is the peer's line without LF; or it is None, `transaction.lost`
        says why, and with `transaction.sent` == 0 the request was certainly not executed.  The
        callback is called from the loop, never from here.

        Raises ValueError for a request with a LF inside, or an empty one where the dialect has
        none; RuntimeError after `close`.
        """
        if self._closed:
            raise RuntimeError("the broker is closed")
        line = request if request.endswith(b"\n") else request + b"\n"
        if line == b"\n" and not self.dialect.empty_is_request:
            raise ValueError(f"an empty line is no request in the dialect {self.dialect.name}")
        if line.find(b"\n") != len(line) - 1:
            raise ValueError("a request is one line: there is a line feed inside of it")
        if len(line) - 1 > self.settings.max_request:
            raise ValueError(
                f"the request has {len(line) - 1} bytes, more than max_request,"
                f" which is {self.settings.max_request}"
            )
        _ = self.reactor.now  # outside of a pass the poller's clock still shows the last one
        return self.exchange.submit(line, callback, background)

    def listen(self, sock: socket.socket) -> Listener:
        """Serve the clients of a listening Unix socket, non-blocking; it stays the caller's.

        To stop, `close` the listener that is returned, or drain or close the broker.
        """
        return self.exchange.listen(sock)

    def revive(self) -> None:
        """Give the host a fresh budget of retries, and let it be tried at once."""
        self.health.revive()
        self._follow_health()

    def resume(self, snapshot: tuple[str, int, int, float]) -> None:
        """Go on with the health that another broker of the host had; see `Health.snapshot`."""
        self.health.restore(snapshot)
        self._follow_health()

    def close_connections(self) -> None:
        """Close all connections to the peer, those that carry a request after its reply."""
        for link in list(self.exchange.links):
            if link.state == "idle":
                self.retire(link)
            else:
                link.last = True

    def reconfigure(self, settings: Settings) -> None:
        """Use other limits and timeouts from now on; connections and requests stay.

        The dialect is the host's and does not change.
        """
        self.settings = settings
        self.connector.settings = settings
        self.health.reconfigure(settings)
        self._configure()
        self._follow_health()
        exchange = self.exchange
        surplus = max(0, exchange.usable + exchange.attempts - settings.max_connections)
        busy = [link for link in exchange.links if link.state == "busy"]
        for link in [*exchange.idle, *busy][:surplus]:
            if link.state == "idle":
                self.retire(link)
            else:
                link.last = True
        exchange.want()
        self.janitor.look()

    def drain(self, done: Callable[[], object], timeout: float | None = None) -> None:
        """Take nothing new, finish what is in flight, then call `done()` once, from the loop.

        Requests that have reached this machine's kernel are in flight.  What is not finished after
        `timeout` seconds (`drain_timeout` by default) gets `con_lost`, and the log says how many
        that were.  Afterwards everything is closed.
        """
        self._drained = done
        timeout = self.settings.drain_timeout if timeout is None else timeout
        self._end_at(self.reactor.poller.update() + timeout)
        for listener in self.exchange.listeners:
            listener.close()
        # A pass later: until then what clients have sent is read.
        self._last_reading.at = self.reactor.poller.now
        self._last_reading.start()

    def stop(self) -> None:
        """Close everything now; clients that wait get `con_lost`."""
        if self._closed:
            return
        self._closed = True
        self._drained = None
        exchange = self.exchange
        exchange.drain()
        exchange.fail_queue("the broker was stopped")
        for link in list(exchange.links):
            if link.state == "idle":
                exchange.dismiss(link, self.dialect.farewell)
            else:
                exchange.lose(link, "the broker was stopped", retry=False)
        for client in list(exchange.clients):
            client.close()
        for session in self.sessions:
            session.give_up()
        self.sessions.clear()
        self.connector.close()
        self.janitor.close()
        for timer in (self._retry, self._reopen, self._last_reading, self._end):
            timer.cancel()

    def close(self) -> None:
        """Close everything at once, the clients without a word.

        What was submitted in process ends as lost, in the next pass of the loop.
        """
        for client in list(self.exchange.clients):
            client.close()
        self.stop()

    def stats(self) -> dict[str, Any]:
        """Return what an administrator wants to know, as plain numbers and texts.

        `latency` counts answered requests by duration; `lonc._purepath.bucket_floor` tells what a
        bucket holds.
        """
        exchange = self.exchange
        states = {"preparing": 0, "idle": 0, "busy": 0}
        for link in exchange.links:
            states[link.state] += 1
        return {
            "host": self.host.id,
            "state": self.health.state,
            "retries": self.health.retries,
            "clients": len(exchange.clients),
            "accepted": exchange.accepted,
            "queued": len(exchange.queue) + len(exchange.background),
            "connections": exchange.usable,
            "attempts": exchange.attempts,
            **states,
            "requests": exchange.requests,
            "replies": exchange.replies,
            "con_lost": exchange.con_lost,
            "abandoned": exchange.abandoned,
            "held": exchange.held,
            "latency": list(exchange.latency),
        }

    # -- what the exchange asks ------------------------------------------------------------------

    def dial(self) -> None:
        """A link is wanted."""
        Session(self)

    def arm(self) -> None:
        """Something can pass a deadline from now on."""
        self.janitor.arm()

    def special(self, transaction: Transaction) -> None:
        """A request that is not simply passed on."""
        special.take(self, transaction)

    def begin(self, link: Link, transaction: Transaction) -> None:
        """A transaction with a plan has got a link."""
        special.begin(self, link, transaction)

    def answered(self, link: Link, transaction: Transaction, line: bytes) -> None:
        """The reply to a transaction with a plan, or an encrypted one."""
        special.answered(self, link, transaction, line)

    def heard(self, link: Link, line: bytes) -> None:
        """A line of the dialogue."""
        link.data.heard(line)

    def lost(self, link: Link, reason: str, state: str, transaction: Transaction | None) -> None:
        """A link was lost, and with it `transaction`, unless it waits again."""
        session: Session = link.data
        now = self.reactor.poller.now
        sent = f"; {transaction.sent} of {len(transaction.line)} bytes sent" if transaction else ""
        self.log.debug(
            f"connection lost while {state}: {link.answered} replies, silent for"
            f" {now - link.progress:.1f} s{sent}"
        )
        if transaction is not None and transaction.done:
            self.request_failed(transaction, reason)
        if self._closed:
            return
        if state == "preparing" and session.ended(reason):
            return
        self.sessions.pop(session, None)
        session.cancel()
        self.log.log("WARNING", f"lost a connection to {self.host.id}: {reason}")
        if link.late or not (link.answered or session.declined):
            self._failed(reason)
        else:
            self._left_alone(reason)
            self._changed()

    def retire(self, link: Link) -> None:
        """Close an idle link in good order."""
        session: Session = link.data
        self.sessions.pop(session, None)
        session.cancel()
        self.exchange.dismiss(link, self.dialect.farewell)
        self._changed()

    def recovered(self) -> None:
        """A request was answered while the host was not quite sound."""
        self.health.answered()
        self._follow_health()

    def trouble(self, kind: str, number: float = 0, text: str = "") -> None:
        """A client, or a limit, needs a line in the log."""
        now = self.reactor.poller.now
        self._complaints.note(now, kind, number, text)
        if kind == "accept":
            self._reopen.at = now + 1.0
            self._reopen.start()

    def drained(self) -> None:
        """Nobody is left who waits for a reply."""
        if self._drained is not None:
            self._end_at(self.reactor.poller.now)

    # -- what sessions and the janitor report ----------------------------------------------------

    def attempt_failed(self, session: Session, reason: str) -> None:
        """No address of the host could be connected to, or all refused."""
        self.sessions.pop(session, None)
        if self.exchange.usable or self.exchange.attempts:
            self.log.log(
                "WARNING", f"another connection to {self.host.id} cannot be opened: {reason}"
            )
        self._failed(reason)

    def ready(self, session: Session) -> None:
        """A dialogue has ended well; its link is about to be released."""
        dialogue = session.dialogue
        self.key_mode = dialogue.key_mode
        was = self.health.state
        self.health.ready()
        self._follow_health()
        agreed = [dialogue.key_mode] if dialogue.key_mode else []
        if dialogue.peer_version:
            agreed.append(f"version {dialogue.peer_version}")
        more = f" ({', '.join(agreed)})" if agreed else ""
        self.log.log("SUCCESS", f"connection to {self.host.id} ready{more}")
        if was == DEAD:
            self.log.log("SUCCESS", f"{self.host.id} is not DEAD any more")

    def timed_out(self, link: Link, timeout: str) -> None:
        """A busy link has passed `reply_timeout` or `transaction_timeout`."""
        if link.state != "busy":
            return
        link.late = timeout == "reply_timeout"
        self.exchange.lose(link, f"{timeout} has passed", retry=False)

    def request_failed(self, transaction: Transaction, reason: str) -> None:
        """Log that a request has failed, by its command's name only."""
        word = command_word(transaction.line, self.dialect)
        what = f"request {word}" if word else "a request"
        self.log.log("WARNING", f"{what} to {self.host.id} failed: {reason}")

    def check_cipher(self) -> None:
        """Raise CipherUnavailable, which says why, if this machine has no cipher."""
        if not self._cipher_works:
            new_cipher(bytes(16))
            self._cipher_works = True

    # -- health ----------------------------------------------------------------------------------

    def _failed(self, reason: str) -> None:
        self.health.failed(self.reactor.poller.now)
        self._left_alone(reason)
        self._follow_health()

    def _left_alone(self, reason: str) -> None:
        """If nothing is alive or on its way, whoever waits must not wait for it."""
        exchange = self.exchange
        if exchange.usable or exchange.attempts:
            return
        was = self.health.state
        if not self.health.alone(self.reactor.poller.now):
            return
        where = f"{self.host.id} ({self.host.address}:{self.host.port})"
        if self.health.state == DEAD and was != DEAD:
            self.log.log(
                "CRITICAL",
                f"{where} is DEAD: no retries are left, and every request gets con_lost until it"
                f" answers again; last failure: {reason}",
            )
        elif was != DEAD:
            self.log.log("WARNING", f"{where} cannot be reached: {reason}")
        self._follow_health()
        failed = exchange.fail_queue(f"the host is down: {reason}")
        if failed:
            self.log.log("WARNING", f"{failed} waiting requests to {self.host.id} got con_lost")

    def _follow_health(self) -> None:
        """Tell the exchange what the host's health means for requests, and plan the next try."""
        health = self.health
        exchange = self.exchange
        exchange.dial_at = health.due
        exchange.refusing = health.state == DEAD or not self.settings.allow_insecure
        exchange.recovering = not health.sound
        now = self.reactor.poller.now
        if health.state == DEAD or health.due > now:
            self._retry.at = max(now, health.due)
            self._retry.start()
        elif self._retry.is_active and (exchange.queue or exchange.background):
            # Connections for those who wait were to be opened when the pause is over.
            self._retry.at = now
            self._retry.start()
        else:
            self._retry.stop()
        self._changed()

    def _retry_due(self, event: object) -> None:
        """The pause after a failure is over: connect for those who wait, or probe a DEAD host."""
        exchange = self.exchange
        if self.health.state != DEAD:
            exchange.want()
            return
        now = self.reactor.poller.now
        if exchange.attempts or exchange.usable:
            return
        if self.waiting_elsewhere or now - exchange.asked < self.settings.probe_while_asked:
            Session(self)
        else:
            # Somebody may ask again.
            self._retry.at = now + self.settings.retry_longest
            self._retry.start()

    # -- the rest --------------------------------------------------------------------------------

    def _configure(self) -> None:
        settings = self.settings
        exchange = self.exchange
        for name in (
            "max_connections",
            "max_dialling",
            "max_queue",
            "max_request",
            "max_reply",
            "max_early",
            "max_buffered",
            "queue_timeout",
            "reply_timeout",
            "transaction_timeout",
            "client_timeout",
        ):
            setattr(exchange, name, getattr(settings, name))
        exchange.max_clients = settings.max_clients or self._clients_that_fit()
        exchange.drop_abandoned = settings.abandoned == "drop"
        exchange.special = special.prefixes(self.dialect)
        exchange.sealed = self.dialect.encrypts
        exchange.empty_is_request = self.dialect.empty_is_request
        restricted = settings.allow_users or settings.allow_groups
        exchange.admits = self._admits if restricted else None
        if not exchange.accepting:
            self._accept_again(None)

    def _clients_that_fit(self) -> int:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit == resource.RLIM_INFINITY:
            limit = MANY_DESCRIPTORS
        return max(1, limit - self.settings.max_connections - SPARE_DESCRIPTORS)

    def _admits(self, uid: int, gid: int) -> bool:
        settings = self.settings
        if uid in settings.allow_users or gid in settings.allow_groups:
            return True
        self.trouble("not_allowed", 0, f"a process of uid {uid} and gid {gid}")
        return False

    def _accept_again(self, event: object) -> None:
        if len(self.exchange.clients) < self.exchange.max_clients:
            self.exchange.accept_clients(True)

    def _end_at(self, at: float) -> None:
        self._end.at = at
        self._end.start()

    def _drain_ends(self, event: object) -> None:
        left = self.exchange.outstanding
        if left:
            self.log.log(
                "WARNING",
                f"{left} requests to {self.host.id} were not finished within the time for an"
                " orderly end and got con_lost",
            )
        done = self._drained
        self.stop()
        if done is not None:
            done()
