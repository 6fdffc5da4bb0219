"""Reading a configuration: from `lonc.toml`, from the command line, or from both.

Every value is put into a `Draft` with the place where it was found. The draft checks it there and
then and keeps what is wrong, so that a person is told of all problems at once.
"""

from __future__ import annotations

import os

from lonc.broker.settings import Settings
from lonc.broker.table import NotAllowed, Table, written
from lonc.daemon.settings import Configuration, DaemonSettings, HostConfig, HostId, PeerSettings
from lonc.errors import ConfigError
from lonc.net.listening import MAX_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class Draft:
    """A configuration that is being put together.

    `source` names where it comes from: the file, or the command line. `problems` holds a line for
    each thing that cannot be used, in the order of finding.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[str] = []
        # What to say where there is no host at all; empty where that was said in other words.
        self.no_host = "no host is given; each is a table [hosts.ID]"
        self.hosts: dict[str, str] = {}  # id: the place where it was first mentioned
        self._names: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self._values: dict[tuple[str, type[Table]], dict[str, object]] = {}
        self._broken: set[tuple[str, type[Table]]] = set()

    def add_host(
        self,
        place: str,
        host_id: str,
        other_ids: tuple[str, ...] = (),
        sockets: tuple[str, ...] = (),
    ) -> None:
        """Make a host known. `place` is where it was found, for the line of a problem."""
        if host_id in self.hosts:
            return
        self.hosts[host_id] = place
        self._names[host_id] = other_ids, sockets
        try:
            HostId().take(host_id)
        except NotAllowed:
            self.problems.append(f"{place}: hosts.{written(host_id)}: must be {HostId.allowed}")

    def put(self, place: str, name: str, value: object, host_id: str = "") -> None:
        """Set a value, for a host that was added or, without `host_id`, for all; the last wins."""
        prefix = f"hosts.{host_id}." if host_id else ""
        tables = (PeerSettings, Settings) if host_id else (DaemonSettings, Settings)
        for table in tables:
            if name in table.rows():
                break
        else:
            self.problems.append(f"{place}: {prefix}{name}: {_unknown(name, bool(host_id))}")
            return
        try:
            table.rows()[name].take(value)
        except NotAllowed as error:
            self.problems.append(f"{place}: {prefix}{error}")
            self._broken.add((host_id, table))
            return
        self._values.setdefault((host_id, table), {})[name] = value

    def finish(self) -> Configuration:
        """Return the configuration; raises ConfigError with all problems."""
        settings = self._built(DaemonSettings, self.source)
        self._built(Settings, self.source)
        if not self.hosts and self.no_host:
            self.problems.append(f"{self.source}: {self.no_host}")
        hosts = []
        for host_id, place in self.hosts.items():
            place = f"{place}: hosts.{host_id}"
            peer = self._built(PeerSettings, place, host_id)
            broker = self._built(Settings, place, host_id)
            if peer and broker:
                names = self._names[host_id]
                hosts.append(HostConfig(host_id, peer.address, peer.port, broker, *names))
        if settings:
            self.problems += _long_paths(settings.socket_dir, self.hosts)
        if self.problems or settings is None:
            raise ConfigError(self.problems)
        return Configuration(settings, tuple(hosts))

    def _built(self, table: type[Any], place: str, host_id: str = "") -> Any:
        """Return the object of a table, or None where a value of it is wrong."""
        if {("", table), (host_id, table)} & self._broken:
            return None
        common = self._values.get(("", table), {})
        own = self._values.get((host_id, table), {})
        try:
            return table(**common | own)
        except ConfigError as error:
            self._broken.add((host_id, table))
            self.problems += [f"{place}: {problem}" for problem in error.problems]
            return None


def _long_paths(socket_dir: str, hosts: dict[str, str]) -> list[str]:
    """Return a line for each host whose socket would have a path too long for the system."""
    size = len(os.fsencode(socket_dir))
    return [
        f"{place}: hosts.{host_id}: its socket's path would have {size + 1 + len(host_id)} bytes,"
        f" and the system allows {MAX_PATH}: {size} of socket_dir, {len(host_id)} of the host id"
        for host_id, place in hosts.items()
        if size + 1 + len(host_id) > MAX_PATH
    ]


def load(
    path: str | None = None,
    *,
    own_id: str | None = None,
    socket_dir: str | None = None,
    hosts: Sequence[str] = (),
    sets: Sequence[str] = (),
    site: Callable[[Draft], object] | None = None,
    source: str = "command line",
) -> Configuration:
    """Return the configuration of a file, of the options of a command line, or of both together.

    `path` is a file in the form of `lonc.toml`. `site` puts what the files of `source` say.
    `hosts` are texts "ID=ADDRESS" or "ID=ADDRESS:PORT", an IPv6 address with a port in brackets.
    `sets` are texts "NAME=VALUE", or "hosts.ID.NAME=VALUE" for one host, with the value as in the
    file, where quotes may be left out. Options win over the file. A relative `socket_dir` is taken
    from the working directory.

    Raises ConfigError with a line for each problem; a syntax error of the file stands alone.
    """
    draft = Draft(path or source)
    if path is not None:
        from lonc.daemon.toml_file import read_file

        read_file(path, draft)
    if site is not None:
        site(draft)
    if own_id is not None:
        draft.put("--own-id", "own_id", own_id)
    if socket_dir is not None:
        draft.put("--socket-dir", "socket_dir", socket_dir and os.path.abspath(socket_dir))
    for text in hosts:
        _read_host(text, draft)
    for text in sets:
        _read_set(text, draft)
    return draft.finish()


def _read_host(text: str, draft: Draft) -> None:
    host_id, equals, peer = text.partition("=")
    if not equals:
        draft.problems.append(f"--host {text}: must be ID=ADDRESS or ID=ADDRESS:PORT")
        return
    if peer.startswith("["):
        address, _, rest = peer[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else rest or None
    elif peer.count(":") == 1:
        address, _, port = peer.partition(":")
    else:
        address, port = peer, None
    draft.add_host("--host", host_id)
    draft.put("--host", "address", address, host_id)
    if port is not None:
        draft.put("--host", "port", int(port) if _is_number(port) else port, host_id)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def _read_set(text: str, draft: Draft) -> None:
    name, equals, value = text.partition("=")
    if not equals:
        draft.problems.append(f"--set {text}: must be NAME=VALUE")
        return
    host_id = ""
    if name.startswith("hosts."):
        host_id, _, name = name.removeprefix("hosts.").rpartition(".")
        if host_id not in draft.hosts:
            draft.problems.append(f"--set {text}: there is no host {written(host_id)}")
            return
    draft.put("--set", name, _value(value), host_id)


def _value(text: str) -> object:
    """Return a value of the command line: read as TOML or, where it is none, the text itself."""
    word = text.replace("-", "")
    if word.isalpha() and word not in ("true", "false", "inf", "nan"):
        # A plain word is no TOML, and does without what reads it.
        return text
    import tomllib

    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return document["value"] if len(document) == 1 else text


def _unknown(name: str, of_host: bool) -> str:
    """Return what to say of a name that is none: what was meant, or where it belongs."""
    import difflib

    if of_host and name in DaemonSettings.rows():
        return "is for all hosts and stands before the first table"
    if not of_host and name in PeerSettings.rows():
        return "belongs to one host and stands in its table [hosts.ID]"
    table = PeerSettings if of_host else DaemonSettings
    known = [*table.rows(), *Settings.rows()] + ([] if of_host else ["hosts"])
    near = difflib.get_close_matches(name, known, 1)
    return "there is no such setting" + (f"; did you mean {near[0]}?" if near else "")
