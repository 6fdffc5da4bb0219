"""Everything that happens because time has passed, in one place.

The exchange keeps what waits in the order of time, so one timer is enough, and it costs a request
nothing.  It is set when something begins to wait (`arm`), and set anew each time it fires, until
nothing is left that could pass a deadline.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lonc.broker.broker import Broker


class Janitor:
    """Ends what has waited too long, and closes connections that have been idle too long."""

    __slots__ = ("_broker", "_next_close", "_timer")

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._next_close = 0.0
        self._timer = broker.reactor.timer(self._clean, after=0, start=False, desc="janitor")

    def arm(self) -> None:
        """Look in time for what begins to wait now."""
        settings = self._broker.settings
        self._at(
            self._broker.reactor.poller.now
            + min(
                settings.queue_timeout,
                settings.client_timeout,
                settings.reply_timeout,
                settings.transaction_timeout,
                settings.idle_timeout,
            )
        )

    def look(self) -> None:
        """Look at once, because timeouts have changed."""
        if self._broker.exchange.timed:
            self._at(self._broker.reactor.poller.now)

    def close(self) -> None:
        """Stop for good."""
        self._timer.cancel()

    def _at(self, at: float) -> None:
        self._timer.at = at
        self._timer.start()

    def _clean(self, event: object) -> None:
        broker = self._broker
        exchange = broker.exchange
        requests, clients, links, _ = exchange.overdue()
        for transaction in requests:
            # The callback of an earlier one may have ended it.
            if not transaction.done:
                broker.request_failed(transaction, "it waited for queue_timeout")
                exchange.finish(transaction, None, "it waited for queue_timeout")
        for client in clients:
            broker.trouble("client_timeout", broker.settings.client_timeout)
            client.close()
        for link, timeout in links:
            broker.timed_out(link, timeout)
        closing = self._close_surplus()
        *_, later = exchange.overdue()
        if exchange.usable:
            # What becomes idle after this moment is not surplus before then.
            later = min(later, closing, broker.reactor.poller.now + broker.settings.idle_timeout)
        if later == float("inf"):
            exchange.timed = False
        else:
            self._at(later)

    def _close_surplus(self) -> float:
        """Close the link that has been idle longest, if that is too long; return when to look."""
        broker = self._broker
        exchange = broker.exchange
        now = broker.reactor.poller.now
        settings = broker.settings
        if exchange.idle and now >= self._next_close:
            # The bottom of the stack has been idle longest.
            link = exchange.idle[0]
            if now - link.idle_since >= settings.idle_timeout:
                self._next_close = now + settings.idle_close_interval
                broker.retire(link)
        if not exchange.idle:
            return float("inf")
        return max(exchange.idle[0].idle_since + settings.idle_timeout, self._next_close)
