"""IDEA, the cipher of LON-CAPA's encrypted requests, from a library of the system.

Two back ends are tried in order: libgcrypt, which most Linux systems have, and the `cryptography`
package. Neither is loaded before a cipher is wanted. A back end counts as there only if it
enciphers and deciphers a published test vector: a library may lack IDEA, or refuse it, as in FIPS
mode.
"""

from __future__ import annotations

from ..errors import LoncError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

KEY_SIZE = 16
BLOCK_SIZE = 8

# The test vector that the authors of IDEA published.
_TEST_KEY = bytes.fromhex("00010002000300040005000600070008")
_TEST_CLEAR = bytes.fromhex("0000000100020003")
_TEST_SEALED = bytes.fromhex("11fbed2b01986de5")

_LIBGCRYPT = "libgcrypt.so.20"
_GCRY_CIPHER_IDEA = 1
_GCRY_CIPHER_MODE_ECB = 1


class CipherUnavailable(LoncError):
    """A request cannot be encrypted; the text says why, and what would help."""


class Cipher:
    """IDEA under one key of 16 bytes, every block by itself (ECB mode).

    A back end is a subclass with a `name`. Making it, or using it, may raise any exception of the
    library behind it; what `new_cipher` returns has shown that it works.
    """

    __slots__ = ()

    name: str

    def __init__(self, key: bytes) -> None:
        raise NotImplementedError

    def encrypt(self, clear: bytes) -> bytes:
        """Return `clear` enciphered. Raises ValueError unless it is whole blocks of 8 bytes."""
        return self._encipher(_whole_blocks(clear))

    def decrypt(self, sealed: bytes) -> bytes:
        """Return `sealed` deciphered. Raises ValueError unless it is whole blocks of 8 bytes."""
        return self._decipher(_whole_blocks(sealed))

    def _encipher(self, blocks: bytes) -> bytes:
        raise NotImplementedError

    def _decipher(self, blocks: bytes) -> bytes:
        raise NotImplementedError


def _whole_blocks(text: bytes) -> bytes:
    if len(text) % BLOCK_SIZE:
        raise ValueError(f"{len(text)} bytes are not whole blocks of {BLOCK_SIZE}")
    return text


class LibgcryptCipher(Cipher):
    """IDEA from libgcrypt, called through ctypes."""

    __slots__ = ("_close", "_decrypt", "_encrypt", "_handle", "_new_buffer")

    name = "libgcrypt"

    def __init__(self, key: bytes) -> None:
        self._handle: Any = None
        import ctypes

        library = ctypes.CDLL(_LIBGCRYPT)
        error, handle = ctypes.c_uint, ctypes.c_void_p
        number, size, text = ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p

        def declare(name: str, result: Any, *arguments: Any) -> Any:
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
            return function

        describe = declare("gcry_strerror", text, error)

        def succeeded(code: int, *_: object) -> None:
            if code:
                raise CipherUnavailable(describe(code).decode("ascii", "replace"))

        check_version = declare("gcry_check_version", text, text)
        open_cipher = declare(
            "gcry_cipher_open", error, ctypes.POINTER(handle), number, number, ctypes.c_uint
        )
        set_key = declare("gcry_cipher_setkey", error, handle, text, size)
        self._encrypt = declare("gcry_cipher_encrypt", error, handle, text, size, text, size)
        self._decrypt = declare("gcry_cipher_decrypt", error, handle, text, size, text, size)
        self._close = declare("gcry_cipher_close", None, handle)
        self._new_buffer = ctypes.create_string_buffer
        for function in (open_cipher, set_key, self._encrypt, self._decrypt):
            function.errcheck = succeeded

        # The library wants this call before any other: it initializes itself there.
        check_version(None)
        opened = handle()
        open_cipher(ctypes.byref(opened), _GCRY_CIPHER_IDEA, _GCRY_CIPHER_MODE_ECB, 0)
        self._handle = opened
        set_key(opened, key, len(key))

    def __del__(self) -> None:
        if self._handle is not None:
            self._close(self._handle)

    def _encipher(self, blocks: bytes) -> bytes:
        return self._run(self._encrypt, blocks)

    def _decipher(self, blocks: bytes) -> bytes:
        return self._run(self._decrypt, blocks)

    def _run(self, crypt: Callable[..., object], blocks: bytes) -> bytes:
        out = self._new_buffer(len(blocks))
        crypt(self._handle, out, len(blocks), blocks, len(blocks))
        return out.raw


class CryptographyCipher(Cipher):
    """IDEA from the `cryptography` package."""

    __slots__ = ("_cipher",)

    name = "cryptography"

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives import ciphers

        try:
            from cryptography.hazmat.decrepit.ciphers.algorithms import IDEA
        except ImportError:
            import warnings

            # Older versions keep it here, and some warn that it is about to move.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from cryptography.hazmat.primitives.ciphers.algorithms import IDEA
        self._cipher = ciphers.Cipher(IDEA(key), ciphers.modes.ECB())

    def _encipher(self, blocks: bytes) -> bytes:
        return self._cipher.encryptor().update(blocks)

    def _decipher(self, blocks: bytes) -> bytes:
        return self._cipher.decryptor().update(blocks)


BACK_ENDS: tuple[type[Cipher], ...] = (LibgcryptCipher, CryptographyCipher)


def new_cipher(key: bytes, back_ends: Sequence[type[Cipher]] = BACK_ENDS) -> Cipher:
    """Return a cipher for `key` from the first back end that works.

    key: 16 bytes, the session key of a connection.
    Raises CipherUnavailable, with what is wrong with each back end, where none works; ValueError
    for a key of another length.
    """
    if len(key) != KEY_SIZE:
        raise ValueError(f"a key has {KEY_SIZE} bytes, not {len(key)}")
    problems = []
    for back_end in back_ends:
        try:
            _prove(back_end)
            return back_end(key)
        # No list of what libraries raise where IDEA is missing or refused would stay complete.
        except Exception as error:
            problems.append(f"{back_end.name}: {error}")
    raise CipherUnavailable(
        "no library gives IDEA; install libgcrypt or the Python package cryptography"
        f" ({'; '.join(problems)})"
    )


def _prove(back_end: type[Cipher]) -> None:
    cipher = back_end(_TEST_KEY)
    if cipher.encrypt(_TEST_CLEAR) != _TEST_SEALED or cipher.decrypt(_TEST_SEALED) != _TEST_CLEAR:
        raise CipherUnavailable("fails the test vector")
