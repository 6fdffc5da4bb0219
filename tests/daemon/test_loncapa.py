"""The files of LON-CAPA sites of several ages, and all that can be wrong in them."""

from __future__ import annotations

import pwd
import shutil
import tempfile
from pathlib import Path

import pytest

from lonc.daemon import loncapa
from lonc.daemon.loncapa import BY_BOTH, BY_HOSTNAME, BY_ID, read_site

SITES = Path(__file__).parent.parent / "sites"


class Copy:
    """A made-up site, put under a directory of the test."""

    def __init__(self, name: str, root: Path) -> None:
        shutil.copytree(SITES / name, root)
        self.root = root
        self.home = root / "home" / "httpd"
        (conf,) = root.glob("etc/*/conf") if name != "late" else root.glob("etc/apache2")
        self.conf = conf
        for path in conf.iterdir():
            path.write_text(path.read_text().replace("/home/httpd", str(self.home)))

    def read(self, naming=BY_BOTH):
        return read_site(str(self.conf), naming)

    def problems(self):
        """The problems of the site, without the path of the copy."""
        site = self.read()
        assert site.configuration is None
        return [problem.replace(f"{self.root}/", "") for problem in site.problems]

    def append(self, name, text):
        with (self.conf / name).open("a") as file:
            file.write(text)


