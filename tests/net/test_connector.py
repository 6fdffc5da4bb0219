"""Connections to a peer: address after address, and every failure an answer."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import pytest

from lonc.net import connector as connector_module
from lonc.net.connector import Connector
from lonc.net.resolver import Resolver
from tests.net.helpers import (
    Names,
    has_ipv6,
    join_lookups,
    no_descriptor_left,
    open_descriptors,
    run_until,
)

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="the loopback network has no IPv6")

NAME = "peer.example"
FIRST, SECOND, THIRD = "127.0.0.1", "127.0.0.2", "127.0.0.3"


class Settings:
    connect_timeout = 20.0
    reply_timeout = 130.0


class Hasty(Settings):
    connect_timeout = 0.05


class Tried:
    """An attempt, and what came of it."""

    def __init__(self, connector):
        self.socks = []
        self.reasons = []
        self.attempt = connector.attempt(self.socks.append, self.reasons.append)
        assert not self.over

    @property
    def over(self):
        return bool(self.socks or self.reasons)

    @property
    def peer(self):
        """The address to which it is connected."""
        return self.socks[-1].getpeername()[0]


class Network:
    """Ports of the loopback network, all with one number."""

    def __init__(self):
        self.socks = []
        self.port = 0

    def listen(self, address=FIRST, family=socket.AF_INET):
        """Listen at `address`."""
        sock = self.refuse(address, family)
        sock.listen()
        return sock

    def refuse(self, address=FIRST, family=socket.AF_INET):
        """Keep the port at `address` from everyone, and do not listen there."""
        sock = self.add(socket.socket(family))
        sock.bind((address, self.port))
        self.port = sock.getsockname()[1]
        return sock

    def swallow(self, address=FIRST):
        """Have `address` not answer: its backlog is full."""
        sock = self.refuse(address)
        sock.listen(0)
        for _ in range(4):
            client = self.add(socket.socket())
            client.setblocking(False)
            client.connect_ex(sock.getsockname())

    def add(self, sock):
        self.socks.append(sock)
        return sock


@pytest.fixture
def network(reactor):
    """Made after the reactor, and so closed before that one's fixture counts descriptors."""
    network = Network()
    yield network
    for sock in network.socks:
        sock.close()


@pytest.fixture
def connect(reactor, network):
    """Make a connector to the network's port, and attempts that are cleaned up."""

    class Connect:
        def __init__(self):
            self.connectors = []
            self.tries = []

        def to(self, address, names=None, settings=Settings):
            resolver = Resolver(reactor, names) if names else None
            connector = Connector(reactor, address, network.port, settings(), resolver)
            self.connectors.append(connector)
            return connector

        def begin(self, connector):
            self.tries.append(Tried(connector))
            return self.tries[-1]

        def finish(self, connector):
            tried = self.begin(connector)
            run_until(reactor, lambda: tried.over)
            return tried

        def fail(self, connector):
            tried = self.finish(connector)
            assert tried.socks == []
            return tried.reasons[0]

    connect = Connect()
    yield connect
    for connector in connect.connectors:
        connector.close()
    for tried in connect.tries:
        for sock in tried.socks:
            sock.close()


