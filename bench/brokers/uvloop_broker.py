"""The broker of asyncio_broker.py, run by uvloop: ``uvloop_broker.py SOCKET PORT``."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from asyncio_broker import serve

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(serve(sys.argv[1], int(sys.argv[2])))
