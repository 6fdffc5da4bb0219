"""No argument of a request is ever in a log line, in whatever way the request ends."""

from __future__ import annotations

import pytest

SECRET = "hunter2"
COMMANDS = [
    b"passwd:msu:korte:hunter2\n",
    b"sethost:msul1:passwd:hunter2\n",
    b"encrypt:passwd:hunter2\n",
    b"sethost:msul1:encrypt:passwd:hunter2\n",
    b"sethost:hunter2:passwd:hunter2\n",
    b"hunter2 in an odd place\n",
    b"sethost:hunter2\n",
    b":hunter2\n",
]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("end", ["close", "reset", "two lines", "bad envelope", "time"])
def test_requests_that_fail(timed, command, end):
    world = timed
    peer = world.peer()
    world.start(peer, "versioned", reply_timeout=20)
    client, link = world.acquainted(peer, "versioned")
    client.send(command)
    world.settle()
    if link._receive() is None and link.kept:
        link.kept = b""
        {
            "close": link.close,
            "reset": link.reset,
            "two lines": lambda: link.send(b"hunter2\nhunter2\n"),
            "bad envelope": lambda: link.send(b"enc:hunter2\n"),
            "time": lambda: world.pass_time(21),
        }[end]()
    assert client.line() == b"con_lost\n"
    assert not world.log.having(SECRET)
    assert len(world.log.lines) >= 2, "the ready line, and at least one about the failure"


def test_what_is_logged_of_a_request_is_its_command_s_name(world):
    peer = world.peer()
    world.start(peer, "classic")
    client, link = world.acquainted(peer, "classic")
    client.send(b"sethost:msul1:encrypt:passwd:hunter2\n")
    assert link.line() == b"sethost:msul1\n"
    link.close()
    assert client.line() == b"con_lost\n"
    assert world.log.having("request passwd to msul1 failed")


def test_not_even_that_where_a_line_is_all_data(world):
    peer = world.peer()
    world.start(peer)
    client, link = world.acquainted(peer)
    client.send(b"hunter2\n")
    assert link.line() == b"hunter2\n"
    link.close()
    assert client.line() == b"con_lost\n"
    assert world.log.having("a request to msul1 failed")
    assert not world.log.having(SECRET)


def test_dialogues_and_strays_that_have_something_to_hide(timed):
    world = timed
    peer = world.peer()
    world.start(peer, "versioned", connection_retries=99)
    for lines in ([b"refused\n"], [b"hunter2\nhunter2\n"], [b"hunter2\n", b"hunter2\n"]):
        client = world.client(b"passwd:hunter2\n")
        link = peer.accept()
        for line in lines:
            link.line()
            link.send(line)
        assert client.line() == b"con_lost\n"
        world.pass_time(100)
    client, link = world.acquainted(peer, "versioned")
    link.send(b"hunter2\n")
    world.settle()
    client.send(b"hunter2" * 10)
    client.finish()
    world.settle()
    assert len(world.log.lines) > 4
    assert not world.log.having(SECRET)


def test_the_status_of_a_broker_and_its_timers_hide_it_too(world):
    peer = world.peer()
    broker = world.start(peer, "classic")
    client, link = world.acquainted(peer, "classic")
    client.send(b"passwd:hunter2\n")
    assert link.line() == b"passwd:hunter2\n"
    world.client(b"passwd:hunter2\n")
    world.settle()
    assert SECRET not in repr(broker.stats())
    assert SECRET not in repr([*broker.exchange.queue, *broker.exchange.links])
