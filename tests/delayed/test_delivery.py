"""One host's messages: one after another, with every kind of answer and every kind of trouble."""

from __future__ import annotations

import os

import pytest

from .disks import SimulatedDisk
from .site import Settings, Site

A = b"put:msu:korte:environment:a=1"
B = b"put:msu:korte:environment:a=2"


@pytest.fixture
def site():
    return Site(SimulatedDisk())


def put(site, name, content=A, **how):
    site.disk.put(f"{site.path}/{name}", content, **how)


def two(site):
    """Two settled messages for msul1."""
    put(site, "100.0.7.put.msul1", A)
    put(site, "200.0.7.put.msul1", B)


def start(site):
    delivery = site.delivery()
    return delivery, delivery.next(site.now)


def answer(site, delivery, message, reply):
    delivery.answered(message, reply, site.now)
    return delivery.next(site.now)


def test_one_after_another(site):
    two(site)
    delivery, message = start(site)
    assert message.command == A
    assert delivery.waiting == 2
    assert delivery.next(site.now) is None
    assert delivery.due == float("inf")
    message = answer(site, delivery, message, b"ok")
    assert site.waiting() == ["200.0.7.put.msul1"]
    assert message.command == B
    assert answer(site, delivery, message, b"ok") is None
    assert site.waiting() == []
    assert site.records() == [("S", A), ("S", B)]
    assert delivery.due == site.now + 60


@pytest.mark.parametrize("reply", [b"ok", b"", b"con_delayed", b"unknown", b"key_exists: a", b"1"])
def test_any_other_reply_delivers(site, reply):
    put(site, "100.0.7.put.msul1")
    delivery, message = start(site)
    answer(site, delivery, message, reply)
    assert site.waiting() == []
    assert site.records() == [("S", A)]
    assert site.log == ["SUCCESS: Delayed message 100.0.7 (put) for msul1 delivered"]


def test_other_hosts_messages_are_let_be(site):
    put(site, "100.0.7.put.msul2")
    _, message = start(site)
    assert message is None
    assert site.waiting() == ["100.0.7.put.msul2"]


@pytest.mark.parametrize("say", ["lost", "con_lost"])
def test_lost_message_stays_and_holds_the_later_ones(site, say):
    two(site)
    delivery, message = start(site)
    if say == "lost":
        delivery.lost(message, site.now)
    else:
        delivery.answered(message, b"con_lost", site.now)
    assert delivery.next(site.now) is None
    assert delivery.due == site.now + 60
    assert len(site.waiting()) == 2
    site.wait(60)
    assert delivery.next(site.now).command == A


def test_look_ends_the_pause_after_a_loss(site):
    put(site, "100.0.7.put.msul1")
    delivery, message = start(site)
    delivery.lost(message, site.now)
    delivery.look()
    assert delivery.next(site.now).command == A


def test_look_does_not_send_twice_at_one_time(site):
    two(site)
    delivery, message = start(site)
    delivery.look()
    assert delivery.next(site.now) is None
    assert answer(site, delivery, message, b"ok").command == B


def test_losses_never_set_a_message_aside(site):
    put(site, "100.0.7.put.msul1")
    delivery, message = start(site)
    for _ in range(50):
        delivery.lost(message, site.now)
        site.wait(60)
        message = delivery.next(site.now)
        assert message.command == A


@pytest.mark.parametrize("reply", [b"error: 2 tie(GDBM) secret", b"refused", b"unknown_cmd"])
def test_error_is_tried_again_and_then_set_aside(site, reply):
    two(site)
    delivery, message = start(site)
    pauses = []
    for _ in range(Settings.delayed_attempts - 1):
        assert answer(site, delivery, message, reply) is None
        pauses.append(delivery.due - site.now)
        assert len(site.waiting()) == 2
        site.wait(pauses[-1])
        message = delivery.next(site.now)
        assert message.command == A
    assert pauses == [1, 2]
    assert site.records() == []
    message = answer(site, delivery, message, reply)
    assert message.command == B
    assert site.failed() == ["100.0.7.put.msul1"]
    assert site.failed_commands() == [A]
    assert site.records() == [("F", A)]
    word = reply.partition(b":")[0].decode()
    assert site.log[0] == (
        f"WARNING: Delayed message 100.0.7 (put) for msul1 was answered {word}: attempt 1 of 3"
    )
    assert site.log[-1] == (
        "CRITICAL: Delayed message 100.0.7 (put) for msul1 was set aside in /site/delayed/failed"
    )
    assert "secret" not in str(site.log)


