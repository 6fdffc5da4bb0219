"""The session key, and the envelope `enc:<length>:<hex>` of encrypted lines."""

from __future__ import annotations

from binascii import hexlify, unhexlify

from ..errors import LoncError
from .cipher import BLOCK_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cipher import Cipher

SEALED_PREFIX = b"enc:"

_KEY_DIGITS = 32

# G to P, then Q to Z: ten letters each, for the ten digits.
_HEXLIKE = bytes.maketrans(b"GHIJKLMNOPQRSTUVWXYZ", b"01234567890123456789")


class EnvelopeError(LoncError):
    """A line that begins with `enc:` cannot be opened; the text says why, never what it holds."""


def session_key(peer_id: str, own_id: str, buildkey: bytes) -> bytes:
    """Return the session key, 16 bytes, of a connection whose dialogue ended with `buildkey`.

    peer_id, own_id  the host ids of lond's side and of lonc's side
    buildkey         the peer's answer to `ekey`, without its LF, taken as it is

    The two ids, upper-cased and with letters turned into digits, and the peer's half are repeated
    three times; the first 32 characters are read as hexadecimal digits. Characters that are none
    count as Perl's pack("H32") counts them, because that is what both sides of a LON-CAPA network
    call: so does a text that is too short, which is filled up with zeros.
    Raises ValueError for an id with characters beyond Latin-1.
    """
    ids = (peer_id + own_id).encode("latin-1").upper().translate(_HEXLIKE)
    digits = (3 * (ids + buildkey))[:_KEY_DIGITS]
    nibbles = bytes(map(_nibble, digits)).ljust(_KEY_DIGITS, b"\0")
    return bytes(high << 4 | low for high, low in zip(nibbles[::2], nibbles[1::2], strict=True))


def _nibble(code: int) -> int:
    letter = 65 <= code <= 90 or 97 <= code <= 122
    return (code + 9 if letter else code) & 15


def seal(cipher: Cipher, command: bytes) -> bytes:
    """Return `command` encrypted, as `enc:<length>:<hex>` without LF.

    command: any bytes, also none. It is padded with 1 to 8 blanks, as lond does it: one block more
    than needed where the length is a multiple of the block size.
    Raises CipherUnavailable where the cipher fails.
    """
    length = len(command)
    padded = command.ljust((length // BLOCK_SIZE + 1) * BLOCK_SIZE)
    return b"%b%d:%b" % (SEALED_PREFIX, length, hexlify(cipher.encrypt(padded)))


def unseal(cipher: Cipher, line: bytes) -> bytes:
    """Return what is in an envelope, without padding and without LF.

    line: as `seal` makes it, with or without a LF at its end. Hexadecimal digits may be of either
    case, and the extra block for a length that is a multiple of the block size may be missing.
    Raises EnvelopeError for anything else, and for contents with a LF: they would be more than one
    line. Raises CipherUnavailable where the cipher fails.
    """
    prefix, _, rest = line.removesuffix(b"\n").partition(b":")
    count, colon, digits = rest.partition(b":")
    if prefix + b":" != SEALED_PREFIX or not colon:
        raise EnvelopeError("not an envelope: it must read enc:<length>:<hex>")
    try:
        blocks = unhexlify(digits)
    except ValueError:
        raise EnvelopeError("the text of the envelope is not hexadecimal") from None
    # No length of more digits than the text has bytes is true: int() need not see it.
    if not count.isdigit() or len(count) > len(digits) + 1:
        raise EnvelopeError("the length of the envelope is not a number that fits its text")
    length = int(count)
    whole, cut = divmod(length, BLOCK_SIZE)
    if len(blocks) not in ((whole + 1) * BLOCK_SIZE, (whole + (cut > 0)) * BLOCK_SIZE):
        raise EnvelopeError(f"the envelope claims {length} bytes and has {len(blocks)} of blocks")
    command = cipher.decrypt(blocks)[:length]
    if b"\n" in command:
        raise EnvelopeError("there is a line feed inside the envelope")
    return command