class TestOneAddress:
    @pytest.mark.parametrize(
        ("address", "family"),
        [
            (FIRST, socket.AF_INET),
            pytest.param("::1", socket.AF_INET6, marks=needs_ipv6),
        ],
    )
    def test_connects(self, connect, network, address, family):
        listener = network.listen(address, family)
        tried = connect.finish(connect.to(address))
        assert tried.reasons == []
        peer = network.add(listener.accept()[0])
        tried.socks[0].sendall(b"init\n")
        assert peer.recv(100) == b"init\n"

    def test_socket_options(self, connect, network):
        network.listen()
        sock = connect.finish(connect.to(FIRST)).socks[0]
        assert not sock.getblocking()
        assert not sock.get_inheritable()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        tcp = {
            name: sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in (
                "TCP_NODELAY",
                "TCP_KEEPIDLE",
                "TCP_KEEPINTVL",
                "TCP_KEEPCNT",
                "TCP_USER_TIMEOUT",
            )
        }
        assert tcp == {
            "TCP_NODELAY": 1,
            "TCP_KEEPIDLE": 60,
            "TCP_KEEPINTVL": 15,
            "TCP_KEEPCNT": 4,
            "TCP_USER_TIMEOUT": 130_000,
        }

    def test_longest_reply_timeout(self, connect, network):
        network.listen()
        connector = connect.to(FIRST)
        connector.settings.reply_timeout = 2.0**31 - 1
        assert connect.finish(connector).reasons == []

    def test_settings_are_read_at_each_attempt(self, connect, network):
        network.listen()
        connector = connect.to(FIRST)
        connect.finish(connector)
        connector.settings = Settings()
        connector.settings.reply_timeout = 7.0
        sock = connect.finish(connector).socks[0]
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000

    def test_refused(self, connect, network):
        network.refuse()
        reason = connect.fail(connect.to(FIRST))
        assert reason == f"no connection to 127.0.0.1 port {network.port}: Connection refused"

    def test_no_answer(self, connect, network):
        network.swallow()
        assert connect.fail(connect.to(FIRST, settings=Hasty)).endswith("no answer within 0.05 s")

    def test_reset_as_soon_as_it_was_there(self, connect, network, reactor):
        listener = network.listen()
        listener.setblocking(False)
        peers = []

        def accepted():
            with contextlib.suppress(BlockingIOError):
                peers.append(listener.accept()[0])
            return peers

        tried = connect.begin(connect.to(FIRST))
        run_until(reactor, accepted)
        assert not tried.over
        (peer,) = peers
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        run_until(reactor, lambda: tried.over)
        assert tried.reasons[0].endswith("Connection reset by peer")

    def test_gone_before_it_was_looked_at(self):
        with socket.socket() as sock:
            assert connector_module._failure(sock) == "Transport endpoint is not connected"

    def test_connected_to_itself(self, connect, network, monkeypatch):
        network.refuse().close()
        monkeypatch.setattr(
            connector_module, "_set_options", lambda sock, _: sock.bind((FIRST, network.port))
        )
        assert connect.fail(connect.to(FIRST)).endswith("Connection refused")

    def test_a_literal_is_never_resolved(self, connect, network):
        network.refuse()
        names = Names([SECOND])
        connector = connect.to(FIRST, names)
        for _ in range(3):
            connect.fail(connector)
        assert names.questions == []


class TestRefusedByTheSystem:
    """Failures that `socket` or `connect` report at once."""

    @needs_ipv6
    def test_invalid_address(self, connect, network):
        network.listen()
        assert "Invalid argument" in connect.fail(connect.to("fe80::1"))

    def test_unreachable(self, connect, network):
        network.listen()
        # A broadcast: denied where there is a route for it, unreachable elsewhere.
        reason = connect.fail(connect.to("255.255.255.255"))
        assert "unreachable" in reason or "denied" in reason

    def test_unknown_family(self, connect, network, reactor):
        network.listen()

        def names(host, port, **options):
            return [(99, socket.SOCK_STREAM, 6, "", ("somewhere", port))]

        reason = connect.fail(connect.to(NAME, names))
        assert "somewhere: Address family not supported" in reason

    def test_no_descriptor_is_left(self, connect, network):
        network.listen()
        connector = connect.to(FIRST)
        with no_descriptor_left():
            assert "Too many open files" in connect.fail(connector)
        assert connect.finish(connector).reasons == []

    def test_no_descriptor_is_left_for_a_lookup(self, connect, network):
        network.listen()
        connector = connect.to(NAME, Names([FIRST]))
        with no_descriptor_left():
            assert "Too many open files" in connect.fail(connector)
        assert connect.finish(connector).reasons == []

    def test_cannot_be_watched(self, connect, network, reactor, monkeypatch):
        network.listen()
        connector = connect.to(FIRST)
        before = open_descriptors()

        def fail(*args, **options):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(type(reactor), "io", fail)
            assert "No space left on device" in connect.fail(connector)
        assert open_descriptors() == before

    @needs_ipv6
    def test_the_next_address_is_tried(self, connect, network):
        network.listen()
        tried = connect.finish(connect.to(NAME, Names(["fe80::1", FIRST])))
        assert tried.peer == FIRST


