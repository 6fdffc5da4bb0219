from lonc import Broker, Host, Reactor
from lonc.lond import Peer

with Peer(id="msul1") as peer:  # stands in for a lond on another machine
    reactor = Reactor()
    broker = Broker(reactor, Host("msul1", *peer.address, own_id="msul2"))
    broker.submit(b"ping", reactor.unloop)  # the callback gets the transaction
    print(reactor.run().reply)
    broker.close()
    reactor.close()
