"""What the tests of this room share."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import threading

from tests.conftest import wait_until

PATIENCE = 30.0
"""Seconds after which a condition that did not come true is a failure."""


def run_until(reactor, condition):
    """Run the reactor until `condition()` is true."""
    wait_until(condition, PATIENCE, lambda: reactor.run_once(0.1))


def open_descriptors():
    return sorted(os.listdir("/dev/fd"))


def join_lookups():
    """Wait until the threads of all lookups have ended, each with a descriptor of its own."""
    for thread in threading.enumerate():
        if thread.name.startswith("resolve "):
            thread.join(PATIENCE)


@contextlib.contextmanager
def no_descriptor_left():
    """Have the process own all the descriptors that it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, open_descriptors()))
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        while True:
            try:
                taken.append(os.dup(0))
            except OSError as error:
                assert error.errno == errno.EMFILE
                break
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


def has_ipv6():
    """Return whether this machine's loopback network has IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


class Names:
    """A `getaddrinfo` for the tests; `answers` are lists of addresses, or exceptions, in turn.

    The last one is repeated. While `hold` is cleared, questions wait.
    """

    def __init__(self, *answers):
        self.answers = list(answers)
        self.questions = []
        self.hold = threading.Event()
        self.hold.set()

    def __call__(self, host, port, **options):
        self.questions.append((host, port, options))
        assert self.hold.wait(PATIENCE)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return [entry(address, port) for address in answer]


def entry(address, port):
    """Return `address` as `getaddrinfo` does."""
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
