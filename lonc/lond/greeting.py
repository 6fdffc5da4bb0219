"""The peer's side of the dialogue, without a socket: a line in, a line out."""

from __future__ import annotations

import secrets
import time

from ..wire.envelope import session_key
from ..wire.requests import command_word
from .faults import ECHO, EKEY, INIT, SETHOST, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .profile import Profile


class WrongLine(Exception):
    """The client may not send this line here.

    The text says why, without arguments; `answer` is what the client gets for it, without LF.
    """

    def __init__(self, reason: str, answer: bytes) -> None:
        super().__init__(reason)
        self.answer = answer


class Greeting:
    """The dialogue on one connection. Each step must come in its turn, and be right.

    step     the step whose line is due, or None when the dialogue is over
    host_id  the host that the peer acts as
    key      the session key, 16 bytes, or None as long as there is none
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._left = list(profile.dialogue)
        # lond runs its process id and the time together; here all connections have one process.
        self._challenge = b"%d%d" % (secrets.randbelow(10**6), time.time())
        self.host_id = profile.id
        self.key: bytes | None = None

    @property
    def step(self) -> str | None:
        return self._left[0] if self._left else None

    def receive(self, line: bytes) -> bytes:
        """Take the line that is due, without its LF; return the answer, without LF.

        Raises WrongLine for any other; the dialogue then has failed. IndexError when it is over.
        """
        answer = _ANSWERS[self._left[0]](self, line)
        del self._left[0]
        return answer

    def _init(self, line: bytes) -> bytes:
        self._expect(b"init", line)
        return self._challenge

    def _echo(self, line: bytes) -> bytes:
        if line != self._challenge:
            raise WrongLine("did not echo the challenge", b"refused")
        return b"ok"

    def _version(self, line: bytes) -> bytes:
        self._expect(b"version", line)
        return f"version:{self._profile.version}".encode()

    def _sethost(self, line: bytes) -> bytes:
        word, _, host_id = line.partition(b":")
        self._expect(b"sethost", word)
        wanted = host_id.decode("latin-1")
        if wanted not in self._profile.ids:
            raise WrongLine("set a host that this peer is not", b"unable_to_set")
        self.host_id = wanted
        return b"ok"

    def _ekey(self, line: bytes) -> bytes:
        self._expect(b"ekey", line)
        buildkey = secrets.token_hex(9).upper().encode()
        self.key = session_key(self.host_id, self._profile.caller, buildkey)
        return buildkey

    def _expect(self, due: bytes, line: bytes) -> None:
        if line != due:
            word = command_word(line, self._profile.dialect)
            raise WrongLine(f"sent {word} where {due.decode()} was due", b"refused")


_ANSWERS: dict[str, Callable[[Greeting, bytes], bytes]] = {
    INIT: Greeting._init,
    ECHO: Greeting._echo,
    VERSION: Greeting._version,
    SETHOST: Greeting._sethost,
    EKEY: Greeting._ekey,
}
