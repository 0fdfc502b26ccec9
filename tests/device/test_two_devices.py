"""Two people share a folder over real servers, both ways; one person restores from words."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from tests.device.world import Fleet, tree
from tests.fabric.world import FAST
from tests.relay.harness import Pool

from holdfast.device.inviting import Inviter, join_group
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.sharing import place, share
from holdfast.device.tend import tend
from holdfast.errors import UsageError
from holdfast.logic.pool.fanout import Stage
from holdfast.rim.clock import SystemClock


def fill(top: Path) -> None:
    (top / "sub" / "empty").mkdir(parents=True)
    (top / "zero").write_bytes(b"")
    (top / "sub" / "name with \u00fc and \u6d77").write_text("odd")
    (top / "big").write_bytes(os.urandom(3_000_000))
    (top / "link").symlink_to("big")
    for number in range(50):
        (top / "sub" / f"{number}.txt").write_text(f"text {number}\n" * number)


async def befriend(host: DeviceRuntime, group: bytes, guest: DeviceRuntime, path: Path) -> None:
    """The whole way of an invite, both devices awake."""
    inviter = Inviter(host)
    key = next(key for key in host.state.groups() if key.id == group)
    line = inviter.invite(key)
    joining = asyncio.create_task(join_group(guest, line))
    while not joining.done():
        await inviter.answer()
        await asyncio.wait({joining}, timeout=0.05)
    joined = joining.result()
    key = next(key for key in guest.state.groups() if key.id == joined.id)
    await place(guest, key, path)


async def sync(runtime: DeviceRuntime) -> None:
    for folder in runtime.folders.values():
        done = await folder.sync(everywhere=True)
        assert not done.offline, done.offline
        assert not done.problems, done.problems
    assert await runtime.reach(Stage.STORED, 30.0)


def test_two_devices_sync_a_tree_both_ways(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                alice, _ = await fleet.device("alice")
                bob, _ = await fleet.device("bob")
                a, b = tmp_path / "a", tmp_path / "b"
                a.mkdir()
                fill(a)
                group = await share(alice, a, "tree")
                await sync(alice)
                await befriend(alice, group.id, bob, b)
                await sync(bob)
                assert tree(b) == tree(a)
                (b / "sub" / "from bob").write_text("hello")
                (b / "big").unlink()
                (b / "zero").rename(b / "renamed")
                await sync(bob)
                await sync(alice)
                assert tree(b) == tree(a)
                assert (a / "sub" / "from bob").read_text() == "hello"
                (a / "both").write_text("alice")
                (b / "both").write_text("bob")
                for runtime in (alice, bob, alice, bob):
                    await sync(runtime)
                assert tree(b) == tree(a)
                kept = [path.read_text() for path in a.iterdir() if "both" in path.name]
                assert sorted(kept) == ["alice", "bob"]
                figures = alice.folders[group.id].figures()
                assert figures.members == 4, "two devices and their persons' roots"
                assert figures.queued == 0
                assert figures.files == len([v for v in tree(a).values() if isinstance(v, bytes)])

    asyncio.run(main())


def test_words_and_locator_restore_everything_without_hq(tmp_path: Path) -> None:
    """D5: recovery input is words + locator; no HQ, no other device."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            theirs = await pool.seat(slot=os.urandom(16))
            async with Fleet(pool, record, tmp_path) as fleet:
                alice, words = await fleet.device("alice")
                bob, _ = await fleet.device("bob", record=theirs)
                mine, friends = tmp_path / "mine", tmp_path / "friends"
                mine.mkdir()
                friends.mkdir()
                fill(mine)
                (friends / "on another slot").write_text("yes")
                await share(alice, mine, "mine")
                shared = await share(bob, friends, "friends")
                await sync(alice)
                await sync(bob)
                await befriend(bob, shared.id, alice, tmp_path / "friends at alice")
                await sync(alice)
                assert await alice.reach(Stage.REPLICATED, 60.0)
                locator = alice.keyring.slot.current_locator()
                assert locator.roots, "no root has to be fetched"
                await fleet.shut(alice)
                shutil.rmtree(tmp_path / "alice")
                fleet.hq.gone = True
                again, _ = await fleet.device("again", words)
                assert {key.name for key in again.state.groups()} == {"mine", "friends"}
                for key in again.state.groups():
                    await place(again, key, tmp_path / "restored" / key.name)
                await sync(again)
                assert tree(tmp_path / "restored" / "mine") == tree(mine)
                assert tree(tmp_path / "restored" / "friends") == tree(friends)
                assert "record" not in fleet.hq.asked
                (tmp_path / "restored" / "mine" / "new").write_text("and it may write")
                (tmp_path / "restored" / "friends" / "new").write_text("there too")
                await sync(again)
                await sync(bob)
                assert (friends / "new").read_text() == "there too"
                assert len(again.keyring_log.devices()) == 2

    asyncio.run(main())


def test_a_second_device_of_a_person_is_let_in_everywhere(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                first, words = await fleet.device("first")
                second, _ = await fleet.device("second", words)
                top = tmp_path / "top"
                top.mkdir()
                (top / "file").write_text("one")
                group = await share(first, top, "notes")
                await sync(first)
                await tend(second, everywhere=True)
                key = second.key_named("notes")
                assert key.id == group.id
                await place(second, key, tmp_path / "other")
                await tend(first, everywhere=True)
                await sync(first)
                await sync(second)
                assert tree(tmp_path / "other") == tree(top)
                (tmp_path / "other" / "file").write_text("two")
                await sync(second)
                await sync(first)
                assert (top / "file").read_text() == "two"

    asyncio.run(main())


def test_changes_made_without_any_server_are_sent_later(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                alice, words = await fleet.device("alice")
                top = tmp_path / "top"
                top.mkdir()
                group = await share(alice, top, "notes")
                await sync(alice)
                for server in pool.servers.values():
                    await server.stop()
                (top / "offline").write_text("written in a tunnel")
                done = await alice.folders[group.id].sync()
                assert done.offline
                assert done.changes == 1
                await fleet.shut(alice)
                for server in pool.servers.values():
                    await server.start()
                alice = await fleet.reopen("alice")
                assert await alice.reach(Stage.REPLICATED, 60.0)
                again, _ = await fleet.device("again", words)
                await place(again, again.key_named("notes"), tmp_path / "restored")
                await sync(again)
                assert tree(tmp_path / "restored") == tree(top)

    asyncio.run(main())


def test_usage(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                alice, _ = await fleet.device("alice")
                with pytest.raises(UsageError, match=r"holds a device already|already runs"):
                    await fleet.device("alice")
                top = tmp_path / "top"
                with pytest.raises(UsageError, match="not a directory"):
                    await share(alice, top, "notes")
                (top / "inner").mkdir(parents=True)
                await share(alice, top, "notes")
                with pytest.raises(UsageError, match="overlaps"):
                    await share(alice, top / "inner", "inner")
                with pytest.raises(UsageError, match="already"):
                    await share(alice, tmp_path / "pool", "notes")
                with pytest.raises(UsageError, match="overlaps"):
                    await share(alice, tmp_path / "alice", "itself")
                with pytest.raises(UsageError, match="one place per device"):
                    await place(alice, alice.key_named(""), tmp_path / "elsewhere")
                with pytest.raises(UsageError, match="there is: notes"):
                    alice.key_named("nothing")

    asyncio.run(main())
