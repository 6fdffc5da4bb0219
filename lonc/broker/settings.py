"""The settings of one host's broker, with default, unit and reason, in one table."""

from __future__ import annotations

from lonc.broker.table import (
    KIB,
    LIVE,
    MIB,
    RESTART,
    SUCCESSOR,
    Accounts,
    Choice,
    Count,
    Flag,
    Seconds,
    Share,
    Size,
    Table,
    find_group,
    find_user,
    setting,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Settings(Table):
    """What one host's broker is told: limits, times, and who may use it."""

    dialect: str = setting(
        "versioned",
        Choice("versioned", "classic", "line"),
        SUCCESSOR,
        "What is spoken to the peer: the dialogue of every lond since late 2003, the one of earlier"
        " ones, or no dialogue at all (any server that answers a line with a line).",
    )
    max_connections: int = setting(
        10,
        Count(1),
        LIVE,
        "Connections to the peer at most. lond keeps a process for each, so few are enough: a"
        " connection that has answered takes the next waiting request at once.",
    )
    max_dialling: int = setting(
        3,
        Count(1),
        LIVE,
        "Connections being opened at one time at most, so that a burst of requests does not become"
        " a burst of dialogues.",
    )
    connect_timeout: float = setting(
        5.0,
        Seconds(),
        LIVE,
        "How long to wait for a connection to one address of the peer, before the next address is"
        " tried.",
    )
    dialogue_timeout: float = setting(
        30.0,
        Seconds(),
        LIVE,
        "How long the peer may take for each step of the dialogue that opens a connection.",
    )
    reply_timeout: float = setting(
        130.0,
        Seconds(),
        LIVE,
        "How long a request may wait with no byte moving in either direction. lond gives up on its"
        " own work after 120 s; this is a little longer, so that its answer is still heard.",
    )
    transaction_timeout: float = setting(
        600.0,
        Seconds(),
        LIVE,
        "How long a request may take from being given to a connection to the end of its reply,"
        " however steadily the bytes trickle.",
    )
    queue_timeout: float = setting(
        60.0,
        Seconds(),
        LIVE,
        "How long a request may wait for a connection, before its client hears con_lost.",
    )
    client_timeout: float = setting(
        60.0,
        Seconds(),
        LIVE,
        "How long a client may take to end a line that it began, or to take some of its reply.",
    )
    idle_timeout: float = setting(
        300.0,
        Seconds(),
        LIVE,
        "How long a connection may be idle before it counts as surplus and may be closed.",
    )
    idle_close_interval: float = setting(
        30.0,
        Seconds(),
        LIVE,
        "Surplus connections are closed one at a time, this far apart, the one idle longest first:"
        " a short lull does not throw away the whole pool.",
    )
    connection_retries: int = setting(
        5,
        Count(1),
        LIVE,
        "The budget of failures: each failed attempt, each connection lost before its first answer,"
        " and each reply_timeout takes one; an answer refills it. Empty, with no connection alive,"
        " the host is DEAD.",
    )
    retry_first: float = setting(
        0.1,
        Seconds(),
        LIVE,
        "The pause after a first failed attempt; each further failure doubles it.",
    )
    retry_longest: float = setting(
        60.0,
        Seconds(),
        LIVE,
        "The longest pause between attempts, also for the probes of a host that is DEAD.",
    )
    retry_jitter: float = setting(
        0.2,
        Share(),
        LIVE,
        "By what part of itself a pause is changed at random, up or down, so that many brokers do"
        " not come back to one peer in step.",
    )
    probe_while_asked: float = setting(
        600.0,
        Seconds(zero=True),
        LIVE,
        "How long after the last request for a DEAD host it is still tried, so that it is found"
        " again without anyone's help; 0 leaves that to reset_retries.",
    )
    max_queue: int = setting(
        10000,
        Count(1),
        LIVE,
        "Requests that may wait for a connection; one more is answered con_lost at once.",
    )
    max_clients: int = setting(
        0,
        Count(0),
        LIVE,
        "Clients connected at one time; further ones wait in the kernel's backlog. 0 takes the"
        " limit of open files, less max_connections, less 32, so that a peer always finds a"
        " descriptor.",
    )
    max_request: int = setting(
        8 * MIB,
        Size(),
        LIVE,
        "The longest line that a client may send; a longer one is answered con_lost and the client"
        " is closed.",
    )
    max_reply: int = setting(
        64 * MIB,
        Size(),
        LIVE,
        "The longest reply of the peer. A reply is handed on only when it is whole, so it must be"
        " held until then.",
    )
    max_early: int = setting(
        64 * KIB,
        Size(),
        LIVE,
        "What a client may send ahead while it waits for a reply; then it is not read until the"
        " reply is on its way.",
    )
    max_buffered: int = setting(
        256 * MIB,
        Size(),
        LIVE,
        "What all requests and replies of one host may hold in memory together; the transaction"
        " that would cross it fails.",
    )
    abandoned: str = setting(
        "send",
        Choice("send", "drop"),
        LIVE,
        "What becomes of a waiting request whose client has gone altogether: sent all the same,"
        " because some programs write and leave, or dropped.",
    )
    allow_users: tuple[int, ...] = setting(
        (),
        Accounts("user", find_user),
        LIVE,
        "Users whose processes may connect. Where neither this nor allow_groups is given, the mode"
        " of the socket decides alone, and no client's credentials are asked for.",
    )
    allow_groups: tuple[int, ...] = setting(
        (),
        Accounts("group", find_group),
        LIVE,
        "Groups whose processes may connect, in addition to allow_users.",
    )
    allow_insecure: bool = setting(
        True,
        Flag(),
        SUCCESSOR,
        "Whether a connection may be used whose key was not agreed over TLS or a local file. With"
        " false no such dialogue is begun, and a host that offers nothing better answers con_lost.",
    )
    drain_timeout: float = setting(
        10.0,
        Seconds(zero=True),
        LIVE,
        "How long an orderly stop waits for requests in flight; what is left then gets con_lost.",
    )
    backlog: int = setting(
        4096,
        Count(1),
        RESTART,
        "Clients that the kernel lets wait for being accepted (it caps this at its own"
        " net.core.somaxconn).",
    )

    @classmethod
    def contradictions(cls, values: dict[str, Any]) -> list[str]:
        first, longest = values["retry_first"], values["retry_longest"]
        if first > longest:
            return [f"retry_first = {first:g} is longer than retry_longest = {longest:g}"]
        return []
