"""A broker's life: used in process, changed while it runs, and ended in each of the ways."""

from __future__ import annotations

import pytest

from lonc._purepath import bucket_floor


def submit(broker, text, **options):
    """Submit a request; the list that is returned gets its transaction when that has ended."""
    ended = []
    broker.submit(text, ended.append, **options)
    assert ended == [], "never from inside submit"
    return ended


@pytest.mark.parametrize("text", [b"ping", b"ping\n"])
def test_submit(world, text):
    peer = world.peer()
    broker = world.start(peer)
    ended = submit(broker, text)
    link = peer.accept()
    assert link.line() == b"ping\n"
    link.send(b"po\0ng\n")
    world.until(lambda: ended)
    [transaction] = ended
    assert (transaction.reply, transaction.lost, transaction.sent) == (b"po\0ng", None, 5)


def test_submit_from_the_callback(world):
    peer = world.peer()
    broker = world.start(peer)
    replies = []

    def answered(transaction):
        replies.append(transaction.reply)
        if len(replies) < 5000:
            broker.submit(b"%d" % len(replies), answered)

    broker.submit(b"0", answered)
    link = peer.accept()

    def serve():
        link._receive()
        link.kept, line = b"", link.kept
        link.send(line)
        return len(replies) == 5000

    world.until(serve)
    assert replies == [b"%d" % i for i in range(5000)]


def test_submit_that_fails_at_once(world):
    broker = world.start(connection_retries=1, probe_while_asked=0)
    ended = submit(broker, b"ping")
    world.until(lambda: ended)
    again = submit(broker, b"ping")
    world.until(lambda: again)
    for [transaction] in (ended, again):
        assert (transaction.reply, transaction.sent) == (None, 0)
        assert "down" in transaction.lost


@pytest.mark.parametrize(
    ("dialect", "text", "words"),
    [
        ("classic", b"a\nb", "line feed"),
        ("classic", b"a\n\n", "line feed"),
        ("classic", b"x" * 101, "max_request"),
        ("classic", b"", "empty"),
        ("classic", b"\n", "empty"),
    ],
)
def test_submit_refuses_what_is_no_request(world, dialect, text, words):
    broker = world.start(dialect=dialect, max_request=100)
    with pytest.raises(ValueError, match=words):
        broker.submit(text, print)


def test_a_background_request_waits_for_all_others(world):
    peer = world.peer()
    broker = world.start(peer, max_connections=1)
    client, link = world.acquainted(peer)
    client.send(b"one\n")
    assert link.line() == b"one\n"
    delayed = submit(broker, b"delayed", background=True)
    others = []
    for i in range(3):
        others.append(world.client(b"%d\n" % i))
        world.settle()
    link.send(b"x\n")
    for i in range(3):
        assert link.line() == b"%d\n" % i
        assert not delayed
        link.send(b"x\n")
    assert link.line() == b"delayed\n"
    link.send(b"done\n")
    world.until(lambda: delayed)
    assert delayed[0].reply == b"done"


def test_a_background_request_has_a_connection_opened_for_it(world):
    peer = world.peer()
    delayed = submit(world.start(peer), b"delayed", background=True)
    link = peer.accept()
    assert link.line() == b"delayed\n"
    link.send(b"done\n")
    world.until(lambda: delayed)


def test_stats(world):
    peer = world.peer()
    broker = world.start(peer, "classic", max_connections=2)
    client, link = world.acquainted(peer, "classic")
    client.send(b"one\n")
    assert link.line() == b"one\n"
    world.client(b"two\n"), world.client(b"three\n")
    peer.accept()
    world.settle()
    stats = broker.stats()
    latency = stats.pop("latency")
    assert stats == {
        "host": "msul1",
        "state": "up",
        "retries": 5,
        "clients": 3,
        "accepted": 3,
        "queued": 2,
        "connections": 1,
        "attempts": 1,
        "preparing": 1,
        "idle": 0,
        "busy": 1,
        "requests": 4,
        "replies": 1,
        "con_lost": 0,
        "abandoned": 0,
        "held": len(b"one\ntwo\nthree\n"),
    }
    assert sum(latency) == 1


