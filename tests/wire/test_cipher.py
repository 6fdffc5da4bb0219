from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import lonc
from lonc.wire import cipher as cipher_module
from lonc.wire.cipher import (
    BACK_ENDS,
    Cipher,
    CipherUnavailable,
    CryptographyCipher,
    LibgcryptCipher,
    new_cipher,
)

from .conftest import cipher_or_skip

KEY = bytes.fromhex("00010002000300040005000600070008")
CLEAR = bytes.fromhex("0000000100020003")
SEALED = bytes.fromhex("11fbed2b01986de5")


class Refusing(Cipher):
    """A library that is there and will not have this cipher."""

    name = "refusing"

    def __init__(self, key: bytes) -> None:
        raise RuntimeError("not approved here")


class Mistaken(Cipher):
    """A library that works and gives something else."""

    name = "mistaken"

    def __init__(self, key: bytes) -> None:
        pass

    def _encipher(self, blocks: bytes) -> bytes:
        return blocks

    def _decipher(self, blocks: bytes) -> bytes:
        return blocks


class OneWay(Mistaken):
    """A library that is right in one direction only."""

    name = "one way"

    def _encipher(self, blocks: bytes) -> bytes:
        return SEALED


class Working(Mistaken):
    """A library that gives the test vector; it keeps the key it was made with."""

    name = "working"

    def __init__(self, key: bytes) -> None:
        self.key = key

    def _encipher(self, blocks: bytes) -> bytes:
        return SEALED

    def _decipher(self, blocks: bytes) -> bytes:
        return CLEAR


def python(code: str, **environment: str) -> str:
    """Run `code` in a fresh interpreter that finds this package; return what it prints."""
    root = str(Path(lonc.__path__[0]).parent)
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture(params=BACK_ENDS, ids=lambda back_end: back_end.name)
def back_end(request: pytest.FixtureRequest) -> type[Cipher]:
    chosen: type[Cipher] = request.param
    cipher_or_skip(chosen, KEY)
    return chosen


def test_the_published_vector(back_end: type[Cipher]) -> None:
    cipher = back_end(KEY)
    assert cipher.encrypt(CLEAR) == SEALED
    assert cipher.decrypt(SEALED) == CLEAR


def test_blocks_stand_by_themselves(back_end: type[Cipher]) -> None:
    cipher = back_end(KEY)
    other = bytes(range(0xF8, 0x100))
    both = cipher.encrypt(CLEAR + other + CLEAR)
    assert both == SEALED + cipher.encrypt(other) + SEALED
    assert cipher.decrypt(both) == CLEAR + other + CLEAR


def test_nothing_stays_nothing(back_end: type[Cipher]) -> None:
    cipher = back_end(KEY)
    assert cipher.encrypt(b"") == b""
    assert cipher.decrypt(b"") == b""


@pytest.mark.parametrize("length", [1, 7, 9, 15])
def test_only_whole_blocks_are_taken(back_end: type[Cipher], length: int) -> None:
    cipher = back_end(KEY)
    with pytest.raises(ValueError, match="whole blocks"):
        cipher.encrypt(bytes(length))
    with pytest.raises(ValueError, match="whole blocks"):
        cipher.decrypt(bytes(length))


def test_both_back_ends_give_the_same() -> None:
    cipher_or_skip(LibgcryptCipher, KEY)
    cipher_or_skip(CryptographyCipher, KEY)
    random_bytes = random.Random(20030801).randbytes
    for count in (*range(20), 1000):
        key, clear = random_bytes(16), random_bytes(8 * count)
        one, other = LibgcryptCipher(key), CryptographyCipher(key)
        sealed = one.encrypt(clear)
        assert sealed == other.encrypt(clear)
        assert one.decrypt(sealed) == other.decrypt(sealed) == clear


def test_ciphers_live_side_by_side(back_end: type[Cipher]) -> None:
    ciphers = [back_end(bytes([number]) * 16) for number in range(50)]
    sealed = [cipher.encrypt(CLEAR) for cipher in ciphers]
    assert len(set(sealed)) == 50
    del ciphers[::2]
    assert [cipher.encrypt(CLEAR) for cipher in ciphers] == sealed[1::2]


def test_the_key_is_used() -> None:
    cipher = new_cipher(b"k" * 16, (Working,))
    assert isinstance(cipher, Working)
    assert cipher.key == b"k" * 16


def test_the_first_back_end_that_works_is_taken() -> None:
    assert new_cipher(KEY, (Working, Refusing)).name == "working"
    for absent in (Refusing, Mistaken, OneWay):
        assert new_cipher(KEY, (absent, Working)).name == "working"


def test_without_any_the_reasons_are_told() -> None:
    with pytest.raises(CipherUnavailable) as caught:
        new_cipher(KEY, (Refusing, Mistaken, OneWay))
    text = str(caught.value)
    assert "install libgcrypt" in text
    assert "refusing: not approved here" in text
    assert "mistaken: fails the test vector" in text
    assert "one way: fails the test vector" in text


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cipher_module, "_LIBGCRYPT", "libgcrypt-of-nobody.so.0")
    with pytest.raises(CipherUnavailable, match=r"libgcrypt: .*libgcrypt-of-nobody"):
        new_cipher(KEY, (LibgcryptCipher,))


def test_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(CipherUnavailable, match=r"cryptography: .*halted"):
        new_cipher(KEY, (CryptographyCipher,))


def test_fips_mode_counts_as_absent() -> None:
    cipher_or_skip(LibgcryptCipher, KEY)
    code = (
        "from lonc.wire.cipher import *\n"
        "from lonc.wire.cipher import LibgcryptCipher\n"
        "try:\n"
        "    print(new_cipher(bytes(16), (LibgcryptCipher,)).name)\n"
        "except CipherUnavailable as error:\n"
        "    print('absent:', error)\n"
    )
    assert python(code) == "libgcrypt"
    said = python(code, LIBGCRYPT_FORCE_FIPS_MODE="1")
    if said == "libgcrypt":
        pytest.skip("this libgcrypt has no FIPS mode")
    assert said.startswith("absent: ")
    assert "libgcrypt: " in said


@pytest.mark.parametrize("length", [0, 15, 17, 32])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        new_cipher(bytes(length), (Working,))


def test_nothing_is_loaded_before_a_cipher_is_wanted() -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import lonc.wire.requests, lonc.wire.dialogue\n"
        "new = set(sys.modules) - before\n"
        "print(sorted(name for name in new if name.split('.')[0] != 'lonc'))\n"
    )
    loaded = python(code)
    assert "ctypes" not in loaded
    assert "cryptography" not in loaded
