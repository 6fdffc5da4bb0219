"""A program that sends a request through a running daemon: client.py SOCKET PERMANENT_LOG"""

import sys

from lonc.client import Client, ClientError

path, permanent_log = sys.argv[1:]

with Client(path, timeout=150) as client:
    try:
        print(client.request(b"ping"))
    except ClientError as error:
        # Safe to send again only if nobody can have executed it.
        print(error, error.may_have_been_executed)

    # A command that must get there, now or later.
    print(client.critical(b"log:msu:korte:hello", permanent_log))