def test_pause_after_errors_grows_no_longer_than_a_scan(site, monkeypatch):
    monkeypatch.setattr(Settings, "delayed_attempts", 2000)
    put(site, "100.0.7.put.msul1")
    delivery, message = start(site)
    pauses = []
    while message is not None:
        answer(site, delivery, message, b"error: no")
        pauses.append(delivery.due - site.now)
        site.wait(pauses[-1])
        message = delivery.next(site.now)
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(pauses) == 2000
    assert site.failed() == ["100.0.7.put.msul1"]


def test_look_does_not_use_up_the_attempts(site):
    put(site, "100.0.7.put.msul1")
    delivery, message = start(site)
    answer(site, delivery, message, b"refused")
    delivery.look()
    assert delivery.next(site.now) is None


def test_answer_in_between_counts_for_its_message_alone(site):
    two(site)
    delivery, message = start(site)
    for _ in range(2):
        answer(site, delivery, message, b"refused")
        site.wait(10)
        message = delivery.next(site.now)
    message = answer(site, delivery, message, b"ok")
    assert message.command == B
    assert answer(site, delivery, message, b"refused") is None
    assert site.failed() == []


def test_young_file_is_looked_at_when_it_is_old_enough(site):
    put(site, "100.0.7.put.msul1", age=2)
    delivery, message = start(site)
    assert message is None
    assert delivery.due == site.now + 3
    site.wait(3)
    assert delivery.next(site.now).command == A


def test_young_file_holds_later_ones(site):
    put(site, "100.0.7.put.msul1", age=1)
    put(site, "200.0.7.put.msul1", B, age=100)
    delivery, message = start(site)
    assert message is None
    site.wait(4)
    assert delivery.next(site.now).command == A


def test_new_message_is_found_by_the_next_scan(site):
    delivery, message = start(site)
    assert message is None
    put(site, "100.0.7.put.msul1")
    site.wait(59)
    assert delivery.next(site.now) is None
    site.wait(1)
    assert delivery.next(site.now).command == A


def test_older_message_that_comes_while_others_are_sent(site):
    put(site, "200.0.7.put.msul1", A)
    put(site, "300.0.7.put.msul1", B)
    delivery, message = start(site)
    put(site, "100.0.7.put.msul1", b"older")
    delivery.look()
    message = answer(site, delivery, message, b"ok")
    assert message.command == b"older"


def test_locked_file_is_skipped_and_holds_the_later_ones(site):
    two(site)
    _, first = start(site)
    assert first.command == A
    other, message = start(site)
    assert message is None
    assert other.due == site.now + 1


def test_file_that_another_process_delivered_meanwhile(site):
    two(site)
    delivery, message = start(site)
    answer(site, delivery, message, b"ok")
    site.disk.unlink(f"{site.path}/200.0.7.put.msul1")
    delivery = site.delivery()
    assert delivery.next(site.now) is None


def test_close_lets_others_have_the_file(site):
    put(site, "100.0.7.put.msul1")
    delivery, _ = start(site)
    delivery.close()
    assert delivery.next(site.now) is None
    assert start(site)[1].command == A


@pytest.mark.parametrize(
    ("content", "readable", "why"),
    [
        (b"", True, "it is empty"),
        (b"\n", True, "it is empty"),
        (b"a\nb\n", True, "it holds more than one line"),
        (b"x" * 2000, True, "it is longer than the 1000 bytes of max_request"),
        (b"secret", False, "it cannot be read (Permission denied)"),
    ],
)
def test_unusable_file_is_set_aside_when_it_has_settled(site, content, readable, why):
    put(site, "100.0.7.putsecret.msul1", content, readable=readable, age=3)
    put(site, "200.0.7.put.msul1", B)
    delivery, message = start(site)
    assert message is None
    assert len(site.waiting()) == 2
    site.wait(2)
    message = delivery.next(site.now)
    assert message.command == B
    assert site.failed() == ["100.0.7.putsecret.msul1"]
    assert site.records() == []
    assert site.log == [
        f"CRITICAL: Delayed message 100.0.7 for msul1 cannot be sent: {why}; it was set aside in "
        "/site/delayed/failed"
    ]


