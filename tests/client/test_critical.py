"""Commands that must get there: sent now, or written down, or refused in words."""

from __future__ import annotations

import os
import stat

import pytest

from lonc.client import Client

COMMAND = b"put:msu:korte:environment:a=b"


@pytest.fixture
def delayed(directory):
    path = directory / "delayed"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def perm_log(directory):
    return directory / "perm.log"


def records(perm_log):
    return [
        line.rsplit(b":", 3)[0].split(b":", 1)[1] for line in perm_log.read_bytes().splitlines()
    ]


def test_reply_comes_back_and_nothing_is_written(daemon, delayed, perm_log):
    daemon.serve(daemon.answers(b"ok\n"))
    with Client(daemon.path) as client:
        assert client.critical(COMMAND, perm_log) == b"ok"
    assert os.listdir(delayed) == []
    assert not perm_log.exists()


def test_error_reply_is_a_reply(daemon, delayed, perm_log):
    daemon.serve(daemon.answers(b"error: no\n"))
    with Client(daemon.path) as client:
        assert client.critical(COMMAND, perm_log) == b"error: no"
    assert os.listdir(delayed) == []


@pytest.mark.parametrize("end", [b"con_lost\n", b"", b"half"])
def test_lost_command_is_delayed(daemon, delayed, perm_log, end):
    daemon.serve(daemon.answers(end))
    with Client(daemon.path) as client:
        assert client.critical(COMMAND, perm_log) == b"con_delayed"
        assert client.why_failed is None
    (name,) = os.listdir(delayed)
    assert name.split(".")[2:] == [str(os.getpid()), "put", "msul1"]
    assert (delayed / name).read_bytes() == COMMAND + b"\n"
    assert stat.S_IMODE((delayed / name).stat().st_mode) == 0o600
    assert records(perm_log) == [b"D:msul1:" + COMMAND]


def test_nobody_listens(directory, delayed, perm_log):
    with Client(directory / "msul1") as client:
        assert client.critical(COMMAND, perm_log) == b"con_delayed"
    assert len(os.listdir(delayed)) == 1


def test_host_and_directory_may_be_told(directory, perm_log):
    elsewhere = directory / "elsewhere"
    elsewhere.mkdir()
    with Client(directory / "s10.lite.msu.edu") as client:
        answer = client.critical(COMMAND, perm_log, host="l.2", directory=elsewhere)
    assert answer == b"con_delayed"
    (name,) = os.listdir(elsewhere)
    assert name.split(".", 4)[3:] == ["put", "l.2"]


@pytest.mark.parametrize(
    ("command", "dialect", "word"),
    [
        (b"sethost:msul1:encrypt:passwd:secret", "versioned", "passwd"),
        (b"se-cret/..:x", "versioned", "command"),
        (b"1secret:x", "versioned", "command"),
        (b"secret", "line", "command"),
    ],
)
def test_name_holds_the_command_word_at_most(directory, delayed, perm_log, command, dialect, word):
    with Client(directory / "msul1") as client:
        assert client.critical(command, perm_log, dialect=dialect) == b"con_delayed"
    assert [name.split(".")[3] for name in os.listdir(delayed)] == [word]


def test_missing_directory(directory, perm_log):
    with Client(directory / "msul1") as client:
        assert client.critical(COMMAND, perm_log) == b"con_failed"
        assert str(directory / "delayed") in str(client.why_failed)
    assert records(perm_log) == [b"F:msul1:" + COMMAND]


def test_directory_that_others_may_write(directory, delayed, perm_log):
    delayed.chmod(0o777)
    with Client(directory / "msul1") as client:
        assert client.critical(COMMAND, perm_log) == b"con_failed"
        assert "others may write" in str(client.why_failed)
    assert os.listdir(delayed) == []


def test_encrypted_command_leaves_its_word_in_the_log(directory, delayed, perm_log):
    with Client(directory / "msul1") as client:
        assert client.critical(b"encrypt:passwd:secret", perm_log) == b"con_delayed"
    assert records(perm_log) == [b"D:msul1:passwd"]


def test_log_that_cannot_be_written_changes_no_answer(directory, delayed):
    with Client(directory / "msul1") as client:
        assert client.critical(COMMAND, directory / "none" / "log") == b"con_delayed"
    assert len(os.listdir(delayed)) == 1


def test_delayed_after_a_failure(directory, perm_log):
    with Client(directory / "msul1") as client:
        assert client.critical(COMMAND, perm_log) == b"con_failed"
        (directory / "delayed").mkdir()
        assert client.critical(COMMAND, perm_log) == b"con_delayed"
        assert client.why_failed is None


@pytest.mark.parametrize("command", [b"", b"a\nb"])
def test_what_is_no_command(directory, delayed, perm_log, command):
    with Client(directory / "msul1") as client, pytest.raises(ValueError, match="line"):
        client.critical(command, perm_log)
    assert os.listdir(delayed) == []
