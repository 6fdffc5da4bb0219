"""The examples in docs/examples run, and the pages show them as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import lonc
from lonc.broker.broker import Broker
from lonc.broker.host import Host
from lonc.daemon import config
from lonc.lond import Fault, Peer
from lonc.net.listening import open_unix_listener
from lonc.reactor import Reactor

ROOT = Path(__file__).resolve().parents[2]
# Where the package is that is being tested: the source tree, or an installation.
PACKAGES = str(Path(lonc.__file__).parents[1])
EXAMPLES = ROOT / "docs" / "examples"
FILES = [path for path in EXAMPLES.iterdir() if path.suffix in (".py", ".toml")]
PAGES = [ROOT / "README.md", ROOT / "CHANGES.md", *sorted((ROOT / "docs").glob("*.md"))]
# reactor.md shows pieces of programs; they are tested in tests/reactor.
SHOWN = [page for page in PAGES if page.name not in ("reactor.md", "administration.md")]

PRINTED = {
    "embed.py": "b'msul1'\n",
    "line_service.py": "b'HELLO' b'AGAIN'\n",
    "in_asyncio.py": "[b'0', b'1', b'2', b'3', b'4']\n",
    "peer_in_a_test.py": (
        "b'msul1' None 1\nNone the peer closed the connection 2\nb'msul1' None 3\n"
    ),
}


def run(name, part_env, *arguments):
    """Run an example over a part, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        env=os.environ | part_env | {"PYTHONPATH": PACKAGES, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("name", PRINTED)
def test_example(name, part_env):
    assert run(name, part_env) == PRINTED[name]


@pytest.fixture
def served(tmp_path, parts):
    """A peer, and the path of a socket that a broker serves for it in a thread."""
    path = str(tmp_path / "msul1")
    reading, writing = os.pipe()
    with Peer(id="msul1") as peer, open_unix_listener(path) as listener:
        reactor = Reactor(parts)
        broker = Broker(reactor, Host("msul1", *peer.address, own_id="msul2"))
        broker.listen(listener)
        reactor.io(reading, "r", lambda event: reactor.unloop())
        thread = threading.Thread(target=reactor.run)
        thread.start()
        yield peer, path
        os.close(writing)
        thread.join()
        broker.close()
        reactor.close()
    os.close(reading)


def test_client(served, part_env, tmp_path):
    _, path = served
    assert run("client.py", part_env, path, str(tmp_path / "perm.log")) == "b'msul1'\nb'ok'\n"


def test_client_without_an_answer(served, part_env, tmp_path):
    peer, path = served
    peer.faults.add(Fault("close", command="ping"))
    peer.faults.add(Fault("close", command="log"))
    (tmp_path / "delayed").mkdir()
    printed = run("client.py", part_env, path, str(tmp_path / "perm.log")).splitlines()
    assert printed[0].endswith("(con_lost) True")
    assert printed[1] == "b'con_delayed'"
    assert len(list((tmp_path / "delayed").iterdir())) == 1


def test_the_configuration_is_right():
    configuration = config.load(str(EXAMPLES / "lonc.toml"))
    first, second = configuration.hosts
    assert (first.id, first.settings.max_connections) == ("msul1", 4)
    assert (second.port, second.settings.dialect) == (5663, "classic")
    assert second.settings.max_connections == 10


def test_every_example_is_run_or_read():
    assert {path.name for path in FILES} == {*PRINTED, "client.py", "lonc.toml"}


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.name)
def test_a_page_shows_the_files(page):
    files = {path.read_text() for path in FILES}
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S):
        assert text in files, f"a block of {language} that is in no file of docs/examples"


def test_the_readme_shows_how_to_embed_and_configure():
    readme = (ROOT / "README.md").read_text()
    for name in ("embed.py", "lonc.toml"):
        assert (EXAMPLES / name).read_text() in readme


def anchors(page):
    """Return what a link may name behind the `#`."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    made = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([\w-]+)"></a>', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), f"{link}: there is no such file"
        assert not anchor or anchor in anchors(target), f"{link}: there is no such place"
