"""Names to addresses: in a thread, whatever it does, and the reactor goes on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import threading

import pytest

from lonc.net.resolver import Resolver, literal_addresses
from lonc.reactor import Io
from tests.net.helpers import PATIENCE, Names, entry, join_lookups, no_descriptor_left, run_until

V4, V6 = socket.AF_INET, socket.AF_INET6


def ask(reactor, names, name="peer.example", port=5663):
    """Resolve, and return the lookup and the list into which its answer comes."""
    answers = []
    lookup = Resolver(reactor, names).resolve(name, port, lambda *answer: answers.append(answer))
    assert answers == []
    return lookup, answers


def resolve(reactor, names, name="peer.example", port=5663):
    _, answers = ask(reactor, names, name, port)
    run_until(reactor, lambda: answers)
    reactor.run_once(0)
    assert len(answers) == 1
    return answers[0]


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("127.0.0.1", [(V4, ("127.0.0.1", 5663))]),
        ("::1", [(V6, ("::1", 5663, 0, 0))]),
        ("2001:db8::7", [(V6, ("2001:db8::7", 5663, 0, 0))]),
    ],
)
def test_literal_needs_no_thread(reactor, monkeypatch, name, addresses):
    monkeypatch.setattr(threading.Thread, "start", lambda thread: pytest.fail("a thread"))
    names = Names(["192.0.2.1"])
    assert resolve(reactor, names, name) == (addresses, None)
    assert names.questions == []


@pytest.mark.parametrize("name", ["localhost", "peer.example", "", "é", "a\0b", "1.2.3.4.5"])
def test_a_name_is_no_literal(name):
    assert literal_addresses(name, 5663) is None


def test_order_is_kept_and_doubles_are_dropped(reactor):
    names = Names(["2001:db8::1", "192.0.2.2", "192.0.2.1", "192.0.2.2"])
    addresses, error = resolve(reactor, names)
    assert error is None
    assert [sockaddr[0] for _, sockaddr in addresses] == ["2001:db8::1", "192.0.2.2", "192.0.2.1"]
    assert [family for family, _ in addresses] == [V6, V4, V4]
    assert names.questions == [(b"peer.example", 5663, {"type": socket.SOCK_STREAM})]


def test_localhost(reactor):
    addresses, error = resolve(reactor, socket.getaddrinfo, "localhost")
    assert error is None
    assert {sockaddr[0] for _, sockaddr in addresses} <= {"127.0.0.1", "::1"}


def test_name_that_is_not_ascii(reactor):
    names = Names(["192.0.2.1"])
    resolve(reactor, names, "bücher.example")
    assert names.questions[0][0] == b"xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "not known"),
        (OSError(24, "Too many open files"), "Too many open files"),
        (RuntimeError("something odd"), "something odd"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_failure_is_an_answer(reactor, failure, error):
    addresses, reason = resolve(reactor, Names(failure))
    assert addresses is None
    assert error in reason


@pytest.mark.parametrize("name", ["a\0b", "é" * 70])
def test_name_that_nobody_can_have(reactor, name):
    addresses, reason = resolve(reactor, socket.getaddrinfo, name)
    assert addresses is None
    assert reason


def test_no_address_is_a_failure(reactor):
    assert resolve(reactor, Names([])) == (None, "the name has no address")


def test_the_reactor_goes_on_meanwhile(reactor):
    names = Names(["192.0.2.1"])
    names.hold.clear()
    _, answers = ask(reactor, names)
    ticks = []
    reactor.timer(ticks.append, after=0)
    run_until(reactor, lambda: ticks)
    assert answers == []
    names.hold.set()
    run_until(reactor, lambda: answers)


def test_questions_do_not_wait_for_each_other(reactor):
    slow = Names(["192.0.2.1"])
    slow.hold.clear()
    _, late = ask(reactor, slow)
    assert resolve(reactor, Names(["192.0.2.2"]))[1] is None
    assert late == []
    slow.hold.set()
    run_until(reactor, lambda: late)


class TestCancel:
    def test_while_the_thread_works(self, reactor):
        names = Names(["192.0.2.1"])
        names.hold.clear()
        lookup, answers = ask(reactor, names)
        lookup.cancel()
        names.hold.set()
        self.check_silence(reactor, answers)

    def test_when_the_thread_is_done(self, reactor):
        lookup, answers = ask(reactor, Names(["192.0.2.1"]))
        join_lookups()
        lookup.cancel()
        lookup.cancel()
        self.check_silence(reactor, answers)

    def test_of_a_literal(self, reactor):
        lookup, answers = ask(reactor, None, "127.0.0.1")
        lookup.cancel()
        self.check_silence(reactor, answers)

    def test_after_the_answer(self, reactor):
        lookup, answers = ask(reactor, Names(["192.0.2.1"]))
        run_until(reactor, lambda: answers)
        lookup.cancel()

    def check_silence(self, reactor, answers):
        assert reactor.deadline() is None
        assert not reactor.run_once(0)
        assert answers == []


def test_no_thread_is_left(reactor, monkeypatch):
    def fail(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    assert resolve(reactor, Names(["192.0.2.1"])) == (None, "can't start new thread")


def test_no_descriptor_is_left(reactor):
    with no_descriptor_left():
        answer = resolve(reactor, Names(["192.0.2.1"]))
    assert answer == (None, "Too many open files")


def test_the_answer_cannot_be_watched_for(reactor, monkeypatch):
    def fail(watcher):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Io, "start", fail)
    assert resolve(reactor, Names(["192.0.2.1"])) == (None, "No space left on device")


def run_python(program, env):
    program = textwrap.dedent(program)
    env = os.environ | env
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE, env=env)


def test_exit_does_not_wait_for_the_thread(part_env):
    run_python(
        """
        import threading
        from lonc.net.resolver import Resolver
        from lonc.reactor import Reactor

        asked = threading.Event()

        def stuck(host, port, **options):
            asked.set()
            threading.Event().wait()

        Resolver(Reactor(), stuck).resolve("peer.example", 5663, print)
        assert asked.wait(30)
        """,
        part_env,
    )


def test_ascii_names_cost_no_idna_tables(part_env):
    run_python(
        """
        import sys
        from lonc.net.resolver import Resolver
        from lonc.reactor import Reactor

        reactor = Reactor()
        for name in ("localhost", "127.0.0.1"):
            Resolver(reactor).resolve(name, 5663, lambda *answer: reactor.unloop())
            reactor.run()
        assert "encodings.idna" not in sys.modules
        """,
        part_env,
    )


def test_entries_look_like_the_systems():
    assert entry("127.0.0.1", 1) in socket.getaddrinfo("127.0.0.1", 1)
    assert entry("::1", 1) in socket.getaddrinfo("::1", 1)
