"""Commands that must get there: the directory they wait in, their audit trail, their delivery.

system.py         the system calls that all of it goes through
permanent_log.py  one record a line: delayed, sent, failed
directory.py      a file a command: written, listed, claimed, removed, set aside
delivery.py       one host's commands in their order, for a broker to send
"""

from __future__ import annotations

from lonc.delayed.delivery import Delivery
from lonc.delayed.directory import Directory, Entry, Message
from lonc.delayed.permanent_log import PermanentLog
from lonc.delayed.system import System

__all__ = ["Delivery", "Directory", "Entry", "Message", "PermanentLog", "System"]
