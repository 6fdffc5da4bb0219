"""Brings one host's delayed messages to its broker, and their replies back to the directory."""

from __future__ import annotations

from math import isfinite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lonc._purepath import Transaction
    from lonc.broker.broker import Broker
    from lonc.delayed.delivery import Delivery
    from lonc.delayed.directory import Message


class Courier:
    """Drives a `Delivery` with the timers and the broker of its host.

    Messages are sent one after another, in the background: clients that wait go first.
    """

    __slots__ = ("_broker", "_closed", "_counted", "_ending", "_in_flight", "_timer", "delivery")

    def __init__(self, broker: Broker, delivery: Delivery) -> None:
        self._broker = broker
        self.delivery = delivery
        self._closed = self._ending = self._in_flight = False
        self._counted = 0
        self._timer = broker.reactor.timer(self._due, after=0, desc="delayed messages")

    def look(self) -> None:
        """Look through the directory now: the host may be there again, or somebody asked."""
        self.delivery.look()
        self._plan()

    def drain(self) -> None:
        """Take no further message, and close when the one that is being sent has ended.

        Until then its file stays locked, so that no successor sends it too.
        """
        self._ending = True
        self._timer.cancel()
        if not self._in_flight:
            self.close()

    def close(self) -> None:
        """Let go of the directory; whoever comes next begins with the message in hand."""
        self._closed = True
        self._timer.cancel()
        self.delivery.close()

    def _due(self, event: object) -> None:
        now = self._broker.reactor.now
        message = self.delivery.next(now)
        if message is not None:
            self._send(message)
        self._plan()

    def _send(self, message: Message) -> None:
        def ended(transaction: Transaction) -> None:
            self._in_flight = False
            if self._closed:
                return
            now = self._broker.reactor.now
            if transaction.reply is None:
                self.delivery.lost(message, now)
            else:
                self.delivery.answered(message, transaction.reply, now)
            if self._ending:
                self.close()
            else:
                self._plan()

        self._in_flight = True
        try:
            self._broker.submit(message.command, ended, background=True)
        except (ValueError, RuntimeError):
            self._in_flight = False
            self.delivery.lost(message, self._broker.reactor.now)

    def _plan(self) -> None:
        self._broker.waiting_elsewhere += self.delivery.waiting - self._counted
        self._counted = self.delivery.waiting
        if not self._ending and not self._closed and isfinite(self.delivery.due):
            self._timer.at = self.delivery.due
            self._timer.start()
