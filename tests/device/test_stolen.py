"""The disk of any one machine opens nothing; two of the right ones everything (D22, seed 003).

`holdfast drill stolen` plays the same on real processes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.device.test_carrying import Three, play

from holdfast.device.locking import lock_folder
from holdfast.device.peering.peers import peer_named
from holdfast.device.sharing import share
from holdfast.device.vault.archive import Archives
from holdfast.device.vault.split import split
from holdfast.logic.pool.fanout import Stage
from holdfast.sim.attacker import Attacker

FOLDER = [os.urandom(16).hex().encode() for _ in range(60)]
ARCHIVE = [os.urandom(16).hex().encode() for _ in range(20)]
TOKENS = {*FOLDER, *ARCHIVE}


def found(*disks: Path) -> set[bytes]:
    return Attacker(disks).run().tokens(TOKENS)


def test_one_disk_opens_nothing(tmp_path: Path) -> None:
    async def story(three: Three) -> None:
        laptop, phone, bob = three.laptop, three.phone, three.bob
        files = tmp_path / "files"
        files.mkdir()
        (files / "diary.txt").write_bytes(b"\n".join(FOLDER[1:]) * 3)
        (files / FOLDER[0].decode()).write_bytes(b"a name tells something too")
        group = await share(laptop, files, "diary")
        await laptop.folders[group.id].sync()
        assert await laptop.reach(Stage.REPLICATED, 60.0)
        await three.rounds()
        for name in ("laptop", "phone", "laptop"):
            await three.agents[name].sweep()
        archives = Archives(laptop, three.agents["laptop"])
        devices = [peer_named(laptop, "phone"), peer_named(laptop, "bob")]
        await archives.add(ARCHIVE[0].decode(), b"\n".join(ARCHIVE[1:]), devices)
        shutil.copytree(laptop.state.home, tmp_path / "open")
        shutil.copytree(files, tmp_path / "open" / "files")
        await lock_folder(laptop, laptop.key_named("diary"), 60.0)
        shutil.copytree(laptop.state.home, tmp_path / "not split")
        await split(laptop, [peer_named(laptop, "bob")])
        await split(phone, [peer_named(phone, "bob")])
        await split(bob, [peer_named(bob, "alice")])
        for name in list(three.agents):
            await three.agents.pop(name).stop()
        for runtime in (laptop, phone, bob):
            await three.fleet.shut(runtime)

    play(tmp_path, story)
    for name in ("laptop", "phone", "bob", "pool"):
        assert found(tmp_path / name) == set(), name
    assert found(tmp_path / "laptop", tmp_path / "bob") == TOKENS
    assert found(tmp_path / "phone", tmp_path / "bob") == TOKENS
    assert found(tmp_path / "open") >= set(FOLDER)
    assert found(tmp_path / "not split") >= set(FOLDER), "without the split one disk is enough"
