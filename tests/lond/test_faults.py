"""Faults: what they may say, and what each does on a real connection."""

from __future__ import annotations

import pytest

from lonc.errors import UsageError
from lonc.lond import Fault, Faults, parse_fault
from lonc.wire.envelope import seal

from .conftest import Bench, Caller, wait_until

CLASSIC = [b"init", b"", b"ekey"]
VERSIONED = [b"init", b"", b"version", b"sethost:msul1", b"ekey"]
STEP_LINES = [
    *(("classic", step, CLASSIC[:i]) for i, step in enumerate(("init", "echo", "ekey"), 1)),
    *(
        ("versioned", step, VERSIONED[:i])
        for i, step in enumerate(("init", "echo", "version", "sethost", "ekey"), 1)
    ),
]


def say_all(caller: Caller, lines: list[bytes]) -> None:
    """Say the lines of a dialogue, and stop before the answer to the last one is read."""
    answer = b""
    for line in lines[:-1]:
        answer = caller.ask(line or answer)
    caller.send((lines[-1] or answer) + b"\n")


# In the dialogue, at each step of each dialect that has one.


@pytest.mark.parametrize(("dialect", "step", "lines"), STEP_LINES)
def test_close_at_a_step(bench: Bench, dialect: str, step: str, lines: list[bytes]) -> None:
    peer = bench.peer(dialect=dialect, faults=[Fault("close", step=step, count=1)])
    caller = bench.caller(peer)
    say_all(caller, lines)
    assert caller.left() == b""
    assert bench.caller(peer, dialect).ask(b"ping") == b"msul1", "the fault is used up"
    assert bench.ended(peer) == []


@pytest.mark.parametrize(("dialect", "step", "lines"), STEP_LINES)
def test_reset_at_a_step(bench: Bench, dialect: str, step: str, lines: list[bytes]) -> None:
    caller = bench.caller(bench.peer(dialect=dialect, faults=[Fault("reset", step=step)]))
    say_all(caller, lines)
    with pytest.raises(ConnectionResetError):
        caller.left()


@pytest.mark.parametrize(("dialect", "step", "lines"), STEP_LINES)
def test_stall_at_a_step(bench: Bench, dialect: str, step: str, lines: list[bytes]) -> None:
    fault = Fault("stall", step=step, count=1)
    peer = bench.peer(dialect=dialect, faults=[fault])
    caller = bench.caller(peer)
    say_all(caller, lines)
    wait_until(lambda: fault.acted)
    assert bench.caller(peer, dialect).ask(b"ping") == b"msul1", "nobody else waits"
    peer.stop()
    assert caller.left() == b"", "nothing was answered"
    assert peer.complaints == []


@pytest.mark.parametrize(("dialect", "step", "lines"), STEP_LINES)
def test_say_at_a_step(bench: Bench, dialect: str, step: str, lines: list[bytes]) -> None:
    fault = Fault("say", step=step, text=b"unknown_cmd")
    caller = bench.caller(bench.peer(dialect=dialect, faults=[fault]))
    say_all(caller, lines)
    assert caller.read() == b"unknown_cmd"


@pytest.mark.parametrize(("dialect", "step", "lines"), STEP_LINES)
def test_cut_at_a_step(bench: Bench, dialect: str, step: str, lines: list[bytes]) -> None:
    caller = bench.caller(bench.peer(dialect=dialect, faults=[Fault("cut", step=step, byte=1)]))
    say_all(caller, lines)
    assert len(caller.left()) == 1


@pytest.mark.parametrize(("dialect", "step", "lines"), STEP_LINES)
def test_twice_at_a_step(bench: Bench, dialect: str, step: str, lines: list[bytes]) -> None:
    caller = bench.caller(bench.peer(dialect=dialect, faults=[Fault("twice", step=step)]))
    say_all(caller, lines)
    assert caller.read() == caller.read() != b""


def test_an_older_peer_can_be_played(bench: Bench) -> None:
    unknown = [Fault("say", step=step, text=b"unknown_cmd") for step in ("version", "sethost")]
    peer = bench.peer(dialect="versioned", faults=unknown)
    caller = bench.caller(peer)
    dialogue = caller.greet("versioned")
    assert dialogue.peer_version is None
    assert caller.ask(b"ping") == b"msul1"
    assert bench.ended(peer) == []


@pytest.mark.parametrize(("step", "lines"), [("init", [b"init"]), ("echo", [b"init", b""])])
def test_refuse(bench: Bench, step: str, lines: list[bytes]) -> None:
    caller = bench.caller(bench.peer(dialect="classic", faults=[Fault("refuse", step=step)]))
    say_all(caller, lines)
    assert caller.left() == b"refused\n"


def test_a_peer_refuses_at_the_first_line_if_not_told_otherwise() -> None:
    assert Fault("refuse").step == "init"