def test_full_disk_before_sending(site):
    put(site, "100.0.7.put.msul1")
    site.disk.read_only = True  # the permanent log cannot be made
    delivery, message = start(site)
    assert message is None
    assert delivery.due == site.now + 60
    assert site.log[0].startswith(
        "CRITICAL: Delayed messages for msul1 wait, and nothing is removed: Read-only file system"
    )
    site.disk.read_only = False
    site.wait(60)
    assert delivery.next(site.now).command == A


def test_read_only_directory_sends_nothing_that_it_could_not_remove(site):
    site.permanent_log.check()
    two(site)
    site.disk.read_only = True
    delivery = site.delivery()
    site.deliver(delivery, until=300)
    assert sum(site.executed.values()) == 0
    assert all("the directory is not writable" in line for line in site.log)
    site.disk.read_only = False
    site.deliver(delivery)
    assert site.executed == {A: 1, B: 1}


@pytest.mark.parametrize("trouble", ["full", "short", "read-only"])
def test_answered_message_that_cannot_be_taken_away_is_not_sent_again(site, trouble):
    site.permanent_log.check()
    two(site)
    delivery, message = start(site)
    if trouble == "full":
        site.disk.capacity = 0
    elif trouble == "short":
        site.disk.short = 10
    else:
        site.disk.read_only = True
    assert answer(site, delivery, message, b"ok") is None
    site.deliver(delivery, until=300)
    assert len(site.waiting()) == 2
    assert all(line.startswith("CRITICAL: ") for line in site.log)
    assert "secret" not in str(site.log)
    # Its lock is still held.
    assert start(site)[1] is None

    site.disk.capacity = site.disk.short = 1 << 30
    site.disk.read_only = False
    site.deliver(delivery)
    assert site.executed == {B: 1}
    assert site.records() == [("S", A), ("S", B)]
    assert site.waiting() == []


def test_refused_message_that_cannot_be_set_aside_is_not_sent_again(site, monkeypatch):
    monkeypatch.setattr(Settings, "delayed_attempts", 1)
    site.permanent_log.check()
    put(site, "100.0.7.put.msul1")
    delivery, message = start(site)
    site.disk.read_only = True
    assert answer(site, delivery, message, b"refused") is None
    site.disk.read_only = False
    site.deliver(delivery)
    assert site.executed == {}
    assert site.failed_commands() == [A]
    assert site.records() == [("F", A)]


def test_directory_that_cannot_be_listed(site):
    put(site, "100.0.7.put.msul1")

    def listdir(path):
        raise OSError(5, "Input/output error", path)

    site.disk.listdir = listdir
    delivery, message = start(site)
    assert message is None
    assert "Input/output error" in site.log[0]
    del site.disk.listdir
    site.wait(60)
    assert delivery.next(site.now).command == A


def test_encrypted_message_leaves_no_argument(site):
    secret = b"encrypt:passwd:msu:korte:secret"
    put(site, "100.0.7.encryptpasswdmsu.msul1", secret)
    site.replies = {secret: [b"error: secret", None, b"secret"]}
    site.deliver(site.delivery())
    assert site.records() == [("S", b"passwd")]
    assert "secret" not in str(site.log)
    assert "encryptpasswdmsu" not in str(site.log)
    assert len(site.log) == 2


def test_writer_in_place_races_the_delivery(site):
    """LON-CAPA's client: the final name, written in pieces, read back after two seconds."""
    content = A + b"\n"
    delivery = site.delivery()
    for piece in range(1, len(content) + 1):
        path = f"{site.path}/{int(site.disk.now)}.0.7.putmsukorteen.msul1"
        site.disk.append(path, b"")
        for part in (content[:piece], content[piece:]):
            delivery.look()
            site.deliver(delivery, until=0.5)
            site.disk.append(path, part)
        delivery.look()
        site.deliver(delivery, until=2)
        assert site.disk.content(path) == content, "the writer would have said con_failed"
        site.deliver(delivery, until=100)
        assert site.executed == {A: piece}
    assert site.failed() == []


def test_many_messages_are_listed_once(site):
    for number in range(300):
        put(site, f"{number}.0.7.put.msul1", b"%d" % number)
    delivery, message = start(site)
    listings = []
    site.disk.listdir = lambda path: listings.append(path) or os.listdir("/")
    order = []
    while message is not None:
        order.append(int(message.command))
        message = answer(site, delivery, message, b"ok")
    assert order == list(range(300))
    assert len(listings) == 1
