"""Devices that stay in step by themselves, while servers and groups come and go."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.device.world import Fleet, running, same, tree
from tests.fabric.world import FAST
from tests.relay.harness import Pool, until

from holdfast.device.folders import FolderSync, Synced
from holdfast.device.inviting import Inviter, join_group
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.sharing import place, share
from holdfast.device.tend import tend
from holdfast.device.view import DeviceView
from holdfast.device.watch import Watch
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock

pytestmark = pytest.mark.system


@asynccontextmanager
async def watching(*runtimes: DeviceRuntime) -> AsyncIterator[list[Synced]]:
    """All of them watch; what their cycles did."""
    seen: list[Synced] = []

    def note(_: FolderSync, done: Synced) -> None:
        seen.append(done)

    tasks = [asyncio.create_task(Watch(runtime, note).run()) for runtime in runtimes]
    async with running(tasks):
        yield seen


def test_two_watching_devices_stay_in_step_through_a_lost_provider(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                ada, words = await fleet.device("ada")
                ben, _ = await fleet.device("ben", words)
                a, b = tmp_path / "a", tmp_path / "b"
                a.mkdir()
                (a / "first").write_text("one")
                await share(ada, a, "notes")
                async with watching(ada):
                    await until(lambda: (tmp_path / "a" / "first").exists())
                    while not ben.state.groups():
                        await tend(ben, everywhere=True)
                    await place(ben, ben.key_named("notes"), b)
                    async with watching(ben):
                        await same(a, b)
                        (b / "second").write_text("two")
                        await same(a, b)
                        for role in ("relay", "replica"):
                            await pool.servers[f"{role}-eu-001"].stop()
                        (a / "third").write_bytes(os.urandom(2_000_000))
                        (b / "fourth").write_text("four")
                        await same(a, b)
                        assert (b / "third").stat().st_size == 2_000_000
                        assert "relay-eu-001" in ada.keyring.slot.roster.health.failing()

    asyncio.run(main())


def test_a_watching_device_answers_invites_made_beside_it(tmp_path: Path) -> None:
    """`folder invite` in another terminal while `folder sync --watch` runs."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                ada, _ = await fleet.device("ada")
                ben, _ = await fleet.device("ben")
                a, b = tmp_path / "a", tmp_path / "b"
                a.mkdir()
                (a / "file").write_text("one")
                await share(ada, a, "notes")
                async with watching(ada):
                    view = DeviceView(tmp_path / "ada")
                    invite = view.invite("", os.urandom(32), pool.clock.wall())
                    group = await join_group(ben, invite)
                    assert view.taken_by(invite.id) == "ben"
                    await place(ben, ben.key_named(group.name), b)
                    async with watching(ben):
                        await same(a, b)
                    with pytest.raises(UsageError, match="used by ben"):
                        await join_group((await fleet.device("carl"))[0], invite)
                    await until(lambda: Inviter(ada).host.all()[0].refused == ("carl",))
                    (figures,) = view.folders()
                    assert (figures.name, figures.files, figures.path) == ("notes", 1, str(a))
                    assert len(view.members(view.group_named("notes")[0])) == 4
                    with pytest.raises(UsageError, match="there is: notes"):
                        view.group_named("nothing")
                    view.close()

    asyncio.run(main())


def test_a_watch_outlives_the_loss_of_every_server(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                ada, words = await fleet.device("ada")
                a = tmp_path / "a"
                a.mkdir()
                await share(ada, a, "notes")
                async with watching(ada) as seen:
                    await until(lambda: any(not done.offline for done in seen))
                    for server in pool.servers.values():
                        await server.stop()
                    (a / "dark").write_text("written in the dark")
                    await until(lambda: any(done.changes for done in seen))
                    assert ada.state.store.outbox.bytes_held > 0
                    for server in pool.servers.values():
                        await server.start()
                    await until(lambda: ada.state.store.outbox.bytes_held == 0, 60.0)
                cleo, _ = await fleet.device("cleo", words)
                await place(cleo, cleo.key_named("notes"), tmp_path / "c")
                for folder in cleo.folders.values():
                    await folder.sync(everywhere=True)
                assert tree(tmp_path / "c") == tree(a)

    asyncio.run(main())


def test_the_canary_in_names_and_content_is_in_no_server_file(tmp_path: Path) -> None:
    """File content, file names, folder names, device names: none leaves this device in clear."""
    canary = "canary-5e3c-in-the-mine"

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path / "devices") as fleet:
                ada, _ = await fleet.device(f"device-{canary}")
                top = tmp_path / f"top-{canary}"
                (top / f"sub-{canary}").mkdir(parents=True)
                (top / f"sub-{canary}" / f"file-{canary}").write_text(canary * 1_000)
                await share(ada, top, f"folder-{canary}")
                for folder in ada.folders.values():
                    assert (await folder.sync()).changes
                await until(lambda: ada.state.store.outbox.bytes_held == 0, 60.0)

    asyncio.run(main())
    files = [path for path in (tmp_path / "pool").rglob("*") if path.is_file()]
    assert any(path.stat().st_size > 1_000 for path in files)
    needles = (canary.encode(), canary.encode("utf-16-le"))
    assert not [path for path in files if any(n in path.read_bytes() for n in needles)]
    mine = [path for path in (tmp_path / "devices").rglob("*") if path.is_file()]
    assert [path for path in mine if canary.encode() in path.read_bytes()], "the search works"
