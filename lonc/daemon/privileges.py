"""Whom the daemon runs as."""

from __future__ import annotations

import os
import pwd
import resource

from lonc.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lonc.broker.complaints import Log


def drop_root(user: str, log: Log) -> None:
    """Become `user`, with all its groups, if this process is root's; else stay as it is.

    Logs a WARNING where root stays root because no `user` is given.  Raises UsageError for a user
    that does not exist, or that the system refuses to become.
    """
    if os.geteuid() != 0:
        return
    if not user:
        log.log("WARNING", "running as root: give the setting user, and lonc becomes that user")
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


def forbid_core_dumps() -> None:
    """See to it that a crash leaves no core file: requests in memory hold passwords."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