class TestSeveralAddresses:
    def test_in_the_systems_order(self, connect, network):
        for address in (FIRST, SECOND):
            network.listen(address)
        assert connect.finish(connect.to(NAME, Names([SECOND, FIRST]))).peer == SECOND

    def test_next_after_a_refusal(self, connect, network):
        network.refuse(FIRST)
        network.listen(SECOND)
        assert connect.finish(connect.to(NAME, Names([FIRST, SECOND]))).peer == SECOND

    def test_next_after_no_answer(self, connect, network):
        network.swallow(FIRST)
        network.listen(SECOND)
        connector = connect.to(NAME, Names([FIRST, SECOND]), Hasty)
        assert connect.finish(connector).peer == SECOND

    @needs_ipv6
    def test_from_one_family_to_the_other(self, connect, network):
        network.listen(FIRST)
        network.refuse("::1", socket.AF_INET6)
        assert connect.finish(connect.to(NAME, Names(["::1", FIRST]))).peer == FIRST

    def test_all_fail(self, connect, network):
        network.refuse(FIRST)
        network.swallow(SECOND)
        assert connect.fail(connect.to(NAME, Names([FIRST, SECOND]), Hasty)) == (
            f"no connection to peer.example port {network.port}: "
            "127.0.0.1: Connection refused; 127.0.0.2: no answer within 0.05 s"
        )


class TestVerdict:
    """What the caller says of a connection that it was given."""

    @pytest.fixture
    def connector(self, connect, network):
        for address in (FIRST, SECOND, THIRD):
            network.listen(address)
        return connect.to(NAME, Names([FIRST, SECOND, THIRD]))

    def test_accepted_is_first_next_time(self, connect, connector, reactor):
        tried = connect.finish(connector)
        tried.attempt.rejected("refused")
        run_until(reactor, lambda: len(tried.socks) == 2)
        tried.attempt.accepted()
        assert connect.finish(connector).peer == SECOND

    def test_a_connection_alone_is_not_first_next_time(self, connect, connector, reactor):
        tried = connect.finish(connector)
        tried.attempt.rejected("refused")
        run_until(reactor, lambda: len(tried.socks) == 2)
        assert connect.finish(connector).peer == FIRST

    def test_accepted_is_first_when_resolved_anew(self, connect, network, reactor):
        network.listen(FIRST)
        network.listen(SECOND)
        connector = connect.to(NAME, Names([SECOND], [FIRST, SECOND]))
        connect.finish(connector).attempt.accepted()
        connect.finish(connector).attempt.rejected("refused")
        run_until(reactor, lambda: connect.tries[-1].reasons)
        assert connect.finish(connector).peer == SECOND

    def test_after_the_last_good_one_the_others(self, connect, connector, reactor):
        tried = connect.finish(connector)
        tried.attempt.rejected("refused")
        run_until(reactor, lambda: len(tried.socks) == 2)
        tried.attempt.accepted()
        tried = connect.finish(connector)
        for number in (2, 3):
            tried.attempt.rejected("refused")
            run_until(reactor, lambda number=number: len(tried.socks) == number)
        assert [sock.getpeername()[0] for sock in tried.socks] == [SECOND, FIRST, THIRD]

    def test_rejected_goes_on_later(self, connect, connector):
        tried = connect.finish(connector)
        tried.attempt.rejected("refused")
        assert len(tried.socks) == 1

    def test_rejected_by_all(self, connect, connector, network, reactor):
        tried = connect.finish(connector)
        for number in (1, 2, 3):
            run_until(reactor, lambda number=number: len(tried.socks) == number)
            tried.attempt.rejected("refused")
            assert tried.reasons == []
        run_until(reactor, lambda: tried.reasons)
        assert tried.reasons == [
            f"no connection to peer.example port {network.port}: "
            "127.0.0.1: refused; 127.0.0.2: refused; 127.0.0.3: refused"
        ]

    def test_rejected_from_inside_the_callback(self, connector, reactor):
        socks, reasons = [], []

        def reject(sock):
            socks.append(sock)
            sock.close()
            attempt.rejected("refused")

        attempt = connector.attempt(reject, reasons.append)
        run_until(reactor, lambda: reasons)
        assert len(socks) == 3
        assert len(reasons) == 1

    def test_a_verdict_before_the_connection_means_nothing(self, connect, connector, reactor):
        tried = connect.begin(connector)
        tried.attempt.rejected("refused")
        tried.attempt.accepted()
        run_until(reactor, lambda: tried.over)
        assert tried.peer == FIRST

    def test_a_second_rejection_means_nothing(self, connect, connector, reactor):
        tried = connect.finish(connector)
        tried.attempt.rejected("refused")
        tried.attempt.rejected("refused")
        run_until(reactor, lambda: len(tried.socks) == 2)
        assert reactor.deadline() is None
        assert not reactor.run_once(0)
        assert tried.peer == SECOND

    def test_a_second_verdict_means_nothing(self, connect, connector, reactor):
        tried = connect.finish(connector)
        tried.attempt.accepted()
        tried.attempt.rejected("refused")
        assert not reactor.run_once(0)
        assert len(tried.socks) == 1
        assert connect.finish(connector).peer == FIRST


