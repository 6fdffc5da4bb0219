"""A broker inside an asyncio loop."""

import asyncio

from lonc import Broker, Host, Reactor
from lonc.lond import Peer


class Guest:
    """Runs a reactor inside the running asyncio loop."""

    def __init__(self, reactor):
        self.reactor = reactor
        self.loop = asyncio.get_running_loop()
        self.alarm = None
        self.loop.add_reader(reactor.fileno(), self.step)

    def step(self):
        if self.alarm is not None:
            self.alarm.cancel()
        self.reactor.run_once(0)
        deadline = self.reactor.deadline()
        self.alarm = None
        if deadline is not None:
            self.alarm = self.loop.call_later(max(0, deadline - self.reactor.now), self.step)

    async def request(self, broker, line):
        """Return the reply; raise ConnectionError where there is none."""
        answered = self.loop.create_future()

        def ended(transaction):
            if not answered.cancelled():
                answered.set_result(transaction)

        broker.submit(line, ended)
        self.step()  # there is something to do now that was not there at the last step
        transaction = await answered
        if transaction.reply is None:
            raise ConnectionError(transaction.lost)
        return transaction.reply

    def close(self):
        self.loop.remove_reader(self.reactor.fileno())
        if self.alarm is not None:
            self.alarm.cancel()


async def main(address):
    reactor = Reactor()
    broker = Broker(reactor, Host("msul1", *address, own_id="msul2"))
    guest = Guest(reactor)
    requests = (guest.request(broker, b"echo:%d" % number) for number in range(5))
    print(await asyncio.gather(*requests))
    guest.close()
    broker.close()
    reactor.close()


with Peer(id="msul1") as peer:
    asyncio.run(main(peer.address))