def test_latency_is_counted_from_the_request_to_its_reply(timed):
    world = timed
    peer = world.peer()
    broker = world.start(peer, max_connections=1)
    client, link = world.acquainted(peer)
    before = broker.stats()["latency"]
    client.send(b"one\n")
    assert link.line() == b"one\n"
    world.client(b"two\n")
    world.pass_time(3)
    link.send(b"1\n")
    assert link.line() == b"two\n"
    world.pass_time(2)
    link.send(b"2\n")
    world.settle()
    counts = zip(before, broker.stats()["latency"], strict=True)
    [three, five] = [i for i, (was, is_) in enumerate(counts) if is_ > was]
    assert bucket_floor(three) <= 3_000_000 < bucket_floor(three + 1)
    assert bucket_floor(five) <= 5_000_000 < bucket_floor(five + 1), "the queue counts too"


# Other settings


def test_more_connections_are_opened_for_those_who_wait_already(world):
    peer = world.peer()
    broker = world.start(peer, max_connections=1)
    client, link = world.acquainted(peer)
    client.send(b"one\n")
    assert link.line() == b"one\n"
    for _ in range(2):
        world.client(b"more\n")
    world.settle()
    assert peer.take() is None
    broker.reconfigure(broker.settings.replace(max_connections=3))
    assert [peer.accept().line(), peer.accept().line()] == [b"more\n"] * 2
    assert link.silent(), "what it carries is not touched"


def test_fewer_connections(world):
    peer = world.peer()
    broker = world.start(peer, "classic", max_connections=3, max_dialling=3)
    clients = [world.client(b"%d\n" % i) for i in range(3)]
    links = []
    for _ in clients:
        links.append(peer.greet(dialect="classic"))
    carried = [link.line() for link in links]
    links[0].send(b"x\n")
    world.settle()
    broker.reconfigure(broker.settings.replace(max_connections=1))
    # The idle one at once, one of the busy ones after its reply.
    assert links[0].rest() == b"exit\n"
    assert [link.silent() for link in links[1:]] == [True, True]
    for link in links[1:]:
        link.send(b"x\n")
    world.settle()
    assert broker.stats()["connections"] == 1
    assert sorted(carried) == [b"0\n", b"1\n", b"2\n"]
    assert [client.line() for client in clients] == [b"x\n"] * 3


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [("reply_timeout", 130, 5), ("transaction_timeout", 600, 5), ("queue_timeout", 60, 5)],
)
def test_shorter_timeouts_are_live(timed, name, before, after):
    world = timed
    peer = world.peer()
    broker = world.start(peer, max_connections=1, **{name: before})
    client, link = world.acquainted(peer)
    client.send(b"one\n")
    assert link.line() == b"one\n"
    waiting = world.client(b"two\n")
    world.pass_time(6)
    assert client.silent() and waiting.silent()
    broker.reconfigure(broker.settings.replace(**{name: after}))
    world.settle()
    assert (waiting if name == "queue_timeout" else client).line() == b"con_lost\n"


def test_a_larger_budget_is_live(timed):
    world = timed
    broker = world.start(connection_retries=2, probe_while_asked=0)
    assert world.ask(b"ping\n") == b"con_lost\n"
    broker.reconfigure(broker.settings.replace(connection_retries=9))
    assert broker.health.retries == 8


# The end


def drain(world, timeout=None):
    done = []
    world.broker.drain(lambda: done.append(world.broker.stats()), timeout)
    assert done == []
    return done


