"""The host that a broker stands for."""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class Host(NamedTuple):
        """Which host, and where; see below."""

        id: str
        address: str
        port: int = 5663
        dialect: str = "versioned"
        own_id: str = "lonc"

else:
    Host = namedtuple(
        "Host",
        ("id", "address", "port", "dialect", "own_id"),
        defaults=(5663, "versioned", "lonc"),
    )
    Host.__doc__ = """Which host a broker stands for, and where it is.

    id        the peer's lonHostID
    address   its name, or its literal IPv4 or IPv6 address
    port      its TCP port; 5663 is lond's
    dialect   the name of one of `lonc.wire.dialects.DIALECTS`
    own_id    this machine's lonHostID, which goes into the session key
    """
