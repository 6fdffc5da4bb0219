from lonc import Broker, Host, Reactor
from lonc.lond import Fault, Peer

with Peer(id="msul1") as peer:
    reactor = Reactor()
    broker = Broker(reactor, Host("msul1", *peer.address, own_id="msul2"))
    for fault in None, Fault("cut", command="ping", byte=3, count=1), None:
        if fault is not None:
            peer.faults.add(fault)
        broker.submit(b"ping", reactor.unloop)
        transaction = reactor.run()
        print(transaction.reply, transaction.lost, peer.executed[b"ping"])
    broker.close()
    reactor.close()
    assert peer.complaints == []
