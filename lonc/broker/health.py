"""How well a host does: the budget of retries, the spacing of attempts, and the word DEAD.

The theory: a web worker must not wait for a host that is down.  So after a failure that leaves
nothing alive, requests are turned away until the next attempt is due (WAITING), and the first one
after that moment makes it.  Each failure takes one from a budget; an answered request refills it.
When the budget is empty and nothing is alive the host is DEAD: requests are turned away until
somebody revives it, or a probe that the broker makes by itself comes through.

    UP --failure, nothing alive--> WAITING --a link is ready--> UP
    UP, WAITING --the same, budget empty--> DEAD --a link is ready, or revive--> UP

Nothing here has a clock, a timer or a log: the time comes in as an argument.
"""

from __future__ import annotations

from os import urandom

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lonc.broker.settings import Settings

UP = "up"
WAITING = "waiting"
DEAD = "DEAD"

FAILED = "failed with nothing alive"
EXHAUSTED = "failed with nothing alive and no retries left"
READY = "a link is ready"
REVIVED = "revived"

STATES = {
    UP: {FAILED: WAITING, EXHAUSTED: DEAD, READY: UP, REVIVED: UP},
    WAITING: {FAILED: WAITING, EXHAUSTED: DEAD, READY: UP, REVIVED: UP},
    DEAD: {FAILED: WAITING, EXHAUSTED: DEAD, READY: UP, REVIVED: UP},
}


class Health:
    """The state of one host.

    `state` is UP, WAITING or DEAD; `retries` is what is left of the budget; `due` is the time, on
    the scale of the times given, before which no connection is to be attempted.

    `random` returns numbers from 0 to 1; with it the pauses are spread, so that many brokers do
    not come back to one peer in step.
    """

    __slots__ = ("_failures", "_random", "_settings", "due", "retries", "state")

    def __init__(self, settings: Settings, random: Callable[[], float]) -> None:
        self._settings = settings
        self._random = random
        self._failures = 0
        self.retries = settings.connection_retries
        self.due = 0.0
        self.state = UP

    @property
    def sound(self) -> bool:
        """Whether there is nothing that an answered request could mend."""
        return not self._failures and self.retries >= self._settings.connection_retries

    def snapshot(self) -> tuple[str, int, int, float]:
        """Return plain values from which `restore` makes another Health go on where this one is."""
        return self.state, self.retries, self._failures, self.due

    def restore(self, snapshot: tuple[str, int, int, float]) -> None:
        """Go on where the one that gave the snapshot was; times must be on the same scale."""
        self.state, self.retries, self._failures, self.due = snapshot

    def reconfigure(self, settings: Settings) -> None:
        """Use other settings from now on; the budget keeps what was taken from it."""
        taken = self._settings.connection_retries - self.retries
        self._settings = settings
        self.retries = max(0, settings.connection_retries - taken)

    def failed(self, now: float) -> None:
        """Take one from the budget, and put the next attempt off, twice as long as the last time.

        For an attempt that failed, a connection lost before it answered anything, and a peer that
        did not reply in time.
        """
        settings = self._settings
        self.retries = max(0, self.retries - 1)
        # Beyond 2**30 times the first pause every pause is the longest one.
        pause = min(settings.retry_longest, settings.retry_first * 2 ** min(30, self._failures))
        spread = 1 + settings.retry_jitter * (2 * self._random() - 1)
        self._failures += 1
        self.due = now + pause * spread

    def alone(self, now: float) -> bool:
        """Take note that no connection is alive or on its way any more.

        Returns whether requests are to be turned away: the host is WAITING or DEAD.  It is not if
        the next attempt may be made at once.
        """
        if self.retries == 0:
            self._enter(EXHAUSTED)
        elif now < self.due:
            self._enter(FAILED)
        else:
            return False
        return True

    def ready(self) -> None:
        """A dialogue has ended well.  The first connection of a DEAD host gives it one retry."""
        if self.state == DEAD:
            self.retries = max(1, self.retries)
        self._enter(READY)

    def answered(self) -> None:
        """The peer has answered a request: everything is forgiven."""
        self.retries = self._settings.connection_retries
        self._failures = 0
        self.due = 0.0

    def revive(self) -> None:
        """Give a fresh budget, and let the next attempt be made at once."""
        self.answered()
        self._enter(REVIVED)

    def _enter(self, event: str) -> None:
        try:
            self.state = STATES[self.state][event]
        except KeyError:
            raise AssertionError(f"no entry for {event!r} in state {self.state!r}") from None


def by_chance() -> float:
    """Return a number from 0 to 1, as good as any, without the module `random`."""
    return int.from_bytes(urandom(4), "little") / 0xFFFFFFFF
