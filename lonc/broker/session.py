"""A connection to the peer as policy sees it: how it came about, and what was agreed on it."""

from __future__ import annotations

import socket

from lonc.wire.cipher import CipherUnavailable, new_cipher
from lonc.wire.dialogue import Dialogue, DialogueError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lonc._purepath import Link
    from lonc.broker.broker import Broker
    from lonc.wire.cipher import Cipher


class Session:
    """One attempt to open a link, and then the `data` of that link.

    It connects, leads the dialogue, and hands the link to the exchange's pool.  Where the peer
    refuses in the dialogue, the connector's next address is tried within the same attempt.

    `current_host` is the host id that the peer acts as on this connection, None while that is not
    certain.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._cipher: Cipher | None = None
        self._timer = broker.reactor.timer(
            self._too_slow, after=0, start=False, desc=f"dialogue with {broker.host.id}"
        )
        self.link: Link | None = None
        self.dialogue = self._new_dialogue()
        self.current_host: str | None = None
        # While the peer is being asked to act as a host: that host, and the line for it.
        self.selecting: tuple[str, bytes] | None = None
        # Whether the peer would not act as the host of a request: it is there, and has answered.
        self.declined = False
        broker.sessions[self] = None
        broker.exchange.dialling()
        self._attempt = broker.connector.attempt(self._connected, self._not_connected)

    def cipher(self) -> Cipher:
        """Return the cipher under the session key, made when it is first needed.

        Raises CipherUnavailable if this machine has none or the dialogue agreed on no key.
        """
        if self._cipher is None:
            if self.dialogue.key is None:
                raise CipherUnavailable("the connection has no session key")
            self._cipher = new_cipher(self.dialogue.key)
        return self._cipher

    def heard(self, line: bytes) -> None:
        """Take the peer's next line of the dialogue."""
        broker = self._broker
        link = self.link
        assert link is not None
        if self.dialogue.done:
            self._restored(line)
            return
        try:
            data = self.dialogue.receive(line)
        except DialogueError as error:
            broker.exchange.lose(link, str(error))
            return
        self._go_on(link, data)

    def restore(self) -> None:
        """Make the peer act as its own host id again, before the link goes back to the pool."""
        assert self.link is not None
        self._begin_step()
        self.link.write(b"sethost:%b\n" % self._broker.host.id.encode("latin-1"))

    def ended(self, reason: str) -> bool:
        """The link was lost while policy led the dialogue.

        Returns whether the attempt goes on, with the next address of the peer.
        """
        self._timer.stop()
        self.link = None
        if self.dialogue.done:
            self._timer.cancel()
            return False
        self._broker.exchange.dialling()
        self._attempt.rejected(reason)
        self.dialogue = self._new_dialogue()
        return True

    def cancel(self) -> None:
        """Let go of the connector and the timer, because the link is gone or needs neither."""
        self._timer.cancel()
        self._attempt.cancel()

    def give_up(self) -> None:
        """End an attempt that has no link yet, or between two addresses."""
        self.cancel()
        if self.link is None:
            self._broker.exchange.dial_failed()

    def _new_dialogue(self) -> Dialogue:
        broker = self._broker
        return Dialogue(broker.dialect, broker.host.own_id, broker.host.id)

    def _connected(self, connection: Any) -> None:
        broker = self._broker
        if isinstance(connection, socket.socket):
            connection = broker.reactor.parts.Port(connection.detach())
        try:
            link = broker.exchange.add_link(connection, self)
        except OSError as error:
            # The kernel has no room to watch it.
            connection.close()
            self._attempt.rejected(f"the connection cannot be used: {error.strerror or error}")
            return
        self.link = link
        self._go_on(link, self.dialogue.begin())

    def _not_connected(self, reason: str) -> None:
        self._timer.cancel()
        self._broker.exchange.dial_failed()
        self._broker.attempt_failed(self, reason)

    def _go_on(self, link: Link, data: bytes) -> None:
        self._broker.log.debug(f"dialogue in state {self.dialogue.state}")
        if self.dialogue.done:
            self._timer.stop()
            self._attempt.accepted()
            self.current_host = self.dialogue.current_host
            self._broker.ready(self)
            self._broker.exchange.release(link)
        else:
            self._begin_step()
            link.write(data)

    def _begin_step(self) -> None:
        self._timer.at = self._broker.reactor.poller.now + self._broker.settings.dialogue_timeout
        self._timer.start()

    def _restored(self, line: bytes) -> None:
        broker = self._broker
        assert self.link is not None
        self._timer.stop()
        if line == b"ok\n":
            self.current_host = broker.host.id
            broker.exchange.release(self.link)
        else:
            broker.exchange.lose(self.link, "the peer would not act as its own host again")

    def _too_slow(self, event: object) -> None:
        if self.link is not None:
            self._broker.exchange.lose(
                self.link, f"no answer within dialogue_timeout in state {self.dialogue.state}"
            )
