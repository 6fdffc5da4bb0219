"""Root, and what is made as whom; these need root, and are skipped without it."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys

import pytest

from lonc.client import Client
from lonc.daemon.privileges import drop_root, is_root
from lonc.errors import UsageError
from tests.conftest import wait_until
from tests.daemon.site import DEADLINE, children_of

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def nobody():
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        pytest.skip("this system has no user nobody")


@pytest.fixture
def given_away(site, nobody):
    """A site whose directories belong to nobody."""
    for path in (site.home, site.delayed):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return site


def ids(pid):
    """Real, effective, saved and file system user and group, and the other groups."""
    with open(f"/proc/{pid}/status") as file:
        fields = dict(line.rstrip("\n").split(":", 1) for line in file)
    return [[int(word) for word in fields[name].split()] for name in ("Uid", "Gid", "Groups")]


@needs_root
def test_root_becomes_the_user_before_anything_is_made(given_away, nobody, peer):
    site = given_away
    log = site.home / "lonc.log"
    site.configure({"msul1": peer}, user="nobody", log_file=str(log), delayed_scan=0.1)
    path = site.delay("msul1", b"log:msu:korte:hello")
    os.chown(path, nobody.pw_uid, nobody.pw_gid)
    daemon = site.start()
    wait_until(lambda: not site.messages(), DEADLINE)
    with Client(site.home / "msul1", DEADLINE) as client:
        assert client.request(b"ping") == b"msul1"
    groups = sorted(os.getgrouplist("nobody", nobody.pw_gid))
    for pid in {daemon.pid} | children_of(daemon.pid):
        users, own_groups, others = ids(pid)
        assert users == 4 * [nobody.pw_uid]
        assert own_groups == 4 * [nobody.pw_gid]
        assert sorted(others) == groups
    for made in (site.home / "msul1", site.pid_file, site.perm_log, log):
        assert (made.stat().st_uid, made.stat().st_gid) == (nobody.pw_uid, nobody.pw_gid), made
    assert "running as root" not in site.log()
    daemon.terminate()
    assert daemon.wait(DEADLINE) == 0
    assert not (site.home / "msul1").exists()
    assert not site.pid_file.exists()


@needs_root
def test_what_the_user_may_not_do_is_refused(site, nobody, peer):
    """The directory is root's: nothing is opened while lonc still could."""
    site.configure({"msul1": peer}, user="nobody")
    site.home.chmod(0o755)
    done = site.run("serve")
    assert done.returncode == 2
    assert "pid_file" in done.stderr
    assert not (site.home / "msul1").exists()


@needs_root
def test_root_that_stays_root_is_warned_of(site, peer):
    site.configure({"msul1": peer}, log_file=str(site.home / "lonc.log"))
    site.start()
    site.logged("WARNING: running as root")
    assert "WARNING: running as root" in (site.home / "lonc.log").read_text()


@needs_root
def test_owner_and_group_of_a_socket(site, nobody, peer):
    site.configure(
        {"msul1": peer}, socket_owner="nobody", socket_group=nobody.pw_gid, socket_mode="0600"
    )
    site.start()
    status = (site.home / "msul1").stat()
    assert (status.st_uid, status.st_gid) == (nobody.pw_uid, nobody.pw_gid)
    assert status.st_mode & 0o777 == 0o600


@needs_root
def test_the_commands_become_the_user_too(given_away, nobody, peer):
    """Else a permanent log that root made would keep the daemon from delivering anything."""
    site = given_away
    site.configure({"msul1": peer}, user="nobody")
    path = site.delay("msul1", b"log:msu:korte:hello")
    os.chown(path, nobody.pw_uid, nobody.pw_gid)
    assert site.run("delayed", "drop", "1000000000.0.77").returncode == 0
    assert site.perm_log.stat().st_uid == nobody.pw_uid


def test_who_is_not_root_stays_who_it_is(nobody):
    program = (
        "import os, sys\n"
        "from lonc.daemon.privileges import drop_root, is_root\n"
        "if is_root(): os.setresgid(1, 1, 1); os.setresuid(1, 1, 1)\n"
        "before = os.getresuid()\n"
        "drop_root('nobody')\n"
        "drop_root('')\n"
        "assert os.getresuid() == before and not is_root()\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    if is_root():
        # The other user need not be able to read the source: it is imported before.
        program = program.replace("import os, sys\n", "import os, pwd, resource\n")
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, timeout=DEADLINE
    )
    assert (done.returncode, done.stderr) == (0, b"")


@needs_root
def test_a_user_that_is_not_there():
    with pytest.raises(UsageError, match="user = nosuchuser: this system has no such user"):
        drop_root("nosuchuser")
    assert is_root()
