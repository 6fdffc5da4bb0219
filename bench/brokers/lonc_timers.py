"""lonc's broker embedded beside many live timers: ``lonc_timers.py SOCKET PORT COUNT``.

The timers are due in an hour and more, and one of them, another each time, is set anew every
millisecond, so that none lies still in the heap for ever.
"""

from __future__ import annotations

import itertools
import sys

from lonc.broker.broker import Broker
from lonc.broker.host import Host
from lonc.net.listening import open_unix_listener
from lonc.reactor import Event, Reactor


def main(path: str, port: int, count: int) -> None:
    reactor = Reactor()

    def never(event: Event) -> None:
        raise AssertionError("a timer of the far future")

    timers = [reactor.timer(never, after=3600 + number / 1000) for number in range(count)]
    turn = itertools.cycle(timers)
    reactor.timer(lambda event: next(turn).again(), interval=0.001)
    broker = Broker(reactor, Host("peer", "127.0.0.1", port, "line"))
    broker.listen(open_unix_listener(path))
    reactor.run()


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
