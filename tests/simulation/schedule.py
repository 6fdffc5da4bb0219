"""One random schedule: a broker, its clients, its peers, and what is done to it, from one seed."""

from __future__ import annotations

from random import Random

from lonc.broker.broker import Broker
from lonc.broker.host import Host
from lonc.reactor import Reactor

from .checks import Failure, check_drain, check_end, check_pass
from .clients import LOCAL, Client
from .connector import Connector
from .network import READ, TICKS, Network
from .peers import HOST, OWN, Peer
from .requests import Requests
from .trace import Log, Trace
from .weather import FEWEST, Weather, another

# When each has come to its end long ago, by the simulated clock.
LONGEST = 100_000

# How the reasons begin that only a connection has, not the request that it carried.
CONNECTION_LOST = ("sending failed", "receiving failed", "the peer")


class Result:
    """What a schedule came to.

    `counts` says how often what happened in which state, by (whose, what, state); `error` is the
    exception that ended it, or None, and `failure` the same in words.
    """

    def __init__(self, world):
        self.seed = world.seed
        self.transactions = world.exchange.requests
        self.replies = world.exchange.replies
        self.counts = world.counts
        self.digest = world.trace.digest()
        self.trace = world.trace
        self.error = error = world.error
        self.failure = error and f"{type(error).__name__}: {error}"


class ObservedBroker(Broker):
    """A broker that counts what it complains about."""

    def __init__(self, world, *arguments, **options):
        self.world = world
        super().__init__(world.reactor, *arguments, **options)

    def trouble(self, kind, number=0, text=""):
        self.world.count("broker", kind)
        super().trouble(kind, number, text)

    def timed_out(self, link, timeout):
        self.world.count("broker", timeout)
        super().timed_out(link, timeout)

    def request_failed(self, transaction, reason):
        if reason == "it waited for queue_timeout":
            self.world.count("broker", "queue_timeout")
        super().request_failed(transaction, reason)

    def _left_alone(self, reason):
        was = self.health.state
        super()._left_alone(reason)
        if was != self.health.state:
            self.world.count("broker", f"the host is {self.health.state}")