# Before anything is read.


@pytest.mark.parametrize("step", ["connect", "idle"])
@pytest.mark.parametrize("dialect", ["classic", "versioned", "line"])
class TestWhereTheClientIsToSpeak:
    def connection(self, bench: Bench, dialect: str, step: str, fault: Fault) -> Caller:
        peer = bench.peer(dialect=dialect, faults=[fault])
        return bench.caller(peer, dialect if step == "idle" else None)

    def test_close(self, bench: Bench, dialect: str, step: str) -> None:
        caller = self.connection(bench, dialect, step, Fault("close", step=step))
        assert caller.left() == b""

    def test_reset(self, bench: Bench, dialect: str, step: str) -> None:
        fault = Fault("reset", step=step)
        with pytest.raises(ConnectionResetError):
            self.connection(bench, dialect, step, fault).left()

    def test_say(self, bench: Bench, dialect: str, step: str) -> None:
        fault = Fault("say", step=step, text=b"unasked", count=1)
        caller = self.connection(bench, dialect, step, fault)
        assert caller.read() == b"unasked"

    def test_stall_until_the_client_leaves(self, bench: Bench, dialect: str, step: str) -> None:
        fault = Fault("stall", step=step)
        caller = self.connection(bench, dialect, step, fault)
        wait_until(lambda: fault.acted)
        caller.send(b"ping\n")
        (peer,) = bench.peers
        assert bench.ended(peer) == [], "what is not read is not judged"
        assert peer.served == 0

    def test_late(self, bench: Bench, dialect: str, step: str) -> None:
        fault = Fault("late", step=step, seconds=0.01)
        caller = self.connection(bench, dialect, step, fault)
        if step == "connect":
            caller.greet(dialect)
        assert caller.ask(b"ping") == b"msul1"
        assert fault.acted >= 1


# At a command.

REPLY = b"msul1\n"


@pytest.mark.parametrize("byte", range(len(REPLY) + 2))
def test_cut_at_every_byte(bench: Bench, byte: int) -> None:
    peer = bench.peer(dialect="classic", faults=[Fault("cut", command="ping", byte=byte)])
    caller = bench.caller(peer, "classic")
    assert caller.ask(b"echo:other") == b"other"
    caller.send(b"ping\n")
    assert caller.left() == REPLY[:byte]
    assert peer.executed[b"ping"] == 1, "the command was carried out all the same"


def test_close_at_a_command(bench: Bench) -> None:
    peer = bench.peer(dialect="line", faults=[Fault("close", command="put")])
    caller = bench.caller(peer)
    caller.send(b"put:a:b:c:d=1\n")
    assert caller.left() == b""
    assert peer.store.dump((b"a", b"b", b"c")) == [(b"d", b"1")]


def test_reset_at_a_command(bench: Bench) -> None:
    caller = bench.caller(bench.peer(dialect="line", faults=[Fault("reset", command="ping")]))
    caller.send(b"ping\n")
    with pytest.raises(ConnectionResetError):
        caller.left()


def test_stall_at_a_command(bench: Bench) -> None:
    peer = bench.peer(dialect="line", faults=[Fault("stall", command="ping", count=1)])
    caller = bench.caller(peer)
    caller.send(b"ping\n")
    wait_until(lambda: peer.served)
    assert bench.caller(peer).ask(b"echo:other") == b"other"
    caller.send(b"echo:more\n")
    assert bench.ended(peer) == ["sent more before it had its answer"]
    assert peer.executed == {b"ping": 1, b"echo:other": 1}


def test_late_at_a_command(bench: Bench) -> None:
    fault = Fault("late", command="ping", seconds=0.01)
    peer = bench.peer(dialect="line", faults=[fault])
    caller = bench.caller(peer)
    assert caller.ask(b"ping") == b"msul1"
    assert fault.acted == 1
    assert bench.ended(peer) == []


def test_a_late_answer_does_not_hold_up_the_end(bench: Bench) -> None:
    fault = Fault("late", command="ping", seconds=3600)
    peer = bench.peer(dialect="line", faults=[fault])
    caller = bench.caller(peer)
    caller.send(b"ping\n")
    wait_until(lambda: fault.acted)
    peer.stop()
    assert caller.left() == b""


def test_one_who_does_not_wait_for_a_late_answer_is_told(bench: Bench) -> None:
    peer = bench.peer(dialect="line", faults=[Fault("late", command="ping", seconds=0.1, count=1)])
    caller = bench.caller(peer)
    caller.send(b"ping\n")
    caller.send(b"echo:more\n")
    assert (caller.read(), caller.read()) == (b"msul1", b"more")
    assert bench.ended(peer) == ["sent more before it had its answer"]