def test_drain_finishes_what_is_in_flight(world):
    peer = world.peer()
    world.start(peer, "classic", max_connections=1)
    one, link = world.acquainted(peer, "classic")
    bystander, half = world.client(), world.client(b"half a li")
    one.send(b"one\n")
    assert link.line() == b"one\n"
    two = world.client(b"two\nthree\n")
    world.settle()
    submitted = submit(world.broker, b"four")
    done = drain(world, 1000)
    # Nobody new, no new lines; who waits for nothing is closed.
    assert bystander.rest() == b""
    assert half.rest() == b""
    late = world.client(b"late\n")
    assert late.silent()
    link.send(b"1\n")
    assert one.rest() == b"1\n"
    assert link.line() == b"two\n"
    link.send(b"2\n")
    assert two.bytes(2) == b"2\n"
    assert link.line() == b"four\n"
    assert done == []
    link.send(b"4\n")
    assert link.rest() == b"exit\n"
    world.until(lambda: done)
    assert submitted[0].reply == b"4"
    assert len(done) == 1
    assert not world.log.having("not finished")


def test_drain_waits_for_a_slow_client_to_take_its_reply(world):
    peer = world.peer()
    world.start(peer)
    client, link = world.acquainted(peer)
    client.send(b"ping\n")
    assert link.line() == b"ping\n"
    reply = b"x" * (2 << 20) + b"\n"
    link.send(reply)
    world.settle()
    done = drain(world, 1000)
    world.settle()
    assert done == []
    assert client.rest() == reply
    world.until(lambda: done)


def test_drain_with_nothing_to_do(world):
    world.start(world.peer())
    done = drain(world)
    world.until(lambda: done)
    with pytest.raises(RuntimeError):
        world.broker.submit(b"ping", print)


def test_drain_has_its_time(timed):
    world = timed
    peer = world.peer()
    world.start(peer, drain_timeout=10)
    client, link = world.acquainted(peer)
    client.send(b"ping\n")
    assert link.line() == b"ping\n"
    done = drain(world)
    world.pass_time(9.9)
    assert done == [] and client.silent()
    world.pass_time(0.2)
    assert client.rest() == b"con_lost\n"
    assert len(done) == 1
    [(severity, text)] = world.log.having("not finished")
    assert severity == "WARNING" and text.startswith("1 ")


def test_drain_waits_for_a_line_that_was_begun(world):
    peer = world.peer(room=4096)
    world.start(peer)
    request = b"x" * (6 << 20) + b"\n"
    client = world.client(request)
    link = peer.accept()
    link.bytes(10)
    client.close()
    world.settle()
    done = drain(world, 1000)
    world.settle()
    assert done == []
    assert link.bytes(len(request) - 10) == request[10:]
    link.send(b"ok\n")
    world.until(lambda: done)


def test_stop(world):
    peer = world.peer()
    broker = world.start(peer, "classic", max_connections=1)
    client, link = world.acquainted(peer, "classic")
    bystander = world.client()
    client.send(b"one\n")
    assert link.line() == b"one\n"
    waiting = world.client(b"two\n")
    world.settle()
    submitted = submit(broker, b"three")
    broker.stop()
    assert client.rest() == b"con_lost\n"
    assert waiting.rest() == b"con_lost\n"
    assert bystander.rest() == b""
    assert link.rest() == b"", "`exit` is for idle connections only"
    world.until(lambda: submitted)
    assert submitted[0].lost == "the broker was stopped"
    broker.stop()
    world.settle()
    assert world.reactor.deadline() is None, "no timer is left"


def test_stop_in_the_middle_of_a_line_resets(world):
    peer = world.peer(room=4096)
    broker = world.start(peer)
    world.client(b"x" * (6 << 20) + b"\n")
    link = peer.accept()
    link.bytes(10)
    broker.stop()
    with pytest.raises(ConnectionResetError):
        link.rest()


@pytest.mark.parametrize("state", ["connecting", "in dialogue"])
def test_stop_while_a_connection_is_being_opened(world, state):
    peer = world.peer()
    broker = world.start(peer, "classic")
    client = world.client(b"ping\n")
    if state == "connecting":
        world.until(lambda: broker.exchange.attempts)
    else:
        assert peer.accept().line() == b"init\n"
    broker.stop()
    assert client.rest() == b"con_lost\n"
    world.settle()
    assert broker.exchange.attempts == 0


