"""Whom the daemon runs as."""

from __future__ import annotations

import os
import pwd
import resource

from lonc.errors import UsageError


def drop_root(user: str) -> None:
    """Become `user`, with all its groups, if this process is root's and a user is given.

    Raises UsageError for a user that does not exist, or that the system refuses to become.
    """
    if not is_root() or not user:
        return
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise UsageError(f"user = {user}: this system has no such user") from None
    try:
        os.initgroups(user, entry.pw_gid)
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    except OSError as error:
        raise UsageError(f"user = {user}: cannot become this user: {error.strerror}") from None


def is_root() -> bool:
    """Whether this process may do anything."""
    return os.geteuid() == 0


def forbid_core_dumps() -> None:
    """See to it that a crash leaves no core file: requests in memory hold passwords."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