@pytest.mark.parametrize("seconds", [None, 0.01])
def test_twice_at_a_command(bench: Bench, seconds: float | None) -> None:
    peer = bench.peer(
        dialect="line", faults=[Fault("twice", command="ping", seconds=seconds, count=1)]
    )
    caller = bench.caller(peer)
    assert caller.ask(b"ping") == b"msul1"
    assert caller.read() == b"msul1"
    assert caller.ask(b"ping") == b"msul1"
    assert caller.ask(b"echo:other") == b"other"
    assert peer.executed[b"ping"] == 2
    assert bench.ended(peer) == []


def test_say_at_a_command(bench: Bench) -> None:
    peer = bench.peer(dialect="classic", faults=[Fault("say", command="ping", text=b"enc:4:bad")])
    assert bench.caller(peer, "classic").ask(b"ping") == b"enc:4:bad"


def test_the_word_inside_an_envelope_counts(bench: Bench) -> None:
    peer = bench.peer(dialect="classic", faults=[Fault("say", command="ping", text=b"no")])
    caller, cipher = bench.sealing(peer)
    assert caller.ask(seal(cipher, b"ping")) == b"no"
    assert caller.ask(b"sethost:msul1:ping") == b"no"


def test_sethost_between_requests_is_a_command(bench: Bench) -> None:
    peer = bench.peer(dialect="classic", faults=[Fault("say", command="sethost", text=b"no")])
    assert bench.caller(peer, "classic").ask(b"sethost:msul1") == b"no"


def test_no_place_means_every_command_but_no_step(bench: Bench) -> None:
    peer = bench.peer(dialect="versioned", faults=[Fault("say", text=b"what?", count=2)])
    caller = bench.caller(peer, "versioned")
    assert [caller.ask(b"ping"), caller.ask(b"echo:x"), caller.ask(b"echo:x")] == [
        b"what?",
        b"what?",
        b"x",
    ]


def test_faults_at_one_place_act_one_after_another(bench: Bench) -> None:
    peer = bench.peer(dialect="line")
    first = peer.faults.add(Fault("say", command="ping", text=b"1", count=1))
    second = peer.faults.add(Fault("say", command="ping", text=b"2"))
    caller = bench.caller(peer)
    assert [caller.ask(b"ping") for _ in range(3)] == [b"1", b"2", b"2"]
    assert (first.acted, second.acted) == (1, 2)
    peer.faults.clear()
    assert caller.ask(b"ping") == b"msul1"


# What makes no sense.


def test_a_step_that_the_dialect_does_not_pass() -> None:
    faults = Faults(steps=("connect", "init", "idle"))
    with pytest.raises(UsageError, match="no step 'version', only connect, init, idle"):
        faults.add(Fault("close", step="version"))


@pytest.mark.parametrize("dialect", ["classic", "line"])
def test_a_peer_knows_the_steps_of_its_dialect(bench: Bench, dialect: str) -> None:
    with pytest.raises(UsageError, match="no step 'sethost'"):
        bench.peer(dialect=dialect, faults=[Fault("stall", step="sethost")])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no such kind"),
        ("explode", "no such kind"),
        ("close,step=nowhere", "no step 'nowhere'"),
        ("close,step=init,command=get", "a step or a command, not both"),
        ("close,5", "'5' does not read NAME=VALUE"),
        ("late,soon,seconds=1", "'soon' does not read NAME=VALUE"),
        ("close,text", "'text' does not read NAME=VALUE"),
        ("close,size=5", "no 'size'"),
        ("close,step=init,step=echo", "step is given twice"),
        ("close,byte=5", "takes no byte"),
        ("late", "needs seconds"),
        ("late,seconds=soon", "seconds cannot be 'soon'"),
        ("late,seconds=-1", "seconds counts from 0"),
        ("late,seconds=nan", "seconds counts from 0"),
        ("late,seconds=inf", "seconds counts from 0"),
        ("cut", "needs byte"),
        ("cut,byte=-1", "byte counts from 0"),
        ("cut,byte=1,step=connect", "there is no answer at connect"),
        ("twice,step=idle", "there is no answer at idle"),
        ("say", "needs text"),
        ("say,text=a\nb", "text is one line"),
        ("close,count=0", "count begins at 1"),
        ("refuse,step=version", "a peer refuses at init or echo"),
        ("refuse,command=get", "a peer refuses at init or echo"),
    ],
)
def test_a_wrong_fault_is_one_line(text: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_fault(text)
    assert problem in str(caught.value)


def test_the_text_of_a_fault() -> None:
    fault = parse_fault("cut,command=get,byte=5,count=2")
    assert (fault.kind, fault.command, fault.byte, fault.count) == ("cut", "get", 5, 2)
    assert fault.step is None
    assert parse_fault("say,count=1,text=a,b=c").text == b"a,b=c"
    assert repr(fault) == "<Fault cut at get, acted 0 times>"
