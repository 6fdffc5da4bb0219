"""What the tests of this room share: a cipher of each kind that the machine has."""

from __future__ import annotations

import pytest

from lonc.wire.cipher import BACK_ENDS, Cipher, CipherUnavailable, new_cipher


def cipher_or_skip(back_end: type[Cipher], key: bytes) -> Cipher:
    """A cipher that works; the test is skipped where the library lacks IDEA, and only there."""
    try:
        back_end(key).encrypt(bytes(8))
    except (ImportError, OSError, CipherUnavailable) as error:
        pytest.skip(f"{back_end.name}: {error}")
    except Exception as error:
        if not type(error).__module__.startswith("cryptography."):
            raise
        pytest.skip(f"{back_end.name}: {error}")
    return new_cipher(key, (back_end,))


@pytest.fixture(params=BACK_ENDS, ids=lambda back_end: back_end.name)
def cipher(request: pytest.FixtureRequest) -> Cipher:
    """A cipher under the session key of the specification's first vector."""
    return cipher_or_skip(request.param, bytes.fromhex("624516245248213a0c9f077123456245"))
