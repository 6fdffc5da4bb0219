"""Reading the configuration of a LON-CAPA site from the files that it has anyway."""

from __future__ import annotations

import os
import pwd
import re
from typing import NamedTuple

from lonc.broker.table import NotAllowed
from lonc.daemon.config import Draft
from lonc.daemon.hosts_table import HostRow, read_hosts
from lonc.daemon.settings import PeerSettings
from lonc.errors import ConfigError
from lonc.net.listening import MAX_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lonc.daemon.settings import Configuration

# The one that LON-CAPA ships, and the one that belongs to the site and wins.
FILES = ("loncapa_apache.conf", "loncapa.conf")

# The variables that lonc uses, with the value that LON-CAPA takes where the files set none.
DEFAULTS = {
    "lonHostID": "",
    "lonSockDir": "/home/httpd/sockets",
    "lonTabDir": "/home/httpd/lonTabs",
    "lonDaemons": "/home/httpd/perl",
    "lonDocRoot": "/home/httpd/html",
    "londPort": "5663",
    "loncAllowInsecure": "1",
}

# setting: the variable that it is made from, and what stands behind the variable's value.
PATHS = {
    "socket_dir": ("lonSockDir", ""),
    "delayed_dir": ("lonSockDir", "/delayed"),
    "log_file": ("lonDaemons", "/logs/lonc.log"),
    "pid_file": ("lonDaemons", "/logs/lonc.pid"),
    "perm_log": ("lonDaemons", "/logs/lonnet.perm.log"),
    "status_file": ("lonDocRoot", "/lon-status/loncstatus.txt"),
}

# The user that LON-CAPA's daemons run as.
USER = "www"

BY_ID = "id"
BY_HOSTNAME = "hostname"
BY_BOTH = "both"


class Variable(NamedTuple):
    """What the files say of one variable, and where: file and line."""

    value: str
    place: str


class Peer(NamedTuple):
    """Hosts that are served together.

    id       the id that the peer is addressed by: that of its first row
    address  where it is
    ids      the ids that it answers for, which delayed messages may be written for
    sockets  the names of its Unix sockets
    place    file and line of its first row
    """

    id: str
    address: str
    ids: tuple[str, ...]
    sockets: tuple[str, ...]
    place: str


class Site(NamedTuple):
    """What was understood of a site's files.

    configuration  with a host for each peer, in their order; None where there are problems
    peers          who is served with whom, and under which names
    rows           the host table
    problems       a line for each thing that cannot be used, with file and line
    """

    configuration: Configuration | None
    peers: list[Peer]
    rows: list[HostRow]
    problems: list[str]


def read_site(directory: str, naming: str = BY_BOTH) -> Site:
    """Read the files of a site.

    directory  where its configuration files are, as /etc/httpd/conf or /etc/apache2
    naming     what sockets are called: BY_ID, BY_HOSTNAME or BY_BOTH (see `peers_of`)

    Raises nothing: what cannot be read is among the problems.
    """
    draft = Draft(directory)
    rows, peers = fill(directory, naming, draft)
    configuration = None
    if not draft.problems:
        try:
            configuration = draft.finish()
        except ConfigError:
            pass  # they are in the draft
    return Site(configuration, peers, rows, draft.problems)


def fill(directory: str, naming: str, draft: Draft) -> tuple[list[HostRow], list[Peer]]:
    """Put what a site's files say, and the problems with them, into a draft; see `read_site`."""
    draft.no_host = ""
    variables = read_variables(directory, draft.problems)
    rows, problems = read_hosts(variables["lonTabDir"].value)
    if not rows and not problems:
        problems = [f"{variables['lonTabDir'].value}: there is no host in the table"]
    draft.problems += problems
    peers = peers_of(rows, naming)
    put_site(variables, peers, draft)
    draft.problems += _socket_problems(peers, variables["lonSockDir"].value)
    return rows, peers


