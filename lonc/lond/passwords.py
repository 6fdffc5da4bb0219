"""Passwords, kept as salted and stretched digests."""

from __future__ import annotations

import hashlib
import hmac
import os

# What OWASP's password storage cheat sheet recommends for PBKDF2 with SHA-256 (2023).
_ROUNDS = 600_000


def digest(password: bytes) -> str:
    """Return a text that `matches` can check `password` against, different at each call."""
    salt = os.urandom(16)
    return f"{_ROUNDS}${salt.hex()}${_stretch(password, salt, _ROUNDS).hex()}"


def matches(password: bytes, kept: str) -> bool:
    """Return whether `kept`, a text that `digest` made, was made from `password`."""
    rounds, salt, wanted = kept.split("$")
    made = _stretch(password, bytes.fromhex(salt), int(rounds))
    return hmac.compare_digest(made, bytes.fromhex(wanted))


def _stretch(password: bytes, salt: bytes, rounds: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", password, salt, rounds)
