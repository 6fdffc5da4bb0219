"""The built-in peer: a stand-in for LON-CAPA's lond, for demonstrations, tests and development.

    from lonc.lond import Fault, Peer

    with Peer(id="msul1", dialect="versioned") as peer:
        peer.faults.add(Fault("cut", command="get", byte=5, count=1))
        host, port = peer.address
        ...
        assert peer.complaints == []

It need not be fast: every connection has a thread, and everything blocks. It is strict: what a
client does wrong is told, and nothing is guessed. It is no lond: it knows its callers by name only,
and keeps everything in one SQLite file.

    store      databases, accounts, activity logs       passwords  their digests
    commands   what is answered to a command
    faults     what goes wrong on request
    profile    who the peer is                          greeting   its side of the dialogue
    requests   `sethost:`, envelopes, and the commands in them
    lines      lines over a socket                      session    one connection
    server     listening, threads, counters: the Peer
"""

from __future__ import annotations

from .faults import Fault, Faults, parse_fault
from .server import Peer
from .store import Store

__all__ = ["Fault", "Faults", "Peer", "Store", "parse_fault"]