class TestName:
    def test_is_resolved_once_as_long_as_it_works(self, connect, network):
        network.listen()
        names = Names([FIRST])
        connector = connect.to(NAME, names)
        for _ in range(3):
            connect.finish(connector).attempt.accepted()
        assert len(names.questions) == 1
        assert names.questions[0][:2] == (b"peer.example", network.port)

    def test_is_resolved_anew_after_a_failure(self, connect, network):
        network.refuse(FIRST)
        network.listen(SECOND)
        names = Names([FIRST], [SECOND])
        connector = connect.to(NAME, names)
        connect.fail(connector)
        assert connect.finish(connector).peer == SECOND
        assert len(names.questions) == 2

    def test_is_resolved_anew_after_a_rejection(self, connect, network, reactor):
        network.listen(FIRST)
        network.listen(SECOND)
        connector = connect.to(NAME, Names([FIRST], [SECOND]))
        tried = connect.finish(connector)
        tried.attempt.rejected("refused")
        run_until(reactor, lambda: tried.reasons)
        assert connect.finish(connector).peer == SECOND

    def test_that_does_not_resolve(self, connect, network):
        network.listen()
        unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        connector = connect.to(NAME, Names(unknown, [FIRST]))
        assert connect.fail(connector) == (
            f"no connection to peer.example port {network.port}: Name or service not known"
        )
        assert connect.finish(connector).peer == FIRST

    def test_one_lookup_for_all_attempts(self, connect, network, reactor):
        network.listen()
        names = Names([FIRST])
        names.hold.clear()
        connector = connect.to(NAME, names)
        tries = [connect.begin(connector) for _ in range(3)]
        run_until(reactor, lambda: names.questions)
        names.hold.set()
        run_until(reactor, lambda: all(tried.socks for tried in tries))
        assert len(names.questions) == 1

    def test_one_callback_that_raises_is_no_other_attempts_trouble(self, connect, reactor):
        names = Names(OSError(0, "server failure"))
        connector = connect.to(NAME, names)
        died, own = [], reactor.died
        reactor.died = lambda event, error: died.append(error)
        connector.attempt(print, lambda reason: {}[reason])
        tried = connect.begin(connector)
        run_until(reactor, lambda: tried.over)
        reactor.died = own
        assert [type(error) for error in died] == [KeyError]
        assert tried.reasons[0].endswith("server failure")

    def test_late_answer_serves_the_next_attempt(self, connect, network, reactor):
        network.listen()
        names = Names([FIRST])
        names.hold.clear()
        connector = connect.to(NAME, names, Hasty)
        assert connect.fail(connector).endswith("the name was not resolved within 0.05 s")
        connector.settings = Settings()
        tried = connect.begin(connector)
        names.hold.set()
        run_until(reactor, lambda: tried.over)
        assert tried.peer == FIRST
        assert len(names.questions) == 1

    def test_late_answer_for_nobody_is_kept(self, connect, network, reactor):
        network.listen()
        names = Names([FIRST])
        names.hold.clear()
        connector = connect.to(NAME, names, Hasty)
        connect.fail(connector)
        names.hold.set()
        run_until(reactor, lambda: connector._lookup is None)
        connector.settings = Settings()
        assert connect.finish(connector).peer == FIRST
        assert len(names.questions) == 1