@pytest.fixture
def copy():
    """Copies have short paths: that of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="lonc") as directory:
        yield lambda name: Copy(name, Path(directory) / name)


def test_early_site(copy):
    site = copy("early")
    configuration, _, _, problems = site.read()
    assert problems == []
    settings = configuration.settings
    home = str(site.home)
    assert settings.own_id == "riverl1"
    assert settings.socket_dir == f"{home}/sockets"
    assert settings.delayed_dir == f"{home}/sockets/delayed"
    assert settings.log_file == f"{home}/perl/logs/lonc.log"
    assert settings.pid_file == f"{home}/perl/logs/lonc.pid"
    assert settings.perm_log == f"{home}/perl/logs/lonnet.perm.log"
    assert settings.status_file == f"{home}/html/lon-status/loncstatus.txt"
    assert settings.log_format == "loncapa"
    assert [(host.id, host.address, host.port) for host in configuration.hosts] == [
        ("riverl1", "127.0.0.1", 5663),
        ("rivera1", "192.0.2.11", 5663),
        ("lakel1", "198.51.100.7", 5663),
        ("l.2-x_1", "198.51.100.8", 5663),
    ]
    assert {host.settings.dialect for host in configuration.hosts} == {"versioned"}
    assert {host.settings.allow_insecure for host in configuration.hosts} == {True}


def test_late_site(copy):
    site = copy("late").read()
    assert site.problems == []
    assert [(host.id, host.address, host.port) for host in site.configuration.hosts] == [
        ("riverl1", "library.river.example", 15663),
        ("brookl1", "library.river.example", 15663),
        ("rivera1", "access1.river.example", 15663),
        ("lakel1", "library.lake.example", 15663),
        ("pondl1", "library.pond.example", 15663),
    ]


def test_rows_say_what_was_understood(copy):
    site = copy("early")
    row = site.read().rows[3]
    assert row == (
        "l.2-x_1",
        "lake",
        "access",
        "access.lake.example",
        "198.51.100.8",
        f"{site.home}/lonTabs/hosts.tab:6",
    )


def test_hosts_tab_wins(copy):
    rows = {row.id: row for row in copy("late").read().rows}
    assert rows["riverl1"].name == "library.river.example"
    assert rows["riverl1"].place.endswith("/hosts.tab:6")
    assert rows["rivera1"].place.endswith("/dns_hosts.tab:3")


@pytest.mark.parametrize("present", ["hosts.tab", "dns_hosts.tab"])
def test_one_table_is_enough(copy, present):
    site = copy("late")
    for path in (site.home / "lonTabs").iterdir():
        if path.name != present:
            path.unlink()
    assert site.read().problems == []


def test_naming_by_id(copy):
    peers = copy("late").read(BY_ID).peers
    assert [(peer.ids, peer.sockets) for peer in peers] == [
        ((name,), (name,)) for name in ("riverl1", "brookl1", "rivera1", "lakel1", "pondl1")
    ]


def test_naming_by_host_name_makes_one_peer_of_the_ids_of_a_machine(copy):
    site = copy("late").read(BY_HOSTNAME)
    assert [(peer.id, peer.ids, peer.sockets) for peer in site.peers] == [
        ("riverl1", ("riverl1", "brookl1"), ("library.river.example",)),
        ("rivera1", ("rivera1",), ("access1.river.example",)),
        ("lakel1", ("lakel1",), ("library.lake.example",)),
        ("pondl1", ("pondl1",), ("library.pond.example",)),
    ]
    assert [host.id for host in site.configuration.hosts] == [
        "riverl1",
        "rivera1",
        "lakel1",
        "pondl1",
    ]


def test_naming_by_both_gives_a_machines_name_to_its_first_id(copy):
    peers = copy("late").read(BY_BOTH).peers
    assert [(peer.ids, peer.sockets) for peer in peers] == [
        (("riverl1",), ("riverl1", "library.river.example")),
        (("brookl1",), ("brookl1",)),
        (("rivera1",), ("rivera1", "access1.river.example")),
        (("lakel1",), ("lakel1", "library.lake.example")),
        (("pondl1",), ("pondl1", "library.pond.example")),
    ]


def test_sites_file_wins_and_quotes_come_off(copy):
    site = copy("early")
    site.append("loncapa.conf", 'perlsetvar lonHostID "rivera1"\n#PerlSetVar lonHostID x\n')
    site.append("loncapa.conf", "PerlSetVar\nPerlSetVar otherVariable\n")
    assert site.read().configuration.settings.own_id == "rivera1"


def test_insecure_peers_refused(copy):
    site = copy("early")
    site.append("loncapa.conf", "PerlSetVar loncAllowInsecure 0\n")
    hosts = site.read().configuration.hosts
    assert {host.settings.allow_insecure for host in hosts} == {False}


def test_defaults_of_a_site_that_says_nothing(tmp_path):
    (tmp_path / "loncapa.conf").write_text("PerlSetVar lonHostID riverl1\n")
    variables = loncapa.read_variables(str(tmp_path), [])
    assert {name: value for name, (value, _) in variables.items()} == {
        "lonHostID": "riverl1",
        "lonSockDir": "/home/httpd/sockets",
        "lonTabDir": "/home/httpd/lonTabs",
        "lonDaemons": "/home/httpd/perl",
        "lonDocRoot": "/home/httpd/html",
        "londPort": "5663",
        "loncAllowInsecure": "1",
    }


@pytest.mark.parametrize("exists", [True, False])
def test_user_of_the_site(copy, monkeypatch, exists):
    known = {"www"} if exists else set()

    def find(name):
        if name not in known:
            raise KeyError(name)
        return pwd.struct_passwd((name, "x", 33, 33, "", "/", "/bin/sh"))

    monkeypatch.setattr(pwd, "getpwnam", find)
    assert copy("early").read().configuration.settings.user == ("www" if exists else "")


def test_every_mistake_is_reported_with_its_place(copy):
    conf, table = "etc/httpd/conf", "home/httpd/lonTabs/hosts.tab"
    assert copy("broken").problems() == [
        f"{conf}/loncapa_apache.conf:5: lonDocRoot must be followed by one value",
        f"{conf}/loncapa_apache.conf:6: lonDaemons must be followed by one value",
        f"{table}:3: a row has the columns id:domain:role:name:address, here are 3",
        f"{table}:4: the first column must be a host id: letters, digits and . _ - only, and no dot"
        " first, and is '../etc'",
        f"{table}:5: the first column must be a host id: letters, digits and . _ - only, and no dot"
        " first, and is ''",
        f"{table}:6: the second column, the domain, is empty",
        f"{table}:7: the third column must be library or access, and is 'teacher'",
        f"{table}:8: the fourth column must be a host name, and is ''",
        f"{table}:9: the fourth column must be a host name, and is '../library'",
        f"{table}:10: the fifth column must be an IP address, http or https, and is '127.0.0.256'",
        f"{table}:12: the host riverl1 stands in {table}:2 already",
        f'{conf}/loncapa.conf:1: own_id = "../riverl1": must be a host id: letters, digits and'
        " . _ - only, and no dot first",
        f'{conf}/loncapa_apache.conf:2: socket_dir = "sockets": must be an absolute path',
        f'{conf}/loncapa_apache.conf:2: delayed_dir = "sockets/delayed": must be an absolute path,'
        ' or "" for none',
        f"{conf}/loncapa_apache.conf:4: loncAllowInsecure must be 0 or 1, and is maybe",
        f"{conf}/loncapa_apache.conf:3: londPort must be a whole number from 1 to 65535,"
        " and is 70000",
    ]


def test_broken_site_still_shows_what_was_understood(copy):
    site = copy("broken").read()
    assert [row.id for row in site.rows] == ["riverl1", "lakel1"]


def test_files_that_are_not_there(copy, tmp_path):
    nothing = read_site(str(tmp_path / "none"))
    assert nothing.problems[0] == (
        f"{tmp_path}/none: neither loncapa_apache.conf nor loncapa.conf is there"
    )
    site = copy("early")
    (site.conf / "loncapa.conf").unlink()
    (site.home / "lonTabs" / "hosts.tab").unlink()
    assert site.problems() == ["home/httpd/lonTabs/hosts.tab: there is no such file"]
    (site.conf / "loncapa_apache.conf").write_text("")
    assert "lonHostID, the id of this host, is not set" in site.problems()[0]


def test_files_that_cannot_be_read(copy):
    site = copy("early")
    for path in (site.conf / "loncapa.conf", site.home / "lonTabs" / "hosts.tab"):
        path.unlink()
        path.mkdir()
    assert site.problems() == [
        "etc/httpd/conf/loncapa.conf: cannot be read: Is a directory",
        "home/httpd/lonTabs/hosts.tab: cannot be read: Is a directory",
    ]


def test_a_path_that_cannot_be_one(copy):
    site = copy("early")
    site.append("loncapa.conf", "PerlSetVar lonTabDir /nul\0\n")
    assert site.problems() == [
        f"/nul\\x00/{name}: cannot be read: embedded null byte"
        for name in ("hosts.tab", "dns_hosts.tab")
    ]


def test_table_without_hosts(copy):
    site = copy("early")
    (site.home / "lonTabs" / "hosts.tab").write_text("# nothing yet\n^directory.example:http\n")
    assert site.problems() == ["home/httpd/lonTabs: there is no host in the table"]


def test_bytes_that_are_no_text(copy):
    site = copy("early")
    (site.home / "lonTabs" / "hosts.tab").write_bytes(
        b"riverl1:river:library:h\xfcl.example:127.0.0.1\n\xff\xfe\n"
    )
    (site.conf / "loncapa_apache.conf").write_bytes(
        b"PerlSetVar lonTabDir " + bytes(site.home / "lonTabs") + b"\nPerlSetVar lonAdmEMail \xfc\n"
    )
    assert [problem.split(": ")[0] for problem in site.problems()] == [
        "home/httpd/lonTabs/hosts.tab:1",
        "home/httpd/lonTabs/hosts.tab:2",
    ]


def test_socket_path_that_is_too_long(copy):
    site = copy("early")
    long = "/" + "x" * 85
    site.append("loncapa.conf", f"PerlSetVar lonSockDir {long}\n")
    assert site.problems() == [
        "home/httpd/lonTabs/hosts.tab:2: the path of the socket library.river.example would have"
        " 108 bytes, and the system allows 107: 86 of lonSockDir, 21 of the name",
        "home/httpd/lonTabs/hosts.tab:3: the path of the socket access1.river.example would have"
        " 108 bytes, and the system allows 107: 86 of lonSockDir, 21 of the name",
    ]


def test_name_that_is_another_hosts_id(copy):
    site = copy("early")
    (site.home / "lonTabs" / "hosts.tab").write_text(
        "riverl1:river:library:lakel1:127.0.0.1\nlakel1:lake:library:lakel1.example:127.0.0.1\n"
    )
    assert site.problems() == [
        "home/httpd/lonTabs/hosts.tab:2: the socket lakel1 is that of"
        " home/httpd/lonTabs/hosts.tab:1 too"
    ]
    assert site.read(BY_ID).problems == []


def test_name_that_is_the_hosts_own_id_is_one_socket(copy):
    site = copy("early")
    (site.home / "lonTabs" / "hosts.tab").write_text("riverl1:river:library:riverl1:127.0.0.1\n")
    assert [peer.sockets for peer in site.read().peers] == [("riverl1",)]
    assert site.read().problems == []
