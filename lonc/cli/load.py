"""Concurrent clients that know what each of their replies must be."""

from __future__ import annotations

import threading
import time

from lonc.client import Client, ClientError, RequestTimeout

LARGE = 64 * 1024

# One request in so many is for a large reply, one in so many goes encrypted to the peer.
LARGE_EVERY = 10
ENCRYPTED_EVERY = 5

# What a client waits after a lost request before it sends the next one, in seconds.
PAUSE = 0.2

# Seconds after which a request counts as forgotten: longer than the daemon takes for any.
FORGOTTEN = 700.0


class Seen:
    """What clients saw.

    requests   how many requests were begun
    encrypted  how many of them were to be encrypted
    lost       when a request was lost: monotonic seconds
    wrong      how many replies were not the expected ones
    forgotten  how many requests had neither a reply nor a con_lost
    latencies  how long each right reply took, in seconds
    last       when the last right reply came: monotonic seconds, or 0
    """

    def __init__(self) -> None:
        self.requests = 0
        self.encrypted = 0
        self.lost: list[float] = []
        self.wrong = 0
        self.forgotten = 0
        self.latencies: list[float] = []
        self.last = 0.0

    def add(self, other: Seen) -> None:
        """Take what `other` saw as seen too."""
        self.requests += other.requests
        self.encrypted += other.encrypted
        self.lost += other.lost
        self.wrong += other.wrong
        self.forgotten += other.forgotten
        self.latencies += other.latencies
        self.last = max(self.last, other.last)


def run(path: str, *, clients: int, seconds: float, encrypt: bool) -> Seen:
    """Have clients send requests for some seconds; return what they saw together.

    `path` is the socket of a host whose peer knows `echo` and `blob`. Half of the clients keep
    their connection, the others connect for each request. `encrypt` says whether some requests are
    to be encrypted on their way to the peer. A client that raises ends, and its request counts as
    forgotten.
    """
    until = time.monotonic() + seconds
    seen = [Seen() for _ in range(clients)]
    threads = [
        threading.Thread(target=_send_until, args=(until, path, number, encrypt, seen[number]))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = Seen()
    for one in seen:
        together.add(one)
    return together


def _send_until(until: float, path: str, number: int, encrypt: bool, seen: Seen) -> None:
    with Client(path, FORGOTTEN) as client:
        while time.monotonic() < until:
            request, expected = _request(number, seen.requests)
            seen.requests += 1
            if encrypt and seen.requests % ENCRYPTED_EVERY == 0:
                seen.encrypted += 1
                request = b"encrypt:" + request
            _send(client, request, expected, seen)
            if number % 2:
                client.close()


def _request(client: int, count: int) -> tuple[bytes, bytes]:
    """Return a request and its reply, both unlike those of any other client and any other time."""
    text = b"client %d, request %d;" % (client, count)
    if count % LARGE_EVERY:
        return b"echo:" + text, text
    times = LARGE // len(text) + 1
    return b"blob:%d:%b" % (LARGE, text), (text * times)[:LARGE]


def _send(client: Client, request: bytes, expected: bytes, seen: Seen) -> None:
    began = time.monotonic()
    seen.forgotten += 1
    try:
        reply = client.request(request)
    except RequestTimeout:
        return
    except ClientError:
        seen.lost.append(time.monotonic())
        seen.forgotten -= 1
        time.sleep(PAUSE)
        return
    seen.forgotten -= 1
    if reply != expected:
        seen.wrong += 1
        return
    seen.last = time.monotonic()
    seen.latencies.append(seen.last - began)
