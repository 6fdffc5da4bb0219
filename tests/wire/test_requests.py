from __future__ import annotations

import pytest

from lonc.wire.cipher import Cipher, CipherUnavailable
from lonc.wire.dialects import DIALECTS
from lonc.wire.requests import Request, command_word, parse, peer_line, select_host

LOND = ["classic", "versioned"]
EVERY_BYTE = bytes(byte for byte in range(256) if byte != 0x0A)


def parts(request: Request) -> tuple[str | None, bool, bytes]:
    return request.host_id, request.encrypted, request.command


@pytest.mark.parametrize("dialect", LOND)
@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize(
    ("line", "host_id", "encrypted", "command"),
    [
        (b"ping", None, False, b"ping"),
        (b"", None, False, b""),
        (b"sethost:msul1:ping", "msul1", False, b"ping"),
        (b"encrypt:ping", None, True, b"ping"),
        (b"sethost:msul1:encrypt:ping", "msul1", True, b"ping"),
        (b"encrypt:", None, True, b""),
        (b"sethost:msul1:", "msul1", False, b""),
        (b"sethost:msul1:encrypt:", "msul1", True, b""),
        # Odd ids are the peer's business.
        (b"sethost::ping", "", False, b"ping"),
        (b"sethost:::ping", "", False, b":ping"),
        (b"sethost: a b\t:ping", " a b\t", False, b"ping"),
        (b"sethost:../x:ping", "../x", False, b"ping"),
        (b"sethost:\x80\xff\0\r:ping", "\x80\xff\0\r", False, b"ping"),
        (b"sethost:encrypt:ping", "encrypt", False, b"ping"),
        (b"sethost:encrypt:encrypt:ping", "encrypt", True, b"ping"),
        # A `sethost` for nothing is itself the command.
        (b"sethost:msul1", None, False, b"sethost:msul1"),
        (b"sethost:", None, False, b"sethost:"),
        (b"sethost", None, False, b"sethost"),
        (b"encrypt", None, False, b"encrypt"),
        # Each comes off once, in this order.
        (b"sethost:a:sethost:b:ping", "a", False, b"sethost:b:ping"),
        (b"encrypt:encrypt:ping", None, True, b"encrypt:ping"),
        (b"encrypt:sethost:a:ping", None, True, b"sethost:a:ping"),
        # Nearly.
        (b" sethost:msul1:ping", None, False, b" sethost:msul1:ping"),
        (b"SETHOST:msul1:ping", None, False, b"SETHOST:msul1:ping"),
        (b"Encrypt:ping", None, False, b"Encrypt:ping"),
        (b"sethost:msul1: encrypt:ping", "msul1", False, b" encrypt:ping"),
        (b"get:encrypt:ping", None, False, b"get:encrypt:ping"),
        # Any byte but LF is data.
        (b"ping\r", None, False, b"ping\r"),
        (b"\0", None, False, b"\0"),
        pytest.param(EVERY_BYTE, None, False, EVERY_BYTE, id="every byte"),
        pytest.param(b"encrypt:" + EVERY_BYTE, None, True, EVERY_BYTE, id="encrypt every byte"),
        pytest.param(
            b"sethost:msul1:encrypt:" + EVERY_BYTE, "msul1", True, EVERY_BYTE, id="both every byte"
        ),
    ],
)
def test_parse(
    dialect: str, line: bytes, end: bytes, host_id: str | None, encrypted: bool, command: bytes
) -> None:
    assert parts(parse(line + end, DIALECTS[dialect])) == (host_id, encrypted, command)


@pytest.mark.parametrize(
    "line",
    [b"", b"ping", b"sethost:msul1:ping", b"encrypt:ping", b"sethost:a:encrypt:x", b"\0\r\x80\xff"],
)
def test_in_the_line_dialect_all_is_command(line: bytes) -> None:
    assert parts(parse(line + b"\n", DIALECTS["line"])) == (None, False, line)


def test_a_request_does_not_show_its_arguments() -> None:
    request = parse(b"auth:msu:korte:swordfish\n", DIALECTS["classic"])
    assert "swordfish" not in repr(request)


@pytest.mark.parametrize("host_id", ["msul1", "", "\x80\xff\0\r"])
def test_select_host_gives_the_bytes_of_the_id_back(host_id: str) -> None:
    raw = host_id.encode("latin-1")
    assert select_host(host_id) == b"sethost:" + raw + b"\n"
    request = parse(b"sethost:" + raw + b":ping\n", DIALECTS["classic"])
    assert request.host_id == host_id


