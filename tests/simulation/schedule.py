"""One random schedule: a broker, its clients, its peers, and what is done to it, from one seed."""

from __future__ import annotations

from functools import cache
from random import Random

from lonc.broker.broker import Broker
from lonc.broker.host import Host
from lonc.broker.settings import Settings
from lonc.reactor import Reactor
from lonc.wire.cipher import CipherUnavailable, new_cipher

from . import clients, peers
from .checks import Failure, check_drain, check_end, check_pass
from .clients import Client
from .network import READ, TICKS, Network
from .trace import Log, Trace

# Requests of one schedule, at least.
FEWEST = 90

# When each has come to its end long ago, by the simulated clock.
LONGEST = 100_000

# How the reasons begin that only a connection has, not the request that it carried.
CONNECTION_LOST = ("sending failed", "receiving failed", "the peer")

# How often something is tried that costs more than the rest.
SEALED = 0.02
LOCAL = 0.004
ELSEWHERE = 0.15

# Replies and requests hold every byte but LF.
_FILLER = bytes(range(10)) + bytes(range(11, 256))
_FILLER *= 900


@cache
def there_is_a_cipher():
    """Say whether this machine can encrypt; where not, con_lost is the right answer."""
    try:
        new_cipher(bytes(16))
    except CipherUnavailable:
        return False
    return True


class Result:
    """What a schedule came to.

    `counts` says how often what happened in which state, by (whose, what, state); `failure` is
    None, or what was wrong.
    """

    def __init__(self, seed, world, failure):
        exchange = world.exchange
        self.seed = seed
        self.transactions = exchange.requests
        self.replies = exchange.replies
        self.con_lost = exchange.con_lost
        self.counts = world.counts
        self.digest = world.trace.digest()
        self.trace = world.trace
        self.failure = failure


class ObservedBroker(Broker):
    """A broker that counts what it complains about."""

    def __init__(self, world, *arguments, **options):
        self.world = world
        super().__init__(world.reactor, *arguments, **options)

    def trouble(self, kind, number=0, text=""):
        self.world.count_broker(kind)
        super().trouble(kind, number, text)

    def timed_out(self, link, timeout):
        self.world.count_broker(timeout)
        super().timed_out(link, timeout)

    def request_failed(self, transaction, reason):
        if reason == "it waited for queue_timeout":
            self.world.count_broker("queue_timeout")
        super().request_failed(transaction, reason)

    def _left_alone(self, reason):
        was = self.health.state
        super()._left_alone(reason)
        if was != self.health.state:
            self.world.count_broker(f"the host is {self.health.state}")


