"""A process is stopped after each of its system calls, or the power is cut there.

No message may be lost, and none may be executed twice but those that were on their way.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from .disks import RealDisk, SimulatedDisk, Stopped
from .site import Site

HOSTS = ("msul1", "msul2")
GOOD = b"put:msu:korte:environment:a=b"
LOST_ONCE = b"put:msu:korte:environment:c=d"
REFUSED = b"newput:msu:korte:environment:e=f"
OTHER = b"log:msu:korte:text"


def prepare(site: Site) -> None:
    site.replies = {LOST_ONCE: [None, b"ok"], REFUSED: [b"error: no"]}


def work(site: Site) -> None:
    """What one process does: take commands from clients, and deliver them for two hosts."""
    for command in (GOOD, LOST_ONCE, REFUSED):
        site.add(command)
    site.add(OTHER, "msul2")
    site.wait(10)
    deliver(site)


def deliver(site: Site) -> None:
    for host in HOSTS:
        delivery = site.delivery(host)
        site.deliver(delivery)
        delivery.close()


def check(site: Site) -> None:
    """Everything was delivered or set aside, and recorded, and nothing too often."""
    assert site.waiting() == []
    set_aside = site.failed_commands()
    records = site.records()
    for command in site.promised:
        if command == REFUSED:
            assert command in set_aside, "a refused message is gone"
            assert ("F", command) in records, "there is no record of a refused message"
        else:
            assert site.executed[command] >= 1, "a message is lost"
            assert ("S", command) in records, "there is no record of a delivered message"
    for command, times in site.executed.items():
        assert times <= 1 + site.exposed[command], f"executed {times} times: {command!r}"
    assert site.executed[REFUSED] == 0


def stopped_after(site: Site, calls: int) -> bool:
    """Work, stopped after so many calls; whether it came that far."""
    site.disk.restart(stop_after=calls)
    try:
        work(site)
    except Stopped:
        return True
    finally:
        site.disk.restart()
    return False


def settle(site: Site) -> None:
    """Make what is in the directory old enough; a real file's time cannot be waited for."""
    site.wait(1000)
    if isinstance(site.disk, RealDisk):
        for name in os.listdir(site.path):
            os.utime(os.path.join(site.path, name), (1, 1))


def test_every_call_of_a_simulated_disk():
    calls = 0
    stopped = True
    while stopped:
        calls += 1
        site = Site(SimulatedDisk())
        prepare(site)
        stopped = stopped_after(site, calls)
        settle(site)
        deliver(site)
        check(site)
    assert calls > 100


def test_every_call_of_a_real_disk(tmp_path, monkeypatch):
    # Files are as old as their writing here, so they count as settled at once.
    monkeypatch.setattr("tests.delayed.site.Settings.delayed_settle", 0.0)
    calls = 0
    stopped = True
    while stopped:
        calls += 1
        site = Site(RealDisk(), str(tmp_path / str(calls)))
        prepare(site)
        stopped = stopped_after(site, calls)
        deliver(site)
        check(site)
        if stopped:
            left = [name for name in os.listdir(site.path) if name.endswith(".tmp")]
            assert len(left) <= 1
    assert calls > 100
    assert sorted(os.listdir(site.path)) == ["failed"]


@pytest.mark.parametrize("keep", [(), ("data",), ("names",), ("data", "names")])
def test_power_cut_after_every_call(keep):
    calls = 0
    stopped = True
    while stopped:
        calls += 1
        site = Site(SimulatedDisk())
        prepare(site)
        stopped = stopped_after(site, calls)
        site.disk.cut_power(keep)
        settle(site)
        deliver(site)
        check(site)
    assert calls > 100


@pytest.mark.parametrize("seed", range(150))
def test_stopped_again_and_again(seed):
    chance = random.Random(seed)
    site = Site(SimulatedDisk())
    prepare(site)
    stopped_after(site, chance.randrange(1, 150))
    for _ in range(chance.randrange(1, 12)):
        if chance.random() < 0.3:
            site.disk.cut_power(chance.choice([(), ("data",), ("names",)]))
        settle(site)
        site.disk.restart(stop_after=chance.randrange(1, 40))
        try:
            deliver(site)
        except Stopped:
            pass
        site.disk.restart()
    settle(site)
    deliver(site)
    check(site)


def test_a_name_given_twice_is_removed_twice(tmp_path: Path):
    """The writer died between giving a message its name and taking off the temporary one."""
    site = Site(RealDisk(), str(tmp_path / "site"))
    site.add(GOOD)
    (name,) = site.waiting()
    temporary = os.path.join(site.path, f".{name}.tmp")
    os.link(os.path.join(site.path, name), temporary)
    os.utime(temporary, (1, 1))
    site.deliver(site.delivery())
    assert os.listdir(site.path) == []
    assert site.executed[GOOD] == 1
