"""What is chosen for a whole schedule: settings, clients, and how often what goes wrong."""

from __future__ import annotations

from lonc.broker.settings import Settings

from . import clients, peers

# Requests of one schedule, at least.
FEWEST = 90


class Weather:
    """What one schedule is like.

    `settings` are those that the broker begins with; `end` is how it is ended.  `doom` is the part
    of the connections that will fail, in one of `states`, and `refusals` that of the attempts.
    `long` is the part of the replies that are longer than a few bytes, and `large` the part of
    these that are longer than one read.  With `tight` all replies and requests together hardly fit
    into max_buffered, so that anybody may be closed.
    """

    def __init__(self, rng):
        random = rng.random
        pick = rng.choice
        self.hangups = random() < 0.7
        self.dialect = pick(("line", "classic", "versioned", "versioned", "versioned"))
        self.uses_hosts = self.dialect != "line" and random() < 0.6
        self.uses_cipher = self.dialect != "line" and random() < 0.25
        self.inline = self.dialect == "versioned" and random() < 0.4
        self.doom = pick((0.0, 0.5, 0.9, 1.0))
        self.refusals = pick((0.0, 0.0, 0.05, 0.3))
        self.outages = random() < 0.25
        self.states = peers.states_of(self.dialect, self.uses_hosts and not self.inline)
        # Half of a schedule's clients are orderly, the others are of a few kinds.
        others = clients.HABITS[2:] + (clients.FAILING,) * 4
        self.habits = [clients.KEPT, clients.KEPT, clients.KEPT, clients.RECONNECTING]
        self.habits += [pick(others) for _ in range(4)]
        self.crowd = pick((1, 3, 8, 8, 20, 50))
        self.submitters = pick((0, 0, 1, 3))
        self.requests = FEWEST + 30 + int(random() * 120)
        self.end = pick(("close", "close", "close", "drain", "stop", "close at once"))
        # One limit may be small.
        small = pick((None, None, "max_buffered", "max_buffered", "max_queue", "max_reply"))
        self.tight = small == "max_buffered"
        if self.tight:
            self.habits += [clients.DEAF, clients.DEAF, clients.SLOW, clients.SLOW]
        limits = {}
        if self.tight:
            limits["max_buffered"] = 3000 + int(random() * 5000)
        elif small == "max_queue":
            limits["max_queue"] = 1 + int(random() * 8)
        if small == "max_reply" or random() < 0.4:
            limits["max_reply"] = 600 + int(random() * 900)
        self.long = 0.5 if self.tight else 0.4 if small == "max_reply" else 0.1
        self.large = 0.0 if small or limits else 0.1
        self.settings = Settings(
            max_connections=1 + int(random() ** 1.5 * 10),
            max_dialling=1 + int(random() * 4),
            connect_timeout=pick((1.0, 5.0)),
            dialogue_timeout=pick((2.0, 30.0)),
            reply_timeout=pick((2.0, 3.0, 10.0, 130.0)),
            transaction_timeout=pick((20.0, 100.0, 600.0)),
            queue_timeout=pick((0.5, 5.0, 60.0, 60.0)),
            client_timeout=pick((2.0, 20.0, 60.0)),
            idle_timeout=pick((1.0, 10.0, 300.0)),
            idle_close_interval=pick((0.5, 30.0)),
            connection_retries=pick((1, 5, 20)),
            retry_longest=pick((0.2, 1.0, 60.0)),
            max_early=pick((40, 500, 65536)),
            max_request=pick((600, 8 << 20)),
            abandoned=pick(("send", "drop")),
            drain_timeout=pick((0.0, 1.0, 10.0)),
            **limits,
        )


def another(rng, settings):
    """Return settings that differ in what can be changed while connections stay."""
    random = rng.random
    pick = rng.choice
    return settings.replace(
        max_connections=1 + int(random() ** 2 * 10),
        max_dialling=1 + int(random() * 4),
        queue_timeout=pick((0.5, 5.0, 60.0)),
        reply_timeout=pick((3.0, 10.0, 130.0)),
        client_timeout=pick((2.0, 20.0, 60.0)),
        idle_timeout=pick((1.0, 10.0, 300.0)),
        connection_retries=pick((1, 3, 5)),
    )
