"""Short runs of the drills of devices and groups; the long ones are commands."""

from __future__ import annotations

import asyncio
from pathlib import Path

from holdfast.crypto.atrest import AtRest
from holdfast.fabric.database import Database
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.attacker import Attacker
from holdfast.sim.drills.lose_device import LoseDevice, LostDevices

TOKEN = b"0123456789abcdef0123456789abcdef"


def test_any_of_three_devices_destroyed(tmp_path: Path) -> None:
    """Issue 5: `lost: 0, copies_after: 2`, counted by reading the other disks."""
    drill = LoseDevice(tmp_path, SystemClock(), SystemEntropy(), seed=3)
    report = asyncio.run(drill.run(2, writes=16))
    assert report.lost == 0
    assert report.copies_after == 2
    assert report.safe > 8


def test_a_report_of_a_loss_does_not_hold() -> None:
    good = LostDevices(1, copies_after=2, unsafe_lost=1)
    assert good.held
    assert not LostDevices(1, copies_after=1, unsafe_lost=1).held
    assert not LostDevices(1, copies_after=2, lost=1, unsafe_lost=1).held
    assert not LostDevices(1, copies_after=2).held, "a count that never saw a loss proves nothing"


def disk(path: Path, seed: bytes, half: bytes, secret: bytes) -> Path:
    """A disk with a key file and one sealed secret."""
    path.mkdir()
    (path / "device.key").write_bytes(seed)
    database = Database(path / "device.db", "create table eras (tag blob, secret blob)")
    with database.durable():
        kept = AtRest(seed, half).seal("eras.secret", secret)
        database.run("insert into eras values (?, ?)", (b"t" * 32, kept))
    database.close()
    return path


def test_the_attacker_opens_what_can_be_opened_and_no_more(tmp_path: Path) -> None:
    seed, half = bytes(range(32)), bytes(range(32, 64))
    whole = disk(tmp_path / "whole", seed, b"", TOKEN)
    split = disk(tmp_path / "split", seed, half, TOKEN)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "half").write_bytes(half)
    assert Attacker([whole]).run().tokens([TOKEN]) == {TOKEN}
    assert Attacker([split]).run().tokens([TOKEN]) == set()
    assert Attacker([tmp_path / "other"]).run().tokens([TOKEN]) == set()
    assert Attacker([split, tmp_path / "other"]).run().tokens([TOKEN]) == {TOKEN}
    (tmp_path / "other" / "note").write_bytes(b"plain " + TOKEN)
    assert Attacker([tmp_path / "other"]).run().tokens([TOKEN]) == {TOKEN}
