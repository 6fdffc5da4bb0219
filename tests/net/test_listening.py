"""Listening Unix sockets: whole when they appear, and never in the place of a live one."""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import socket
import stat
import threading

import pytest

from lonc.errors import ListenError, UsageError
from lonc.net import listening
from lonc.net.listening import (
    MAX_PATH,
    check_directory,
    open_unix_listener,
    remove_unix_listener,
)
from tests.net.helpers import no_descriptor_left, open_descriptors

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
not_as_root = pytest.mark.skipif(os.getuid() == 0, reason="root may do anything")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "msul1")


@pytest.fixture
def listen():
    """`open_unix_listener`, whose sockets are closed after the test."""
    opened = []

    def listen(path, **options):
        opened.append(open_unix_listener(path, **options))
        return opened[-1]

    yield listen
    for sock in opened:
        sock.close()


def answers(path):
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


def leave_stale(path):
    """Leave a socket file as a process does that was killed."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()


def refusal(path, **options):
    """Return the one line with which `open_unix_listener` refuses."""
    before = sorted(os.listdir(os.path.dirname(path) or "."))
    descriptors = open_descriptors()
    with pytest.raises(ListenError) as caught:
        open_unix_listener(path, **options)
    assert open_descriptors() == descriptors
    assert sorted(os.listdir(os.path.dirname(path) or ".")) == before
    text = str(caught.value)
    assert path in text
    assert "\n" not in text
    return text


def test_serves_clients(path, listen):
    sock = listen(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        accepted, _ = sock.accept()
        with accepted:
            client.sendall(b"ping\n")
            assert accepted.recv(100) == b"ping\n"


def test_is_nonblocking_and_closed_on_exec(path, listen):
    sock = listen(path)
    assert not sock.getblocking()
    assert not os.get_inheritable(sock.fileno())
    with pytest.raises(BlockingIOError):
        sock.accept()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
@pytest.mark.parametrize("mask", [0o077, 0])
def test_mode_whatever_the_umask(path, listen, mode, mask):
    old = os.umask(mask)
    try:
        listen(path, mode=mode)
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode


def test_mode_is_0660_by_default(path, listen):
    listen(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660


@as_root
@pytest.mark.parametrize("number", [12345, "12345"])
def test_owner_and_group_by_number(path, listen, number):
    listen(path, owner=number, group=number)
    assert (os.stat(path).st_uid, os.stat(path).st_gid) == (12345, 12345)


@as_root
def test_owner_and_group_by_name(path, listen):
    user = next(entry for entry in pwd.getpwall() if entry.pw_uid)
    group = next(entry for entry in grp.getgrall() if entry.gr_gid)
    listen(path, owner=user.pw_name, group=group.gr_name)
    assert (os.stat(path).st_uid, os.stat(path).st_gid) == (user.pw_uid, group.gr_gid)


def test_own_account_may_be_given(path, listen):
    listen(path, owner=os.getuid(), group=str(os.getgid()))
    assert (os.stat(path).st_uid, os.stat(path).st_gid) == (os.getuid(), os.getgid())


@not_as_root
def test_foreign_owner_is_refused(path):
    assert "only root" in refusal(path, owner=0)


@pytest.mark.parametrize("setting", ["owner", "group"])
@pytest.mark.parametrize("account", ["no such account", "nul\0", "-5"])
def test_unknown_account_is_refused(path, setting, account):
    with pytest.raises(ListenError, match=f"socket_{setting}"):
        open_unix_listener(path, **{setting: account})
    assert not os.path.lexists(path)


@pytest.mark.parametrize("number", [2**70, -5])
def test_impossible_account_number_is_refused(path, number):
    assert "cannot be given" in refusal(path, owner=number)


def test_whole_before_it_has_its_name(path, listen, monkeypatch):
    seen = []
    rename = os.rename

    def inspect(source, target):
        assert os.path.dirname(source) == os.path.dirname(path)
        assert not os.path.lexists(path)
        status = os.stat(source)
        seen.append((target, stat.S_IMODE(status.st_mode), status.st_gid, answers(source)))
        rename(source, target)

    monkeypatch.setattr(os, "rename", inspect)
    listen(path, mode=0o640, group=os.getgid())
    assert seen == [(path, 0o640, os.getgid(), True)]
    assert os.listdir(os.path.dirname(path)) == ["msul1"]


def test_nobody_can_connect_before_mode_and_owner_are_set(path, listen, monkeypatch):
    seen = []
    for name in ("chmod", "chown"):
        original = getattr(os, name)

        def inspect(file, *args, original=original, name=name):
            seen.append((name, answers(file)))
            original(file, *args)

        monkeypatch.setattr(os, name, inspect)
    listen(path)
    assert seen == [("chmod", False), ("chown", False)]


@pytest.mark.parametrize("step", ["chmod", "chown", "rename"])
def test_nothing_is_left_when_a_step_fails(path, monkeypatch, step):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    assert "No space left on device" in refusal(path)


def test_stale_socket_is_replaced(path, listen):
    leave_stale(path)
    assert not answers(path)
    listen(path)
    assert answers(path)


def test_stale_socket_survives_a_failure(path, monkeypatch):
    leave_stale(path)
    inode = os.stat(path).st_ino
    refusal(path, owner=2**70)
    assert os.stat(path).st_ino == inode


def test_stale_temporary_socket_is_replaced(path, listen, tmp_path):
    leave_stale(str(tmp_path / "~sul1"))
    listen(path)
    assert os.listdir(tmp_path) == ["msul1"]


def test_live_socket_is_not_replaced(path, listen):
    first = listen(path)
    assert "answers on msul1 already" in refusal(path)
    first.accept()[0].close()  # the question, which was hung up at once
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        first.accept()[0].close()


def test_live_socket_with_a_full_backlog_is_not_replaced(path, listen):
    listen(path, backlog=1)
    clients = []
    try:
        error = 0
        while not error:
            clients.append(socket.socket(socket.AF_UNIX))
            clients[-1].setblocking(False)
            error = clients[-1].connect_ex(path)
        assert "answers on msul1 already" in refusal(path)
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_live_socket_of_another_type_is_not_replaced(path, kind):
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(path)
        if kind == socket.SOCK_SEQPACKET:
            other.listen()
        assert "answers on msul1 already" in refusal(path)


@not_as_root
def test_socket_that_cannot_be_asked_is_not_replaced(path):
    leave_stale(path)
    os.chmod(path, 0)
    assert "cannot tell" in refusal(path)


def test_what_is_not_a_socket_is_not_replaced(path, tmp_path):
    (tmp_path / "msul1").write_text("mine")
    assert "is not a socket" in refusal(path)
    assert (tmp_path / "msul1").read_text() == "mine"


def test_a_link_to_a_socket_is_not_replaced(path, listen, tmp_path):
    listen(str(tmp_path / "other"))
    os.symlink("other", path)
    assert "is not a socket" in refusal(path)


def test_what_is_not_a_socket_is_not_removed_from_the_temporary_name(path, tmp_path):
    (tmp_path / "~sul1").write_text("mine")
    assert "~sul1 is there" in refusal(path)


def test_longest_path(tmp_path, listen):
    path = str(tmp_path / ("x" * (MAX_PATH - len(os.fsencode(tmp_path)) - 1)))
    assert len(os.fsencode(path)) == 107
    listen(path)
    assert answers(path)


@pytest.mark.parametrize("name", ["a", "é", "~", "~name", ".control"])
def test_short_and_odd_names(tmp_path, listen, name):
    path = str(tmp_path / name)
    listen(path)
    assert os.listdir(tmp_path) == [name]
    assert answers(path)


def test_too_long_path_names_its_parts(tmp_path):
    directory = str(tmp_path)
    name = "é" + "x" * (MAX_PATH - len(os.fsencode(directory)) - 2)
    text = refusal(f"{directory}/{name}")
    assert "108 bytes" in text
    assert "107" in text
    assert f"{len(os.fsencode(directory))} of the directory {directory}" in text
    assert f"{len(os.fsencode(name))} of the name {name}" in text


def test_relative_path(tmp_path, listen, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sock = listen("msul1")
    assert answers("msul1")
    assert remove_unix_listener("msul1", sock)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", ["", "/", "/tmp/", "a\0b"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(ListenError, match="not the path of a file"):
        open_unix_listener(path)


def test_missing_directory(tmp_path):
    with pytest.raises(ListenError, match="missing does not exist"):
        open_unix_listener(str(tmp_path / "missing" / "msul1"))


def test_directory_that_others_may_write(path, tmp_path):
    tmp_path.chmod(0o777)
    text = refusal(path)
    assert f"directory {tmp_path} " in text
    assert "chmod o-w" in text


@not_as_root
def test_directory_that_this_user_may_not_write(path, tmp_path):
    tmp_path.chmod(0o500)
    assert "read and write" in refusal(path)
    tmp_path.chmod(0o700)


@not_as_root
def test_directory_that_this_user_may_not_read(path, tmp_path):
    tmp_path.chmod(0o300)
    with pytest.raises(ListenError, match="read and write"):
        open_unix_listener(path)
    tmp_path.chmod(0o700)


class TestCheckDirectory:
    @pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o775, 0o2770])
    def test_accepts(self, tmp_path, mode):
        tmp_path.chmod(mode)
        check_directory(str(tmp_path))

    @pytest.mark.parametrize("mode", [0o777, 0o707, 0o702, 0o1777])
    def test_refuses_what_others_may_write(self, tmp_path, mode):
        tmp_path.chmod(mode)
        with pytest.raises(UsageError, match=f"mode {mode:04o}"):
            check_directory(str(tmp_path))

    def test_looks_at_what_a_link_names(self, tmp_path):
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        os.symlink("open", tmp_path / "link")
        with pytest.raises(UsageError, match="every user"):
            check_directory(str(tmp_path / "link"))

    def test_refuses_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(UsageError, match="is not a directory"):
            check_directory(str(tmp_path / "file"))

    def test_refuses_what_is_missing(self, tmp_path):
        with pytest.raises(UsageError, match="does not exist"):
            check_directory(str(tmp_path / "missing"))

    @pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
    def test_refuses_what_cannot_be_a_path(self, path):
        with pytest.raises(UsageError, match="cannot be used"):
            check_directory(path)


class TestTwoStarters:
    def test_the_second_waits_and_finds_the_first(self, path, listen, monkeypatch):
        """The first has asked whether the stale socket answers when the second begins."""
        leave_stale(path)
        outcome = []
        second_waits_or_ended = threading.Event()

        def second():
            try:
                outcome.append(open_unix_listener(path))
            except ListenError as error:
                outcome.append(str(error))
            finally:
                second_waits_or_ended.set()

        thread = threading.Thread(target=second)
        chmod, wait = os.chmod, listening.time.sleep

        def interrupt(file, mode):
            if threading.current_thread() is not thread:
                thread.start()
                assert second_waits_or_ended.wait(30)
            chmod(file, mode)

        def notice(seconds):
            second_waits_or_ended.set()
            wait(seconds)

        monkeypatch.setattr(os, "chmod", interrupt)
        monkeypatch.setattr(listening.time, "sleep", notice)
        first = listen(path)
        thread.join(30)
        assert len(outcome) == 1
        assert isinstance(outcome[0], str)
        assert "answers on msul1 already" in outcome[0]
        assert first.accept()[0].close() is None  # the second one's question
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            first.accept()[0].close()

    def test_of_many_one_wins(self, path):
        leave_stale(path)
        together = threading.Barrier(8)
        opened, refused = [], []

        def start():
            together.wait(30)
            try:
                opened.append(open_unix_listener(path))
            except ListenError as error:
                refused.append(str(error))

        threads = [threading.Thread(target=start) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        for sock in opened:
            sock.close()
        assert (len(opened), len(refused)) == (1, 7)
        assert all("answers on msul1 already" in text for text in refused)

    def test_a_lock_that_is_never_released(self, path, tmp_path, monkeypatch):
        monkeypatch.setattr(listening, "LOCK_WAIT", 0.02)
        lock = os.open(tmp_path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert "locked" in refusal(path)
        finally:
            os.close(lock)

    def test_the_lock_ends_with_the_opening(self, path, tmp_path, listen):
        listen(path)
        lock = os.open(tmp_path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(lock)


class TestRemove:
    @pytest.mark.parametrize("close_first", [False, True])
    def test_its_own_file(self, path, listen, close_first):
        sock = listen(path)
        if close_first:
            sock.close()
        assert remove_unix_listener(path, sock)
        assert not os.path.lexists(path)
        assert not remove_unix_listener(path, sock)

    def test_its_own_file_after_a_change_of_mode(self, path, listen):
        sock = listen(path)
        os.chmod(path, 0o600)
        assert remove_unix_listener(path, sock)

    def test_in_a_locked_directory(self, path, tmp_path, listen, monkeypatch):
        """Everybody who may read the directory can lock it."""
        monkeypatch.setattr(listening, "LOCK_WAIT", 0.02)
        sock, closed = listen(path), listen(str(tmp_path / "closed"))
        closed.close()
        lock = os.open(tmp_path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert remove_unix_listener(path, sock)
            # One that answers no more may just be replaced.
            with pytest.raises(ListenError, match="locked"):
                remove_unix_listener(str(tmp_path / "closed"), closed)
        finally:
            os.close(lock)
        assert os.listdir(tmp_path) == ["closed"]

    def test_not_a_successors(self, path, listen):
        first = listen(path)
        first.close()
        second = listen(path)
        assert not remove_unix_listener(path, first)
        assert answers(path)
        assert remove_unix_listener(path, second)

    def test_not_a_file_that_was_given_its_inode_number(self, path, listen):
        sock = listen(path)
        sock.close()
        os.utime(path, ns=(0, 0))
        assert not remove_unix_listener(path, sock)

    def test_not_another_file(self, path, listen, tmp_path):
        sock = listen(path)
        os.unlink(path)
        (tmp_path / "msul1").write_text("mine")
        assert not remove_unix_listener(path, sock)
        assert (tmp_path / "msul1").read_text() == "mine"

    def test_not_for_a_socket_that_was_passed_in(self, path):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
            sock.listen()
            assert not remove_unix_listener(path, sock)
            assert os.path.lexists(path)

    def test_with_its_directory_gone(self, tmp_path, listen):
        (tmp_path / "sockets").mkdir()
        path = str(tmp_path / "sockets" / "msul1")
        sock = listen(path)
        os.unlink(path)
        (tmp_path / "sockets").rmdir()
        assert not remove_unix_listener(path, sock)

    @not_as_root
    def test_that_the_system_refuses(self, path, tmp_path, listen):
        sock = listen(path)
        tmp_path.chmod(0o500)
        with pytest.raises(ListenError, match="cannot be removed"):
            remove_unix_listener(path, sock)
        tmp_path.chmod(0o700)


def test_no_descriptor_is_left(path):
    with no_descriptor_left(), pytest.raises(ListenError, match="Too many open files"):
        open_unix_listener(path)
    assert not os.path.lexists(path)
