"""Requests that are not simply passed on: lonc's own, encrypted ones, and for another host id.

A request `[sethost:<id>:][encrypt:]<command>` becomes the plan of its transaction.  When it gets
a link, `begin` writes what that link's peer understands: all of it in one line, or first the host
and, after its `ok`, the command.  Nothing that is to be encrypted is ever written in clear.
"""

from __future__ import annotations

from lonc.wire.cipher import CipherUnavailable
from lonc.wire.envelope import SEALED_PREFIX, EnvelopeError, unseal
from lonc.wire.requests import parse, peer_line, select_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lonc._purepath import Link, Transaction
    from lonc.broker.broker import Broker
    from lonc.wire.dialects import Dialect
    from lonc.wire.requests import Request


def prefixes(dialect: Dialect) -> tuple[bytes, ...]:
    """Return how the requests of a dialect begin that must come here."""
    found = [line + b"\n" for line in sorted(dialect.local_lines)]
    if dialect.encrypts:
        found.append(b"encrypt:")
    if dialect.sets_host:
        found.append(b"sethost:")
    return tuple(found)


def take(broker: Broker, transaction: Transaction) -> None:
    """See to a transaction whose line begins with one of `prefixes`."""
    exchange = broker.exchange
    line = transaction.line
    if line[:-1] in broker.dialect.local_lines:
        if line == b"reset_retries\n":
            broker.revive()
        else:
            broker.close_connections()
        exchange.finish(transaction, b"ok\n", None)
        return
    request = parse(line, broker.dialect)
    fault = _fault(request)
    if fault:
        broker.trouble("bad_request", 0, fault)
        exchange.finish(transaction, None, f"it {fault}")
        return
    if request.encrypted:
        try:
            broker.check_cipher()
        except CipherUnavailable as error:
            broker.trouble("no_cipher", 0, str(error))
            exchange.finish(transaction, None, f"it cannot be encrypted: {error}")
            return
    transaction.plan = request
    exchange.enqueue(transaction)


def begin(broker: Broker, link: Link, transaction: Transaction) -> None:
    """Write the first line for a transaction with a plan, which has got a link."""
    session = link.data
    request: Request = transaction.plan
    inline = session.dialogue.inline_sethost
    session.selecting = None
    try:
        cipher = session.cipher() if request.encrypted else None
        line = peer_line(request, cipher, inline_sethost=inline)
    except CipherUnavailable as error:
        broker.trouble("no_cipher", 0, str(error))
        broker.exchange.decline(link, f"it cannot be encrypted: {error}")
        return
    if inline and request.host_id is not None:
        # The peer goes on acting as that host after the command.
        session.current_host = request.host_id
    if request.host_id is None or session.current_host == request.host_id:
        link.write(line)
    else:
        # Which host is current is not certain again before the peer has said `ok`.
        session.selecting = request.host_id, line
        session.current_host = None
        link.write(select_host(request.host_id))


def answered(broker: Broker, link: Link, transaction: Transaction, line: bytes) -> None:
    """Take the reply to a transaction with a plan, or one that claims to be encrypted."""
    exchange = broker.exchange
    session = link.data
    if session.selecting is not None:
        (chosen, command), session.selecting = session.selecting, None
        if line == b"ok\n":
            session.current_host = chosen
            link.write(command)
        else:
            session.declined = True
            exchange.lose(link, "the peer did not accept the host that the request is for")
        return
    if broker.dialect.encrypts and line.startswith(SEALED_PREFIX):
        try:
            line = unseal(session.cipher(), line) + b"\n"
        except (EnvelopeError, CipherUnavailable) as error:
            exchange.lose(link, f"an encrypted reply cannot be read: {error}")
            return
    if session.current_host in (None, broker.host.id):
        exchange.answer(link, line)
    else:
        # A request without `sethost:` must not run as the host that this one was for.
        exchange.answer(link, line, keep=True)
        session.restore()


def _fault(request: Request) -> str | None:
    """Return why a request cannot be sent, to be read after "a request that"."""
    if request.command.startswith(b"sethost:") or request.command == b"sethost":
        return "names a host and no command"
    if not request.command and not request.encrypted:
        return "has no command behind its host"
    return None