class World:
    """Everything of one schedule, and what its parts tell each other."""

    def __init__(self, seed, parts):
        self.seed = seed
        self.rng = Random(seed)
        self.random = self.rng.random
        self.weather = weather = Weather(self.rng)
        self.settings = weather.settings
        self.left = weather.requests
        self.trace = Trace()
        self.counts = {}
        self.network = Network(self.trace.note, weather.hangups, lambda: check_pass(self))
        self.requests = Requests(self)
        self.clients = {}
        self.submitted = {}
        # How long a client may stand still, and a request may take, and how many connections there
        # may be, by the largest settings so far.
        self.client_timeout = self.patience = self.most_connections = 0
        self._bound()
        self.error = None
        self.ending = False
        self.outage = False
        self._finished = False
        self._drain_until = 0.0
        self.reactor = Reactor(parts, selector=self.network, clock=self.network.clock)
        self.reactor.died = self._died
        self.connector = Connector(self)
        host = Host(HOST, "192.0.2.1", 5663, weather.dialect, OWN)
        log = Log(self.trace.note, self.network.clock)
        self.broker = ObservedBroker(
            self, host, self.settings, connector=self.connector, log=log, random=self.random
        )
        self.exchange = self.broker.exchange
        self._jobs = []
        self._application = self.network.connect(None)
        self._watcher = self.reactor.io(self._application.fd, "r", self._work, desc="application")

    def _bound(self):
        settings = self.settings
        patience = settings.queue_timeout + settings.transaction_timeout + 1
        self.patience = max(self.patience, patience)
        self.client_timeout = max(self.client_timeout, settings.client_timeout)
        self.most_connections = max(self.most_connections, settings.max_connections)

    # The course of things.

    def run(self):
        """Let everything happen; return the Result."""
        network = self.network
        random = self.random
        for _ in range(self.weather.crowd):
            network.after(int(random() * 300), self._arrive)
        for _ in range(self.weather.submitters):
            network.after(int(random() * 300), self._submit_soon)
        for _ in range(int(random() * 4)):
            network.after(int(random() * 1500), self._interfere)
        if self.weather.outages:
            network.after(int(random() * 1500), self._outage_begins)
        network.after(5 * TICKS, self._watch)
        try:
            self.reactor.run()
            self.reactor.run_once(0)
            self._watcher.cancel()
            self._application.far = self
            self._application.close()
            check_end(self)
            self.reactor.close()
        except Exception as error:
            self.error = self.error or error
        return Result(self)

    def _arrive(self, _):
        if self.left > 0 and not self.ending:
            Client(self, self.rng.choice(self.weather.habits))

    def client_left(self, client):
        del self.clients[client]
        if self.left > 0:
            self.network.after(int(self.random() * 40), self._arrive)
        else:
            self._maybe_end()

    def _maybe_end(self):
        if self.left <= 0 and not self.clients and not self.submitted and not self.ending:
            self._end_after(int(self.random() ** 3 * 40 * TICKS))

    def _end_after(self, ticks):
        if not self._finished:
            self._finished = True
            self.network.after(ticks, self._do, self._end)

    def spend(self):
        """Count a request that is sent; the last one may be the beginning of the end."""
        self.left -= 1
        if self.left == 0:
            # Some were not taken, because their client failed.
            self.left = max(0, FEWEST + 10 - self.exchange.requests)
            if not self.left and self.weather.end != "close":
                self._end_after(int(self.random() * 40))

    # In-process use; everything that calls the broker happens in a callback of the reactor.

    def _do(self, job):
        self._jobs.append(job)
        self._application.deliver(b"")

    def _work(self, event):
        jobs, self._jobs = self._jobs, []
        self._application.state &= ~READ
        for job in jobs:
            job()

    def _submit_soon(self, _):
        self._do(self._submit)

    def _submit(self):
        if self.ending or self.left <= 0:
            self._maybe_end()
            return
        command = []
        request = self.requests.new(command)
        background = self.random() < 0.5
        if background:
            self.requests.background.add(request)
        transaction = self.broker.submit(request, self._ended, background=background)
        self.submitted[transaction] = (command[0], self.network.now)

    def _ended(self, transaction):
        entry = self.submitted.pop(transaction, None)
        if entry is None:
            self.fail("a transaction ended twice, or was never submitted")
        command, since = entry
        reply, executed = transaction.reply, self.requests.executed.get(command)
        self.trace.note((self.network.now, 0, b"ended", command, reply, transaction.sent))
        if self.network.now - since > self.patience:
            self.fail("a transaction took longer than all timeouts together")
        if command in LOCAL:
            if reply != b"ok" and not self.weather.tight:
                self.fail(f"the answer to {command!r} was {reply!r}")
        elif reply is None:
            if not transaction.lost:
                self.fail("a transaction was lost without a reason")
            if transaction.sent == 0 and executed is not None:
                self.fail("a request of which nothing was sent was executed")
            if transaction.sent == 0 and transaction.lost.startswith(CONNECTION_LOST):
                self.fail("a request of which nothing was sent was not tried again")
        elif executed is None or reply + b"\n" != executed:
            self.fail(f"the answer to {command!r} was {reply!r}")
        ticks = int(self.random() * (12 if reply is not None else 1200))
        self.network.after(ticks, self._submit_soon)

    # What is done to the broker.

    def _interfere(self, _):
        self._do(self._do_something)

    def _do_something(self):
        if self.ending:
            return
        what = self.rng.choice(("revive", "close connections", "reconfigure", "reconfigure"))
        self.count("broker", what)
        if what == "revive":
            self.broker.revive()
        elif what == "close connections":
            self.broker.close_connections()
        else:
            self.settings = another(self.rng, self.settings)
            self.broker.reconfigure(self.settings)
            self._bound()

    def _outage_begins(self, _):
        """All connections are lost, and none can be made for a while."""
        self.outage = True
        for port in list(self.network.ports.values()):
            if type(port.far) is Peer:
                port.far.lose_power()
        self.network.after(int(self.random() ** 2 * 20 * TICKS), self._outage_ends)

    def _outage_ends(self, _):
        self.outage = False

    def _end(self):
        """End the broker, in the way that was chosen."""
        self.ending = True
        self.count("broker", f"end: {self.weather.end}")
        if self.weather.end == "drain":
            self._drain_until = self.network.now + self.settings.drain_timeout + 1
            self.broker.drain(self._over)
            self.network.after(2, check_drain, self)
        elif self.weather.end == "stop":
            self.broker.stop()
            self._over()
        else:
            self.broker.close()
            self._over()

    def _over(self):
        if self.weather.end == "drain" and self.network.now > self._drain_until:
            self.fail("a drain took longer than drain_timeout")
        self.reactor.unloop()

    # Watching.

    def _watch(self, _):
        """Nobody waits longer than all timeouts together: look at those who still do."""
        for client in self.clients:
            if not client.closing:
                self.check_wait(client)
        if self.network.now > LONGEST:
            self.fail("the schedule does not come to its end")
        self.network.after(5 * TICKS, self._watch)

    def check_wait(self, client):
        """Check the first law for a client that waited until now."""
        waited = self.network.now - client.since
        if client.waiting and waited > self.patience and not client.partial:
            self.fail(f"a client waited {waited:g} s without an answer")

    def fail(self, text):
        """Note that the broker did wrong, and end the schedule."""
        error = Failure(text)
        self.error = self.error or error
        raise error

    def _died(self, event, error):
        self.error = self.error or error
        self.reactor.unloop()

    def count(self, whose, what, state=""):
        """Count that something happened, in the state where there is one."""
        key = (whose, what, state)
        self.counts[key] = self.counts.get(key, 0) + 1

    def closed(self, reset):
        """The application's port was closed."""


def run(seed, parts):
    """Run the schedule of one seed over a part; return its Result."""
    return World(seed, parts).run()
