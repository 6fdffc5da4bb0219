"""A Unix socket in front of any service that answers a line with a line."""

import os
import socket
import tempfile
import threading

from lonc import Broker, Client, Host, Reactor, Settings
from lonc.lond import Peer
from lonc.net.listening import open_unix_listener, remove_unix_listener


def serve(listener: socket.socket, address: str, port: int, ended: int) -> None:
    """Serve the clients of a listening socket until the descriptor `ended` can be read."""
    reactor = Reactor()
    host = Host("upper", address, port, dialect="line")
    broker = Broker(reactor, host, Settings(max_connections=2, reply_timeout=5))
    broker.listen(listener)
    reactor.io(ended, "r", lambda event: broker.drain(reactor.unloop), repeat=False)
    reactor.run()
    reactor.close()


def ask(path: str, ended: int) -> None:
    """Be a client, which would usually be another program."""
    with Client(path, timeout=10) as client:
        print(client.request(b"hello"), client.request(b"again"))
    os.close(ended)


with Peer(dialect="line", handler=bytes.upper) as service, tempfile.TemporaryDirectory() as place:
    path = os.path.join(place, "upper")
    listener = open_unix_listener(path, mode=0o600)
    reading, writing = os.pipe()
    thread = threading.Thread(target=ask, args=(path, writing))
    thread.start()
    serve(listener, *service.address, reading)
    thread.join()
    os.close(reading)
    remove_unix_listener(path, listener)
    listener.close()
