"""The settings of the whole daemon, and the frozen object that a configuration ends in."""

from __future__ import annotations

import os
from typing import NamedTuple

from lonc.broker.settings import Settings
from lonc.broker.table import (
    LIVE,
    RESTART,
    SUCCESSOR,
    Choice,
    Count,
    Flag,
    Kind,
    NotAllowed,
    Seconds,
    Table,
    find_group,
    find_user,
    setting,
    written,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ID_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
LOND_PORT = 5663


class HostId(Kind):
    """The id of a host in the cluster; it becomes a file name, so little is allowed in it."""

    allowed = "a host id: letters, digits and . _ - only, and no dot first"

    def take(self, value: object) -> str:
        if not isinstance(value, str) or not value or value[0] == ".":
            raise NotAllowed
        if not ID_CHARACTERS.issuperset(value):
            raise NotAllowed
        return value


class Address(Kind):
    """Where a peer is: a host name, or an IPv4 or IPv6 address without brackets."""

    allowed = "a host name or an IP address"

    def take(self, value: object) -> str:
        if not isinstance(value, str) or not 1 <= len(value) <= 255:
            raise NotAllowed
        if not all("!" <= char <= "~" for char in value) or set(value) & set("[]/,"):
            raise NotAllowed
        return value


class Path(Kind):
    """An absolute path of a file or directory; empty, where `optional`, for none."""

    def __init__(self, *, optional: bool = False) -> None:
        self.optional = optional
        self.allowed = "an absolute path" + (', or "" for none' if optional else "")

    def take(self, value: object) -> str:
        if value == "" and self.optional:
            return ""
        if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
            raise NotAllowed
        return os.path.normpath(value)


class Mode(Kind):
    """Permission bits, as octal digits in quotes; kept as a number."""

    allowed = 'permission bits as octal digits in quotes, as "0660"'

    def take(self, value: object) -> int:
        if not isinstance(value, str) or not 3 <= len(value) <= 4:
            raise NotAllowed
        if not set("01234567").issuperset(value) or int(value, 8) > 0o777:
            raise NotAllowed
        return int(value, 8)

    def show(self, value: int) -> str:
        return f'"{value:04o}"'


class Account(Kind):
    """One user or group by name or number, kept as a number; empty for none, kept as None."""

    def __init__(self, what: str, find: Callable[[object], int]) -> None:
        self.find = find
        self.allowed = f'a {what} name or number, or "" for the one that lonc runs as'

    def take(self, value: object) -> int | None:
        return None if value == "" else self.find(value)

    def show(self, value: int | None) -> str:
        return '""' if value is None else written(value)


class UserName(Kind):
    """The name of a user of this system; empty for none."""

    allowed = 'the name of a user, or "" to stay as started'

    def take(self, value: object) -> str:
        if not isinstance(value, str):
            raise NotAllowed
        if value:
            find_user(value)
        return value


class DaemonSettings(Table):
    """What holds for the daemon as a whole, whatever hosts it serves."""

    own_id: str = setting(
        "",
        HostId(),
        SUCCESSOR,
        "The id of this host in the cluster, which peers know it by.",
    )
    socket_dir: str = setting(
        "/run/lonc",
        Path(),
        RESTART,
        "The directory of the Unix sockets that clients connect to, one for each host. It must"
        " exist, and others may not write to it.",
    )
    socket_mode: int = setting(
        0o660,
        Mode(),
        RESTART,
        "Permission bits of the sockets: who may write to one may send requests.",
    )
    socket_owner: int | None = setting(
        None,
        Account("user", find_user),
        RESTART,
        "The user that the sockets belong to. Giving them away needs root.",
    )
    socket_group: int | None = setting(
        None,
        Account("group", find_group),
        RESTART,
        "The group that the sockets belong to. A user may choose among the groups that they are"
        " in.",
    )
    debug: bool = setting(
        False,
        Flag(),
        LIVE,
        "Whether debug lines are logged. They never hold arguments of requests either.",
    )
    log_format: str = setting(
        "plain",
        Choice("plain", "json", "loncapa"),
        LIVE,
        "The form of a log line: for people, for programs, or as LON-CAPA's own checks read it.",
    )
    log_file: str = setting(
        "",
        Path(optional=True),
        LIVE,
        "A file to log to; it is opened anew when it was moved away.",
    )
    log_stderr: bool = setting(
        True,
        Flag(),
        LIVE,
        "Whether to log to the standard error stream, which systemd keeps in its journal.",
    )
    perm_log: str = setting(
        "",
        Path(optional=True),
        LIVE,
        "The permanent log, the audit trail of delayed messages. It holds their commands as sent,"
        " so only its owner may read it.",
    )
    pid_file: str = setting(
        "",
        Path(optional=True),
        RESTART,
        "A file for the number of the daemon's process, locked while it runs, so that a second"
        " instance notices.",
    )
    status_file: str = setting(
        "",
        Path(optional=True),
        LIVE,
        "The file that the signal USR1 writes the state of all hosts to, as LON-CAPA's pages read"
        " it.",
    )
    user: str = setting(
        "",
        UserName(),
        RESTART,
        "The user to become when started as root, before anything is made or accepted.",
    )
    start: str = setting(
        "on-demand",
        Choice("on-demand", "eager"),
        RESTART,
        "When the process of a host is started: with its first client or waiting delayed message,"
        " or with the daemon.",
    )
    processes: str = setting(
        "per-host",
        Choice("per-host", "single"),
        RESTART,
        "A process for each host, so that one host's trouble is never another's, or one for all,"
        " for containers and small systems.",
    )
    watchdog: float = setting(
        30.0,
        Seconds(),
        LIVE,
        "How long a host's process may leave two questions of the parent unanswered, before it is"
        " aborted and replaced.",
    )
    child_idle: float = setting(
        300.0,
        Seconds(),
        LIVE,
        "How long a host's process stays without a client and a connection, before it ends to give"
        " its memory back.",
    )
    delayed_dir: str = setting(
        "",
        Path(optional=True),
        RESTART,
        "The directory of messages that must get there, a file each. Others may not write to it.",
    )
    delayed_scan: float = setting(
        60.0,
        Seconds(),
        LIVE,
        "How often the delayed directory is looked through.",
    )
    delayed_settle: float = setting(
        5.0,
        Seconds(zero=True),
        LIVE,
        "How old a delayed message must be before it is touched: LON-CAPA's client writes it in"
        " place, and reads it back after a second or two.",
    )
    delayed_attempts: int = setting(
        20,
        Count(1),
        LIVE,
        "How often a delayed message that the peer answers with an error is tried, before it is"
        " set aside in delayed/failed/.",
    )

    @classmethod
    def contradictions(cls, values: dict[str, Any]) -> list[str]:
        problems = []
        if not values["own_id"]:
            problems.append("own_id is missing: the id of this host in the cluster")
        if values["delayed_dir"] and not values["perm_log"]:
            problems.append("delayed_dir needs perm_log, which records the end of each message")
        return problems


class PeerSettings(Table):
    """Where one host is: what its table in the configuration file holds beside broker settings."""

    address: str = setting(
        "",
        Address(),
        SUCCESSOR,
        "The name or IP address of the peer.",
    )
    port: int = setting(
        LOND_PORT,
        Count(1, 65535),
        SUCCESSOR,
        "The TCP port of the peer.",
    )

    @classmethod
    def contradictions(cls, values: dict[str, Any]) -> list[str]:
        return [] if values["address"] else ["address is missing: a host name or an IP address"]


class HostConfig(NamedTuple):
    """One host that requests can be sent to, and the settings of its broker.

    `other_ids` are further ids that it answers for: delayed messages may be written for them.
    `sockets` are the names of its Unix sockets; none stands for one with the name of its id.
    """

    id: str
    address: str
    port: int
    settings: Settings
    other_ids: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids that the host answers for."""
        return (self.id, *self.other_ids)


class Configuration(NamedTuple):
    """Everything that a daemon is told; hosts in the order in which they were given."""

    settings: DaemonSettings
    hosts: tuple[HostConfig, ...]

    @property
    def own_id(self) -> str:
        """The id of this host in the cluster."""
        return self.settings.own_id

    def socket_paths(self, host: HostConfig) -> list[str]:
        """Return where the Unix sockets of a host are."""
        names = host.sockets or (host.id,)
        return [os.path.join(self.settings.socket_dir, name) for name in names]
