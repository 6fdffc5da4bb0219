from __future__ import annotations

import pytest

from lonc.wire.cipher import Cipher
from lonc.wire.envelope import EnvelopeError, seal, session_key, unseal

SEALED = [
    (b"ping", b"enc:4:0462206d2a7e9fe4"),
    (b"12345678", b"enc:8:a3c96b1f7e5b8fb50f67cfb2da1cab00"),
    (
        b"eget:msu:korte:environment:password",
        b"enc:35:38d9e76e880e5418663181818724efc2e52cd4e3ee740e3244db1465a0f6386e1b0e3d5cde6ae2a4",
    ),
    (b"", b"enc:0:0f67cfb2da1cab00"),
]


@pytest.mark.parametrize(
    ("peer", "own", "buildkey", "key"),
    [
        ("msul1", "msul2", b"48213A0C9F07712345", "624516245248213a0c9f077123456245"),
        (
            "annarborl1",
            "basementl1",
            b"7BCDEF0890AA12399871",
            "a77a1b8151ba2e6e73517bcdef0890aa",
        ),
        ("s10-x_1", "l.2", b"1A2B3C", "210d7f15e21a2b3c210d7f15e21a2b3c"),
    ],
)
def test_session_key_of_the_specification(peer: str, own: str, buildkey: bytes, key: str) -> None:
    assert session_key(peer, own, buildkey).hex() == key


def test_letters_of_the_ids_become_digits_in_either_case() -> None:
    alphabet = "abcdefghijklmnopqrstuvwxyz012345"
    key = session_key(alphabet[:20], alphabet[20:], b"")
    assert key.hex() == "abcdef" + "0123456789" + "0123456789" + "012345"
    assert session_key(alphabet[:20].upper(), alphabet[20:].upper(), b"") == key


def test_the_buildkey_is_read_as_perl_reads_it() -> None:
    # What Perl's unpack("H*", pack("H14", ...)) gives, between twice the id.
    assert session_key("1", "", b"gzGZ_-.\xe4\xff~`{[@").hex()[:16] == "10303fde4fe0bb01"


def test_a_text_that_is_too_short_is_filled_with_zeros() -> None:
    assert session_key("a", "b", b"c").hex() == "abcabcabc" + 23 * "0"
    assert session_key("", "", b"") == bytes(16)


def test_the_order_of_the_ids_matters() -> None:
    assert session_key("msul1", "msul2", b"1") != session_key("msul2", "msul1", b"1")


@pytest.mark.parametrize(("command", "line"), SEALED)
def test_sealing(cipher: Cipher, command: bytes, line: bytes) -> None:
    assert seal(cipher, command) == line


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize(("command", "line"), SEALED)
def test_opening(cipher: Cipher, command: bytes, line: bytes, end: bytes) -> None:
    assert unseal(cipher, line + end) == command


def test_upper_case_digits_are_taken(cipher: Cipher) -> None:
    for command, line in SEALED:
        assert unseal(cipher, b"enc" + line[3:].upper()) == command


def test_the_extra_block_may_be_missing(cipher: Cipher) -> None:
    assert unseal(cipher, b"enc:8:a3c96b1f7e5b8fb5\n") == b"12345678"
    assert unseal(cipher, b"enc:0:\n") == b""


def test_every_length_and_every_byte_comes_back(cipher: Cipher) -> None:
    every_byte = bytes(byte for byte in range(256) if byte != 0x0A) * 2
    for length in (*range(70), 255, 510):
        command = every_byte[-length:] if length else b""
        line = seal(cipher, command)
        _, count, digits = line.split(b":")
        assert int(count) == length
        assert len(digits) == 16 * (length // 8 + 1)
        assert unseal(cipher, line) == command


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"enc",
        b"enc:",
        b"enc:4",
        b"ENC:4:0462206d2a7e9fe4",
        b" enc:4:0462206d2a7e9fe4",
        b"sethost:enc:4:0462206d2a7e9fe4",
        b"enc::0462206d2a7e9fe4",
        b"enc:x:0462206d2a7e9fe4",
        b"enc:-4:0462206d2a7e9fe4",
        b"enc:+4:0462206d2a7e9fe4",
        b"enc: 4:0462206d2a7e9fe4",
        b"enc:0_4:0462206d2a7e9fe4",
        b"enc:\xb2:0462206d2a7e9fe4",
        b"enc:4:",
        b"enc:4:0462206d2a7e9fe",
        b"enc:4:0462206d2a7e9f",
        b"enc:4:0462206d2a7e9feg",
        b"enc:4:0462206d 2a7e9fe4",
        b"enc:4:0462206d2a7e9fe4 ",
        b"enc:4:0462206d2a7e9fe4\r\n",
        b"enc:4:0462206d2a7e9fe4\n\n",
        b"enc:4:0462206d2a7e9fe4:",
        b"enc:4:0462206d2a7e9fe4\0",
        b"enc:4:0462206d2a7e9f\xe4\xe4",
        b"enc:4:0462206d2a7e9fe40f67cfb2da1cab00",
        b"enc:9:0462206d2a7e9fe4",
        b"enc:16:a3c96b1f7e5b8fb5",
        b"enc:7:a3c96b1f7e5b8fb50f67cfb2da1cab00",
        b"enc:99999999999999999999:0462206d2a7e9fe4",
        pytest.param(b"enc:" + 10_000 * b"9" + b":0462206d2a7e9fe4", id="very long"),
    ],
)
def test_what_is_no_envelope_is_refused(cipher: Cipher, line: bytes) -> None:
    with pytest.raises(EnvelopeError):
        unseal(cipher, line)


@pytest.mark.parametrize("contents", [b"msul1\n", b"\n", b"one\ntwo"])
def test_contents_of_more_than_one_line_are_refused(cipher: Cipher, contents: bytes) -> None:
    with pytest.raises(EnvelopeError, match="line feed"):
        unseal(cipher, seal(cipher, contents))


def test_an_error_does_not_repeat_the_line(cipher: Cipher) -> None:
    with pytest.raises(EnvelopeError) as caught:
        unseal(cipher, b"enc:secret:secret")
    assert "secret" not in str(caught.value)
