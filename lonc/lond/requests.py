"""The requests on one connection, without a socket: what a line asks for, and whether it may."""

from __future__ import annotations

from ..wire.cipher import CipherUnavailable, new_cipher
from ..wire.envelope import SEALED_PREFIX, EnvelopeError, seal, unseal
from ..wire.requests import parse
from .commands import Call, NoKey
from .greeting import WrongLine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..wire.cipher import Cipher
    from .profile import Profile

_SETHOST = b"sethost:"


class Answer:
    """What is said to a request: the word of its command, the text without LF, and whether the
    connection is closed after it."""

    __slots__ = ("last", "text", "word")

    def __init__(self, word: str, text: bytes, last: bool = False) -> None:
        self.word = word
        self.text = text
        self.last = last


class Requests:
    """Takes the lines of a connection whose dialogue is over.

    host_id   the host that the peer acts as; a `sethost:` changes it
    key       the session key, 16 bytes, or None
    carry_out callable: a Call -> its answer without LF
    complain  callable: what the client did wrong, without arguments
    """

    def __init__(
        self,
        profile: Profile,
        *,
        host_id: str,
        key: bytes | None,
        carry_out: Callable[[Call], bytes],
        complain: Callable[[str], None],
    ) -> None:
        self._profile = profile
        self._host_id = host_id
        self._key = key
        self._cipher: Cipher | None = None
        self._carry_out = carry_out
        self._complain = complain

    def receive(self, line: bytes) -> Answer:
        """Take one line without its LF, carry out what it asks for, return the answer.

        Raises WrongLine for a line that a client may not send; nothing was carried out then.
        """
        dialect = self._profile.dialect
        request = parse(line, dialect)
        if request.encrypted:
            raise WrongLine("sent a request in clear that begins with encrypt:", b"unknown_cmd")
        command = request.command
        if not command and not dialect.empty_is_request:
            raise WrongLine("sent an empty line", b"unknown_cmd")
        if command in dialect.local_lines:
            raise WrongLine("passed on a line that is for the broker itself", b"unknown_cmd")
        if request.host_id is not None:
            if not self._profile.inline_sethost:
                raise WrongLine(
                    "set the host in the line of the command, which this version does not take",
                    b"unknown_cmd",
                )
            self._act_as(request.host_id)
        elif dialect.sets_host and command.startswith(_SETHOST):
            self._act_as(command[len(_SETHOST) :].decode("latin-1"))
            return Answer("sethost", b"ok")
        sealed = dialect.encrypts and command.startswith(SEALED_PREFIX)
        if sealed:
            try:
                command = self._unseal(command)
            except NoKey:
                return Answer("enc", b"error:no_key")
        return self._carried_out(command, sealed)

    def _carried_out(self, command: bytes, encrypted: bool) -> Answer:
        call = Call(
            command,
            encrypted=encrypted,
            host_id=self._host_id,
            seal=self._seal,
            complain=self._complain,
        )
        text = self._carry_out(call)
        word = command.partition(b":")[0].decode("latin-1")
        return Answer(word, text, call.last)

    def _act_as(self, host_id: str) -> None:
        if host_id not in self._profile.ids:
            raise WrongLine("set a host that this peer is not", b"unable_to_set")
        self._host_id = host_id

    def _unseal(self, line: bytes) -> bytes:
        cipher = self._made_cipher()
        try:
            command = unseal(cipher, line)
        except EnvelopeError as error:
            raise WrongLine(f"sent a bad envelope: {error}", b"error: bad envelope") from error
        if seal(cipher, command) != line:
            self._complain("sent an envelope in an unusual form: upper case, or other padding")
        return command

    def _seal(self, text: bytes) -> bytes:
        return seal(self._made_cipher(), text)

    def _made_cipher(self) -> Cipher:
        if self._key is None:
            raise NoKey
        if self._cipher is None:
            try:
                self._cipher = new_cipher(self._key)
            except CipherUnavailable as error:
                raise NoKey from error
        return self._cipher
