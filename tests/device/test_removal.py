"""Removal over a real pool: a new era, a new tag, nothing more to read for who is out (D16)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.device.world import Fleet, tree
from tests.fabric.world import FAST
from tests.relay.harness import Pool

from holdfast.device.folders import FolderSync
from holdfast.device.group import Group
from holdfast.device.inviting import Inviter, join_group
from holdfast.device.membership import remove
from holdfast.device.persons import device_named, devices, revoke
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.sharing import place, share
from holdfast.device.tend import tend
from holdfast.errors import OperationFault, UsageError
from holdfast.logic.pool.fanout import Stage
from holdfast.rim.clock import SystemClock

BODIES = {"one": b"before anybody left " * 500, "two": b"after bob left " * 9_000}


async def bring_in(host: DeviceRuntime, guest: DeviceRuntime, name: str, path: Path) -> FolderSync:
    inviter = Inviter(host)
    joining = asyncio.create_task(join_group(guest, inviter.invite(host.key_named(name))))
    while not joining.done():
        await inviter.answer()
        await asyncio.wait({joining}, timeout=0.05)
    group: Group = joining.result()
    await place(guest, guest.key_named(name), path)
    return guest.folders[group.id]


async def rounds(*runtimes: DeviceRuntime) -> None:
    """Everybody keeps house, twice, and everything is stored."""
    for _ in range(2):
        for runtime in runtimes:
            await runtime.reach(Stage.STORED, 20.0)
            for group in runtime.groups.values():
                await group.read(everywhere=True)
            await tend(runtime, everywhere=True)
            await runtime.reach(Stage.STORED, 20.0)


def test_who_is_out_reads_nothing_sent_after_and_everybody_else_all(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                alice, _ = await fleet.device("alice")
                bob, _ = await fleet.device("bob")
                carol, _ = await fleet.device("carol")
                dave, _ = await fleet.device("dave")
                home = tmp_path / "alice-files"
                home.mkdir()
                (home / "one").write_bytes(BODIES["one"])
                group = await share(alice, home, "shared")
                at_alice = alice.folders[group.id]
                at_bob = await bring_in(alice, bob, "shared", tmp_path / "bob-files")
                at_carol = await bring_in(alice, carol, "shared", tmp_path / "carol-files")
                await at_alice.sync()
                await rounds(alice, bob, carol)
                await at_bob.sync(everywhere=True)
                assert tree(at_bob.path) == {"one": BODIES["one"]}

                await remove(alice, group, {bob.state.person})
                (home / "two").write_bytes(BODIES["two"])
                await at_alice.sync()
                await rounds(alice, carol)
                done = await at_carol.sync(everywhere=True)
                assert not done.problems
                assert tree(at_carol.path) == BODIES
                assert group.era.number == 1
                assert at_carol.group.era.tag == group.era.tag

                await at_bob.sync(everywhere=True)
                await tend(bob, everywhere=True)
                assert tree(at_bob.path) == {"one": BODIES["one"]}
                assert at_bob.group.shut_out
                assert group.era.tag not in {era.tag for era in at_bob.group.eras}
                (at_bob.path / "three").write_bytes(b"from outside")
                with pytest.raises(OperationFault, match="without this device"):
                    await at_bob.sync(everywhere=True)

                at_dave = await bring_in(carol, dave, "shared", tmp_path / "dave-files")
                await rounds(carol, dave)
                await at_dave.sync(everywhere=True)
                assert tree(at_dave.path) == BODIES, "who comes later reads what was before"

    asyncio.run(main())


def test_a_stolen_device_is_out_everywhere_and_the_person_goes_on(tmp_path: Path) -> None:
    """Issue 5.3: "a stolen friend device is removed by its owner and everyone honours it"."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                alice, _ = await fleet.device("alice")
                laptop, words = await fleet.device("laptop")
                home = tmp_path / "alice-files"
                home.mkdir()
                (home / "one").write_bytes(BODIES["one"])
                group = await share(alice, home, "shared")
                at_alice = alice.folders[group.id]
                at_laptop = await bring_in(alice, laptop, "shared", tmp_path / "laptop-files")
                phone, _ = await fleet.device("phone", words)
                await rounds(alice, laptop, phone)
                assert phone.state.key.public in group.log.state.members

                with pytest.raises(UsageError, match="at work"):
                    await revoke(laptop, device_named(laptop, "laptop"))
                done = await revoke(laptop, device_named(laptop, "phone"), words.root())
                assert (done.groups, done.waiting, done.stated) == (["shared"], [], True)
                await rounds(alice, laptop)
                assert phone.state.key.public not in group.log.state.members
                (home / "two").write_bytes(BODIES["two"])
                await at_alice.sync()
                await rounds(alice, laptop)
                await at_laptop.sync(everywhere=True)
                assert tree(at_laptop.path) == BODIES

                await tend(phone, everywhere=True)
                for one in phone.groups.values():
                    await one.read(everywhere=True)
                    assert one.shut_out
                assert phone.keyring.shut_out
                assert [d.name for d in devices(laptop) if d.is_in] == ["laptop"]

                again, _ = await fleet.device("again", words)
                await rounds(again, laptop)
                assert again.keyring.era.tag == laptop.keyring.era.tag, "words open later eras"
                at_again = again.groups[group.id]
                assert at_again.era.tag == group.era.tag
                await place(again, again.key_named("shared"), tmp_path / "again-files")
                await again.folders[group.id].sync(everywhere=True)
                assert tree(tmp_path / "again-files") == BODIES

    asyncio.run(main())


def test_removals_under_partition_end_in_an_era_that_neither_removed_can_open(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                people = {}
                for name in ("alice", "bob", "carol", "dave"):
                    people[name], _ = await fleet.device(name)
                alice, dave = people["alice"], people["dave"]
                (tmp_path / "files").mkdir()
                group = await share(alice, tmp_path / "files", "shared")
                for name in ("bob", "carol", "dave"):
                    await bring_in(alice, people[name], "shared", tmp_path / f"{name}-files")
                await rounds(*people.values())
                at_dave = dave.groups[group.id]
                await remove(alice, group, {people["bob"].state.person})
                await remove(dave, at_dave, {people["carol"].state.person})
                assert group.era.number == at_dave.era.number == 1
                assert group.era.tag != at_dave.era.tag
                await rounds(alice, dave, alice, dave)
                assert group.era.tag == at_dave.era.tag
                assert group.era.number == 2
                for name in ("bob", "carol"):
                    out = people[name].groups[group.id]
                    await out.read(everywhere=True)
                    assert group.era.tag not in {era.tag for era in out.eras}

    asyncio.run(main())