def test_close_says_nothing_to_clients(world):
    peer = world.peer()
    broker = world.start(peer, "classic")
    client, link = world.acquainted(peer, "classic")
    client.send(b"one\n")
    assert link.line() == b"one\n"
    submitted = submit(broker, b"two")
    broker.close()
    assert client.rest() == b""
    world.until(lambda: submitted)
    assert submitted[0].reply is None


def test_stop_from_a_callback(world):
    peer = world.peer()
    broker = world.start(peer)
    broker.submit(b"ping", lambda transaction: broker.stop())
    link = peer.accept()
    assert link.line() == b"ping\n"
    client = world.client(b"two\n")
    world.settle()
    link.send(b"pong\n")
    assert client.rest() == b"con_lost\n"


def test_a_listener_that_is_closed_takes_nobody_more(world):
    peer = world.peer()
    broker = world.start(peer)
    inside, link = world.acquainted(peer)
    [listener] = broker.exchange.listeners
    listener.close()
    listener.close()
    outside = world.client(b"late\n")
    inside.send(b"ping\n")
    assert link.line() == b"ping\n"
    link.send(b"pong\n")
    assert inside.line() == b"pong\n"
    assert outside.silent()


def test_several_brokers_on_one_reactor(world):
    peers = [world.peer(), world.peer()]
    first = world.start(peers[0])
    world.path += "2"
    second = world.start(peers[1])
    ended = [submit(first, b"to the first"), submit(second, b"to the second")]
    for peer, text in zip(peers, (b"to the first\n", b"to the second\n"), strict=True):
        link = peer.accept()
        assert link.line() == text
        link.send(text)
    world.until(lambda: all(ended))
    assert [each[0].reply for each in ended] == [b"to the first", b"to the second"]


def test_a_drain_serves_what_has_reached_the_kernel(world):
    peer = world.peer()
    world.start(peer)
    client, link = world.acquainted(peer)
    client.send(b"ping\n")
    ended = []
    world.broker.drain(lambda: ended.append(True))
    assert link.line() == b"ping\n"
    link.send(b"pong\n")
    assert client.rest() == b"pong\n"
    world.until(lambda: ended)


@pytest.mark.parametrize("what", ["stray line", "end"])
def test_submit_looks_at_a_connection_before_it_uses_it(world, what):
    """Between two passes the peer may have said something, or closed."""
    peer = world.peer()
    broker = world.start(peer)
    _, link = world.acquainted(peer)
    if what == "end":
        link.close()
    else:
        link.send(b"what somebody else asked for\n")
    ended = []
    transaction = broker.submit(b"mine", ended.append)
    link = peer.accept()
    assert link.line() == b"mine\n"
    link.send(b"my reply\n")
    world.until(lambda: ended)
    assert transaction.reply == b"my reply"


def test_submit_after_a_time_without_passes(timed):
    """Its timeouts begin then, and not with the last pass."""
    world = timed
    peer = world.peer()
    broker = world.start(peer, reply_timeout=30)
    _, link = world.acquainted(peer)
    for _ in range(2):
        world.time += 61
        transaction = broker.submit(b"late", lambda transaction: None)
        world.settle()
        assert link.line() == b"late\n"
        link.send(b"and in time\n")
        world.settle()
        assert transaction.reply == b"and in time"


def test_submit_does_not_count_those_that_idle_connections_take(world):
    peer = world.peer()
    broker = world.start(peer, max_queue=1, max_connections=2)
    clients, links = [], []
    for _ in range(2):
        clients.append(world.client(b"ping\n"))
        links.append(peer.accept())
        assert links[-1].line() == b"ping\n"
    for link, client in zip(links, clients, strict=True):
        link.send(b"pong\n")
        assert client.line() == b"pong\n"
    lost = []
    for number in range(4):
        broker.submit(b"%d" % number, lambda transaction: lost.append(transaction.lost))
    for link, number in zip(reversed(links), range(2), strict=True):
        assert link.line() == b"%d\n" % number
    assert lost == ["max_queue requests are waiting"], "three fit: two connections and the queue"
    assert peer.take() is None
