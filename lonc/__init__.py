"""lonc: a connection broker that many local clients share to reach a few connections to each host.

The rooms, each of which imports from lower floors only::

    cli/            one file a command; the only room that prints                        floor 5
    daemon/         configuration, processes, signals, log, status                       floor 4
    lond/           the built-in peer, for the demo, tests and development               floor 4
    broker/         one host's broker: all policy                                        floor 3
    delayed/        commands that must get there: their directory and audit trail        floor 3
    net/            connecting, resolving, listening                                     floor 2
    wire/           dialects, dialogue, envelope: what the bytes mean                    floor 1
    reactor/        the event loop; it knows nothing of lonc                             floor 1
    fastpath.py     the door to the steady path: compiled, or its pure Python twin       floor 0
    errors.py       what lonc raises                                                     floor 0
    client.py       for those who call lonc from a program of their own

Importing this package loads nothing else and changes nothing; the names below load what they need
when they are first used.
"""

from importlib import import_module

__version__ = "1.0.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lonc.broker.broker import Broker as Broker
    from lonc.broker.host import Host as Host
    from lonc.broker.settings import Settings as Settings
    from lonc.client import Client as Client
    from lonc.errors import LoncError as LoncError
    from lonc.reactor import Reactor as Reactor

# Public name: the module that has it.
_NAMES = {
    "Broker": "lonc.broker.broker",
    "Client": "lonc.client",
    "Host": "lonc.broker.host",
    "LoncError": "lonc.errors",
    "Reactor": "lonc.reactor",
    "Settings": "lonc.broker.settings",
}

__all__ = ["Broker", "Client", "Host", "LoncError", "Reactor", "Settings", "__version__"]


def __getattr__(name: str) -> object:
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'lonc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | _NAMES.keys())