@pytest.mark.parametrize(
    ("line", "inline", "separate"),
    [
        (b"ping", b"ping\n", b"ping\n"),
        (b"sethost:msul1:ping", b"sethost:msul1:ping\n", b"ping\n"),
        (b"sethost::ping", b"sethost::ping\n", b"ping\n"),
        (b"sethost:\x80\xff:p\0\r", b"sethost:\x80\xff:p\0\r\n", b"p\0\r\n"),
        (b"sethost:%b%%:100%s", b"sethost:%b%%:100%s\n", b"100%s\n"),
        (b"encrypt:ping", b"enc:4:0462206d2a7e9fe4\n", b"enc:4:0462206d2a7e9fe4\n"),
        (b"encrypt:", b"enc:0:0f67cfb2da1cab00\n", b"enc:0:0f67cfb2da1cab00\n"),
        (
            b"sethost:msul1:encrypt:ping",
            b"sethost:msul1:enc:4:0462206d2a7e9fe4\n",
            b"enc:4:0462206d2a7e9fe4\n",
        ),
    ],
)
def test_peer_line(cipher: Cipher, line: bytes, inline: bytes, separate: bytes) -> None:
    request = parse(line + b"\n", DIALECTS["versioned"])
    assert peer_line(request, cipher, inline_sethost=True) == inline
    assert peer_line(request, cipher, inline_sethost=False) == separate


@pytest.mark.parametrize("line", [b"ping", b"sethost:msul1:ping"])
def test_a_clear_request_needs_no_cipher(line: bytes) -> None:
    request = parse(line, DIALECTS["versioned"])
    assert peer_line(request, None, inline_sethost=True) == line + b"\n"


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("line", [b"encrypt:secret", b"sethost:msul1:encrypt:secret"])
def test_an_encrypted_request_has_no_clear_form(line: bytes, inline: bool) -> None:
    request = parse(line, DIALECTS["versioned"])
    with pytest.raises(CipherUnavailable) as caught:
        peer_line(request, None, inline_sethost=inline)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("dialect", LOND)
@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b"ping", "ping"),
        (b"put:msu:korte:env:SECRET=1", "put"),
        (b"encrypt:auth:msu:korte:SECRET", "auth"),
        (b"sethost:SECRET:ping", "ping"),
        (b"sethost:SECRET:encrypt:passwd:SECRET", "passwd"),
        (b"sethost:SECRET", "sethost"),
        (b"sethost:a:sethost:SECRET:ping", "sethost"),
        (b"a_B9:SECRET", "a_B9"),
        (b"12345678901234567890", "12345678901234567890"),
        (b"12345678901234567890:SECRET", "12345678901234567890"),
        (b"123456789012345678901", "?"),
        (b"123456789012345678901:SECRET", "?"),
        pytest.param(b"SECRET" * 100_000, "?", id="very long"),
        (b"", "?"),
        (b":SECRET", "?"),
        (b"encrypt:", "?"),
        (b"sethost:msul1:", "?"),
        (b"SECRET word", "?"),
        (b"SECRET=1:x", "?"),
        (b" SECRET:x", "?"),
        (b"SECRET\r", "?"),
        (b"SECRET\0:x", "?"),
        (b"SECRE\xc9T:x", "?"),
        (b"SE-CRET:x", "?"),
        (b"SECRET\xff", "?"),
    ],
)
def test_command_word(dialect: str, line: bytes, end: bytes, word: str) -> None:
    assert command_word(line + end, DIALECTS[dialect]) == word
    assert "SECRET" not in command_word(line + end, DIALECTS[dialect])


def test_every_byte_that_is_no_letter_digit_or_underscore_hides_the_word() -> None:
    shown = {
        byte for byte in EVERY_BYTE if command_word(b"pi%cng:x" % byte, DIALECTS["classic"]) != "?"
    }
    # A colon ends the word.
    assert bytes(sorted(shown)) == (
        b"0123456789:ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
    )


@pytest.mark.parametrize("line", [b"ping", b"put:SECRET", b"", b"sethost:a:encrypt:x"])
def test_in_the_line_dialect_nothing_may_be_logged(line: bytes) -> None:
    assert command_word(line, DIALECTS["line"]) == ""
