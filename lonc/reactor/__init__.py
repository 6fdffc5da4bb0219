"""The event loop, in the manner of Perl's Event; it knows nothing of lonc.

    loop.py         Reactor: the pass, and the way into it and out of it
    watchers.py     Event and Watcher: what all kinds have in common
    descriptors.py  Io: a descriptor can be read or written
    timers.py       Timer, and the heap of alarms that everything with a time uses
    signals.py      Signal, and how signals are brought into the loop
    idle.py         Idle: nothing else is to do

The kinds of watchers and the loop are one room: they use each other's underscored names.
"""

from lonc.reactor.descriptors import Io
from lonc.reactor.idle import Idle
from lonc.reactor.loop import Reactor
from lonc.reactor.signals import Signal
from lonc.reactor.timers import Timer
from lonc.reactor.watchers import PRIO_HIGH, PRIO_NORMAL, PRIO_URGENT, Event, Watcher

__all__ = [
    "PRIO_HIGH",
    "PRIO_NORMAL",
    "PRIO_URGENT",
    "Event",
    "Idle",
    "Io",
    "Reactor",
    "Signal",
    "Timer",
    "Watcher",
]