class World:
    """Everything of one schedule, and what its parts tell each other."""

    def __init__(self, seed, parts):
        self.rng = Random(seed)
        self.random = random = self.rng.random
        self.trace = Trace()
        self.counts = {}
        self.network = Network(self.trace.note, hangups=random() < 0.7)
        self.network.inspect = self.inspect
        self.executed = {}
        self.clients = {}
        self.submitted = {}
        self.background = set()
        self.con_lost = 0
        self.serial = 0
        self.failure = None
        self.ending = False
        self.finished = False
        self.outage = False
        self._choose()
        self.reactor = Reactor(parts, selector=self.network, clock=self.network.clock)
        self.reactor.died = self._died
        self.connector = peers.Connector(self)
        host = Host(peers.HOST, "192.0.2.1", 5663, self.dialect, peers.OWN)
        log = Log(self.trace.note, self.network.clock)
        self.broker = ObservedBroker(
            self, host, self.settings, connector=self.connector, log=log, random=random
        )
        self.exchange = self.broker.exchange
        self._jobs = []
        self._application = self.network.connect(None)
        self._watcher = self.reactor.io(self._application.fd, "r", self._work, desc="application")

    def _choose(self):
        """Choose the weather of this schedule: settings, clients, faults."""
        random = self.random
        pick = self.rng.choice
        self.dialect = pick(("line", "classic", "versioned", "versioned", "versioned"))
        self.uses_hosts = self.dialect != "line" and random() < 0.6
        self.uses_cipher = self.dialect != "line" and random() < 0.25
        self.inline = random() < 0.4
        self.doom = pick((0.0, 0.5, 0.9, 1.0))
        self.refusals = pick((0.0, 0.0, 0.05, 0.3))
        self.outages = random() < 0.25
        if self.dialect == "line":
            self.states = peers.states_of("line", False)
        else:
            self.states = peers.states_of(self.dialect, self.uses_hosts and not self._all_inline())
        # Half of a schedule's clients are orderly, the others are of a few kinds.
        others = clients.HABITS[2:] + (clients.FAILING,) * 4
        few = [pick(others) for _ in range(4)]
        self.habits = [clients.KEPT, clients.KEPT, clients.KEPT, clients.RECONNECTING, *few]
        self.crowd = pick((1, 3, 8, 8, 20, 50))
        self.submitters = pick((0, 0, 1, 3))
        self.left = FEWEST + 30 + int(random() * 120)
        self.end = pick(("close", "close", "close", "drain", "stop", "close at once"))
        # A limit that is small in this schedule.
        tight = pick((None, None, "max_buffered", "max_buffered", "max_queue", "max_reply"))
        self.tight = tight == "max_buffered"
        if self.tight:
            self.habits += [clients.DEAF, clients.DEAF, clients.SLOW, clients.SLOW]
        values = {
            "max_connections": 1 + int(random() ** 1.5 * 10),
            "max_dialling": 1 + int(random() * 4),
            "connect_timeout": pick((1.0, 5.0)),
            "dialogue_timeout": pick((2.0, 30.0)),
            "reply_timeout": pick((2.0, 3.0, 10.0, 130.0)),
            "transaction_timeout": pick((20.0, 100.0, 600.0)),
            "queue_timeout": pick((0.5, 5.0, 60.0, 60.0)),
            "client_timeout": pick((2.0, 20.0, 60.0)),
            "idle_timeout": pick((1.0, 10.0, 300.0)),
            "idle_close_interval": pick((0.5, 30.0)),
            "connection_retries": pick((1, 5, 20)),
            "retry_longest": pick((0.2, 1.0, 60.0)),
            "max_early": pick((40, 500, 65536)),
            "max_request": pick((600, 8 << 20)),
            "abandoned": pick(("send", "drop")),
            "drain_timeout": pick((0.0, 1.0, 10.0)),
        }
        if tight == "max_buffered":
            values["max_buffered"] = 3000 + int(random() * 9000)
        elif tight == "max_queue":
            values["max_queue"] = 1 + int(random() * 8)
        if tight == "max_reply" or random() < 0.4:
            values["max_reply"] = 600 + int(random() * 900)
        self.settings = Settings(**values)
        # Which part of the replies is longer than a few bytes, and of these, longer than one read.
        self.long = 0.5 if self.tight else 0.4 if tight == "max_reply" else 0.1
        self.large = 0.0 if tight or "max_reply" in values else 0.1
        self._bounds()

    def _all_inline(self):
        return self.dialect == "versioned" and self.inline

    def _bounds(self):
        """Set how long anybody may wait, by the longest timeouts that were ever set."""
        settings = self.settings
        self.client_timeout = settings.client_timeout
        self.patience = settings.queue_timeout + settings.transaction_timeout + 1

    # The course of things.

    def run(self):
        """Let everything happen; return the Result."""
        network = self.network
        random = self.random
        for _ in range(self.crowd):
            network.after(int(random() * 300), self._arrive)
        for _ in range(self.submitters):
            network.after(int(random() * 300), self._submit_soon)
        for _ in range(int(random() * 4)):
            network.after(int(random() * 1500), self._interfere)
        if self.outages:
            network.after(int(random() * 1500), self._outage_begins)
        network.after(5 * TICKS, self._watch)
        failure = None
        try:
            self.reactor.run()
            self.reactor.run_once(0)
            self._watcher.cancel()
            self._application.far = self
            self._application.close()
            check_end(self)
            self.reactor.close()
        except Failure as error:
            failure = str(error)
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        return Result(self.rng_seed, self, self.failure or failure)

    def _arrive(self, _):
        if self.left > 0 and not self.ending:
            Client(self, self.habits[int(self.random() * len(self.habits))])

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
        if not self.finished:
            self.finished = True
            self.network.after(ticks, self._do, self._end)

    def spend(self):
        """Count a request that is sent; the last one may be the beginning of the end."""
        self.left -= 1
        if self.left == 0:
            # Some were not taken, because their client failed.
            self.left = max(0, FEWEST + 10 - self.exchange.requests)
            if not self.left and self.end != "close":
                self._end_after(int(self.random() * 40))

    def new_request(self, waiting):
        """Return a new request; append the command that the peer is to execute to `waiting`."""
        self.serial += 1
        self.spend()
        roll = self.random()
        line = b"put:%d:\n" % self.serial
        if roll < 0.06:
            line = b"put:%d:%b\n" % (self.serial, _FILLER[: int(roll * 8000)])
        elif self.uses_hosts and roll > 1 - ELSEWHERE:
            if roll > 1 - ELSEWHERE / 3:
                waiting.append(line)
                return b"sethost:%b:%b" % (peers.HOST.encode(), line)
            line = b"at:%d:\n" % self.serial
            waiting.append(line)
            return b"sethost:%b:%b" % (peers.OTHER_HOST.encode(), line)
        elif self.uses_cipher and 0.5 < roll < 0.5 + SEALED:
            if self.uses_hosts and roll < 0.5 + SEALED / 3:
                line = b"secret:at:%d:\n" % self.serial
                waiting.append(line)
                return b"sethost:%b:encrypt:%b" % (peers.OTHER_HOST.encode(), line)
            line = b"secret:%d:\n" % self.serial
            waiting.append(line)
            return b"encrypt:" + line
        elif self.dialect != "line" and 0.4 < roll < 0.4 + LOCAL:
            line = clients.LOCAL[self.serial % 2]
            self.count_client(line[:-1].decode())
        waiting.append(line)
        return line

    def execute(self, line):
        """Execute a request at the peer: return the reply, which is like no other."""
        if line in self.executed:
            self.fail(f"{line!r} was executed twice")
        roll = self.random()
        if roll < self.long:
            size = int(roll / self.long * 600)
            if roll < self.long * self.large:
                size = 65536 + int(roll * 1e8) % 140000
                self.count_broker("reply in several reads")
            reply = b"%d:%b:%b" % (len(self.executed), _FILLER[:size], line)
        else:
            reply = b"%d:%b" % (len(self.executed), line)
        # Nobody is to hear one that is too long.
        self.executed[line] = reply if len(reply) - 1 <= self.settings.max_reply else b""
        return reply

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
        request = self.new_request(command)
        background = self.random() < 0.5
        if background:
            self.background.add(request)
        transaction = self.broker.submit(request, self._ended, background=background)
        self.submitted[transaction] = (command[0], self.network.now)

    def _ended(self, transaction):
        entry = self.submitted.pop(transaction, None)
        if entry is None:
            self.fail("a transaction ended twice, or was never submitted")
        command, since = entry
        reply, executed = transaction.reply, self.executed.get(command)
        self.trace.note((self.network.now, 0, b"ended", command, reply, transaction.sent))
        if self.network.now - since > self.patience:
            self.fail("a transaction took longer than all timeouts together")
        if command in clients.LOCAL:
            if reply != b"ok" and not self.tight:
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
        random = self.random
        what = self.rng.choice(("revive", "close connections", "reconfigure", "reconfigure"))
        self.count_broker(what)
        if what == "revive":
            self.broker.revive()
        elif what == "close connections":
            self.broker.close_connections()
        else:
            before = self.client_timeout, self.patience
            self.settings = self.settings.replace(
                max_connections=1 + int(random() ** 2 * 10),
                max_dialling=1 + int(random() * 4),
                queue_timeout=self.rng.choice((0.5, 5.0, 60.0)),
                reply_timeout=self.rng.choice((3.0, 10.0, 130.0)),
                client_timeout=self.rng.choice((2.0, 20.0, 60.0)),
                idle_timeout=self.rng.choice((1.0, 10.0, 300.0)),
                connection_retries=self.rng.choice((1, 3, 5)),
            )
            self.broker.reconfigure(self.settings)
            self._bounds()
            self.client_timeout = max(self.client_timeout, before[0])
            self.patience = max(self.patience, before[1])

    def _outage_begins(self, _):
        """All connections are lost, and none can be made for a while."""
        self.outage = True
        for port in list(self.network.ports.values()):
            if type(port.far) is peers.Peer:
                port.far.lose_power()
        self.network.after(int(self.random() ** 2 * 20 * TICKS), self._outage_ends)

    def _outage_ends(self, _):
        self.outage = False

    def _end(self):
        """End the broker, in the way that was chosen."""
        self.ending = True
        self.count_broker(f"end: {self.end}")
        if self.end == "drain":
            self.drain_until = self.network.now + self.settings.drain_timeout + 1
            self.broker.drain(self._over)
            check_drain(self)
        elif self.end == "stop":
            self.broker.stop()
            self._over()
        else:
            self.broker.close()
            self._over()

    def _over(self):
        if self.end == "drain" and self.network.now > self.drain_until:
            self.fail("a drain took longer than drain_timeout")
        self.reactor.unloop()

    # Watching.

    def inspect(self):
        check_pass(self)

    def _watch(self, _):
        """Nobody waits longer than all timeouts together: look at those who still do."""
        for client in self.clients:
            if client.waiting and not client.closing:
                self.check_wait(client)
        if self.network.now > LONGEST:
            self.fail("the schedule does not come to its end")
        self.network.after(5 * TICKS, self._watch)

    def check_wait(self, client):
        if client.waiting or client.since:
            waited = self.network.now - client.since
            if client.waiting and waited > self.patience and not client.partial:
                self.fail(f"a client waited {waited:g} s without an answer")

    def fail(self, text):
        """Note that the broker did wrong, and end the schedule."""
        if self.failure is None:
            self.failure = text
        raise Failure(text)

    def _died(self, event, error):
        if self.failure is None:
            self.failure = f"{type(error).__name__}: {error}"
        self.error = error
        self.reactor.unloop()

    def count(self, fault, state):
        key = ("peer", fault, state)
        self.counts[key] = self.counts.get(key, 0) + 1

    def count_client(self, what, state=""):
        key = ("client", what, state)
        self.counts[key] = self.counts.get(key, 0) + 1

    def count_broker(self, what):
        key = ("broker", what, "")
        self.counts[key] = self.counts.get(key, 0) + 1

    def debug(self, text):
        pass

    def closed(self, reset):
        """The application's port was closed."""


def run(seed, parts):
    """Run the schedule of one seed over a part; return its Result."""
    world = World(seed, parts)
    world.rng_seed = seed
    return world.run()