class TestCancel:
    def silent(self, reactor, tried, connected=0):
        """Check that nothing is under way, and nothing more is called."""
        assert reactor.deadline() is None
        assert not reactor.run_once(0)
        assert len(tried.socks) == connected
        assert tried.reasons == []

    def test_before_it_begins(self, connect, network, reactor):
        network.listen()
        tried = connect.begin(connect.to(FIRST))
        tried.attempt.cancel()
        self.silent(reactor, tried)

    def test_while_the_name_is_resolved(self, connect, network, reactor):
        network.listen()
        names = Names([FIRST])
        names.hold.clear()
        connector = connect.to(NAME, names)
        tried = connect.begin(connector)
        run_until(reactor, lambda: names.questions)
        tried.attempt.cancel()
        names.hold.set()
        run_until(reactor, lambda: connector._lookup is None)
        self.silent(reactor, tried)

    def test_when_the_name_is_resolved(self, connect, network, reactor):
        network.listen()
        connector = connect.to(NAME, Names([FIRST]))
        tried = connect.begin(connector)
        run_until(reactor, lambda: connector._addresses)
        tried.attempt.cancel()
        self.silent(reactor, tried)

    def test_while_connecting(self, connect, network, reactor):
        network.swallow()
        tried = connect.begin(connect.to(FIRST))
        before = open_descriptors()
        reactor.run_once(0)
        run_until(reactor, lambda: open_descriptors() != before)
        tried.attempt.cancel()
        assert open_descriptors() == before
        self.silent(reactor, tried)

    def test_when_connected(self, connect, network, reactor):
        """The socket stays the caller's."""
        listener = network.listen()
        tried = connect.finish(connect.to(FIRST))
        tried.attempt.cancel()
        tried.attempt.rejected("refused")
        self.silent(reactor, tried, connected=1)
        tried.socks[0].sendall(b"init\n")
        assert network.add(listener.accept()[0]).recv(100) == b"init\n"

    def test_from_inside_the_callback(self, connect, network, reactor):
        network.listen()
        connector = connect.to(FIRST)
        socks = []

        def cancel(sock):
            socks.append(network.add(sock))
            attempt.cancel()

        attempt = connector.attempt(cancel, print)
        run_until(reactor, lambda: socks)
        assert reactor.deadline() is None

    def test_when_rejected(self, connect, network, reactor):
        network.listen(FIRST)
        network.listen(SECOND)
        tried = connect.finish(connect.to(NAME, Names([FIRST, SECOND])))
        tried.attempt.rejected("refused")
        tried.attempt.cancel()
        self.silent(reactor, tried, connected=1)

    def test_when_over(self, connect, network, reactor):
        network.refuse()
        tried = connect.finish(connect.to(FIRST))
        tried.attempt.cancel()
        assert len(tried.reasons) == 1

    def test_of_one_is_not_of_the_others(self, connect, network, reactor):
        network.listen()
        names = Names([FIRST])
        names.hold.clear()
        connector = connect.to(NAME, names)
        one, other = connect.begin(connector), connect.begin(connector)
        run_until(reactor, lambda: names.questions)
        one.attempt.cancel()
        names.hold.set()
        run_until(reactor, lambda: other.over)
        assert other.peer == FIRST
        assert not one.over


class TestClose:
    def test_in_every_stage(self, connect, network, reactor):
        network.swallow(FIRST)
        network.listen(SECOND)
        before = open_descriptors()
        connector = connect.to(NAME, Names([SECOND]))
        handed_over = connect.finish(connector)
        resolving = connect.begin(connect.to(FIRST))
        connector._addresses = [(socket.AF_INET, (FIRST, network.port))]
        connecting = connect.begin(connector)
        descriptors = open_descriptors()
        reactor.run_once(0)
        assert open_descriptors() != descriptors
        not_begun = connect.begin(connector)
        for each in connect.connectors:
            each.close()
            each.close()
        assert reactor.deadline() is None
        assert not reactor.run_once(0)
        assert not (resolving.over or connecting.over or not_begun.over)
        assert handed_over.peer == SECOND
        handed_over.socks[0].close()
        join_lookups()
        assert open_descriptors() == before

    def test_does_not_wait_for_the_thread(self, connect, network, reactor):
        names = Names([FIRST])
        names.hold.clear()
        connector = connect.to(NAME, names)
        tried = connect.begin(connector)
        run_until(reactor, lambda: names.questions)
        connector.close()
        assert [thread.name for thread in threading.enumerate()].count(f"resolve {NAME}") == 1
        assert reactor.deadline() is None
        names.hold.set()
        assert not reactor.run_once(0)
        assert not tried.over