def read_variables(directory: str, problems: list[str]) -> dict[str, Variable]:
    """Return all variables of DEFAULTS as the files of a directory set them.

    A line for each file that cannot be read, and each line that cannot be understood, is added to
    `problems`.
    """
    found = {name: Variable(value, directory) for name, value in DEFAULTS.items()}
    missing = []
    for name in FILES:
        path = os.path.join(directory, name)
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except FileNotFoundError:
            missing.append(name)
            continue
        except OSError as error:
            problems.append(f"{path}: cannot be read: {error.strerror}")
            continue
        for number, line in enumerate(text.split("\n"), 1):
            _read_line(f"{path}:{number}", line, found, problems)
    if missing == list(FILES):
        problems.append(f"{directory}: neither {' nor '.join(FILES)} is there")
    elif not found["lonHostID"].value:
        problems.append(f"{directory}: lonHostID, the id of this host, is not set")
    return found


def _read_line(place: str, line: str, found: dict[str, Variable], problems: list[str]) -> None:
    """Take over a line that sets one of our variables; everything else is Apache's business."""
    words = line.split()
    # Apache's directives may be written in capitals or not.
    if len(words) < 2 or words[0].lower() != "perlsetvar" or words[1] not in found:
        return
    if len(words) != 3:
        problems.append(f"{place}: {words[1]} must be followed by one value")
        return
    found[words[1]] = Variable(words[2].strip('"'), place)


def peers_of(rows: list[HostRow], naming: str) -> list[Peer]:
    """Return who is served with whom, and under which socket names.

    BY_ID        each id has its own socket, and is a peer by itself
    BY_HOSTNAME  the ids of one DNS name are one peer, whose socket has that name
    BY_BOTH      as by id; the first id of a DNS name answers on a socket of that name too
    """
    named: dict[str, list[HostRow]] = {}
    for row in rows:
        named.setdefault(row.name, []).append(row)
    if naming == BY_HOSTNAME:
        return [
            Peer(same[0].id, same[0].address, tuple(row.id for row in same), (name,), same[0].place)
            for name, same in named.items()
        ]
    peers = []
    for row in rows:
        sockets = [row.id]
        if naming == BY_BOTH and named[row.name][0] is row and row.name != row.id:
            sockets.append(row.name)
        peers.append(Peer(row.id, row.address, (row.id,), tuple(sockets), row.place))
    return peers


def put_site(variables: dict[str, Variable], peers: list[Peer], draft: Draft) -> None:
    """Put everything that a site's files say into a draft of the configuration."""
    own_id, place = variables["lonHostID"]
    if own_id:
        draft.put(place, "own_id", own_id)
    for name, (variable, end) in PATHS.items():
        value, place = variables[variable]
        draft.put(place, name, value + end)
    draft.put(draft.source, "log_format", "loncapa")
    if _user_exists():
        draft.put(draft.source, "user", USER)
    insecure, place = variables["loncAllowInsecure"]
    if insecure in ("0", "1"):
        draft.put(place, "allow_insecure", insecure == "1")
    else:
        draft.problems.append(f"{place}: loncAllowInsecure must be 0 or 1, and is {insecure}")
    port = _port(variables["londPort"], draft.problems)
    for peer in peers:
        draft.add_host(peer.place, peer.id, peer.ids[1:], peer.sockets)
        draft.put(peer.place, "address", peer.address, peer.id)
        draft.put(variables["londPort"].place, "port", port, peer.id)


def _port(variable: Variable, problems: list[str]) -> int:
    row = PeerSettings.rows()["port"]
    text, place = variable
    try:
        port: int = row.kind.take(int(text) if re.fullmatch("[0-9]{1,9}", text) else text)
    except NotAllowed:
        problems.append(f"{place}: londPort must be {row.kind.allowed}, and is {text}")
        port = row.default
    return port


def _user_exists() -> bool:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True


def _socket_problems(peers: list[Peer], socket_dir: str) -> list[str]:
    """Return a line for each socket whose path would be too long, or another's."""
    problems = []
    places: dict[str, str] = {}
    size = len(os.fsencode(socket_dir))
    for peer in peers:
        for name in peer.sockets:
            if size + 1 + len(name) > MAX_PATH:
                problems.append(
                    f"{peer.place}: the path of the socket {name} would have"
                    f" {size + 1 + len(name)} bytes, and the system allows {MAX_PATH}:"
                    f" {size} of lonSockDir, {len(name)} of the name"
                )
            if name in places:
                problems.append(f"{peer.place}: the socket {name} is that of {places[name]} too")
            places.setdefault(name, peer.place)
    return problems
