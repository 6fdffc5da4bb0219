"""A client's request: taken apart, and put together for the peer.

A request reads `[sethost:<id>:][encrypt:]<command>`. The first part names the host that the peer
is to act as, the second asks for the command to be encrypted on its way. Both mean something only
in dialects that say so; elsewhere the whole line is the command.
"""

from __future__ import annotations

from .cipher import CipherUnavailable
from .envelope import seal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cipher import Cipher
    from .dialects import Dialect

_SETHOST = b"sethost:"
_ENCRYPT = b"encrypt:"

_WORD_LENGTH = 20
_WORD_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"


class Request:
    """What a client's line asks for.

    host_id    the host that the peer is to act as, or None where the line did not say. Any bytes
               may stand there: the text is their Latin-1 reading, and `select_host` gives them back
    encrypted  True where the command must not leave this machine in clear
    command    the rest of the line, without LF
    """

    __slots__ = ("command", "encrypted", "host_id")

    def __init__(self, host_id: str | None, encrypted: bool, command: bytes) -> None:
        self.host_id = host_id
        self.encrypted = encrypted
        self.command = command


def parse(line: bytes, dialect: Dialect) -> Request:
    """Take a client's line apart.

    line: one line, with or without its LF.
    `sethost:<id>` without a second colon sets nothing for a command that follows: it is itself the
    command. Only one `sethost:` and one `encrypt:` come off, in this order.
    """
    rest = line.removesuffix(b"\n")
    host_id = None
    if dialect.sets_host and rest.startswith(_SETHOST):
        name, colon, command = rest[len(_SETHOST) :].partition(b":")
        if colon:
            host_id = name.decode("latin-1")
            rest = command
    encrypted = dialect.encrypts and rest.startswith(_ENCRYPT)
    if encrypted:
        rest = rest[len(_ENCRYPT) :]
    return Request(host_id, encrypted, rest)


def select_host(host_id: str) -> bytes:
    """Return the line, with LF, that makes the peer act as `host_id` from now on."""
    return _SETHOST + host_id.encode("latin-1") + b"\n"


def peer_line(request: Request, cipher: Cipher | None, *, inline_sethost: bool) -> bytes:
    """Return the line, with LF, that carries `request` to the peer.

    cipher          the connection's cipher; may be None where the request is not encrypted
    inline_sethost  whether the peer takes the host in the same line. Where it does not, the line
                    has the command only, and the peer must have answered `ok` to `select_host`.
    Raises CipherUnavailable for an encrypted request without a cipher: it has no clear form.
    """
    command = request.command
    if request.encrypted:
        if cipher is None:
            raise CipherUnavailable("the connection has no session key")
        command = seal(cipher, command)
    if inline_sethost and request.host_id is not None:
        return b"%b%b:%b\n" % (_SETHOST, request.host_id.encode("latin-1"), command)
    return command + b"\n"


def command_word(line: bytes, dialect: Dialect) -> str:
    """Return what a log may say about a client's line: the name of its command.

    line: as for `parse`.
    Returns "?" where the command does not begin with a plain word of at most 20 letters, digits and
    underscores that a colon or the end of the line follows, and "" in a dialect whose requests
    begin with no command's name. Arguments, which may hold passwords, are never part of it.
    """
    if not dialect.names_commands:
        return ""
    command = parse(line, dialect).command
    word = command[: _WORD_LENGTH + 1].partition(b":")[0]
    if not word or len(word) > _WORD_LENGTH or word.strip(_WORD_BYTES):
        return "?"
    return word.decode("ascii")
