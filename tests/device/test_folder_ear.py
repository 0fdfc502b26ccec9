"""What is heard is looked at, and nothing else; what is looked at is what a full look finds."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.device.folder_world import Device, MemoryPool, exchange, pair

from holdfast.device.folder.scan import Scan
from holdfast.rim import notify
from holdfast.rim.notify import TreeWatch

QUEUED_MAX = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


@asynccontextmanager
async def listening() -> AsyncIterator[TreeWatch]:
    ear = TreeWatch(lambda: None)
    ear.start()
    try:
        yield ear
    finally:
        ear.close()


async def scan(device: Device, ear: TreeWatch) -> Scan:
    await asyncio.sleep(0)  # the loop reads what was heard
    await asyncio.sleep(0)
    return await device.folder.scan(time.time_ns(), ear=ear)


async def sync(device: Device, pool: MemoryPool, ear: TreeWatch) -> Scan:
    found = await scan(device, ear)
    device.snapshot = device.folder.snapshot(found, device.state, pool)
    async for draft in device.snapshot.drafts():
        device.folder.confirm(draft, device.write("folder", draft.entries))
    await device.apply(pool)
    return found


def disturb(top: Path, source: random.Random) -> None:
    """One random change somewhere below `top`."""
    directories = [Path(d) for d, _, _ in os.walk(top) if ".holdfast~" not in d]
    files = [p for d in directories for p in d.iterdir() if p.is_file()]
    where = source.choice(directories)
    name = where / f"n{source.randrange(8)}"
    match source.choice(("write", "write", "mkdir", "remove", "move", "chmod")):
        case "write" if not name.is_dir():
            name.write_bytes(source.randbytes(source.randrange(50)))
        case "mkdir" if not name.exists():
            name.mkdir()
            (name / "inside").write_bytes(source.randbytes(9))
        case "remove" if files:
            source.choice(files).unlink()
        case "move":
            victim = source.choice([*files, *directories[1:]] or [top])
            if victim != top and not name.exists() and victim not in (name, *name.parents):
                victim.rename(name)
        case "chmod" if files:
            source.choice(files).chmod(source.choice((0o600, 0o644, 0o755)))


@pytest.mark.parametrize("seed", range(12))
def test_two_folders_that_only_listen_stay_the_same(tmp_path: Path, seed: int) -> None:
    async def main() -> None:
        a, b = pair(tmp_path)
        pool, source = MemoryPool(), random.Random(seed)
        async with listening() as ear_a, listening() as ear_b:
            for _ in range(12):
                for _ in range(source.randrange(1, 5)):
                    disturb(a.top, source)
                await sync(a, pool, ear_a)
                exchange(a, b)
                await sync(b, pool, ear_b)
                exchange(a, b)
                assert a.shown() == b.shown()
                full = await a.folder.scan(time.time_ns())
                assert not full.missing
                assert all(seen.row is not None for seen in full.seen), "only fresh ones"

    asyncio.run(main())


def test_only_what_was_heard_is_looked_at(tmp_path: Path) -> None:
    async def main() -> None:
        a, _ = pair(tmp_path)
        pool = MemoryPool()
        for number in range(30):
            a.path(f"d{number}").mkdir()
            a.path(f"d{number}/f").write_bytes(b"x")
        async with listening() as ear:
            assert (await sync(a, pool, ear)).names == 60
            assert (await sync(a, pool, ear)).names == 30, "our marker was made at the top"
            assert (await sync(a, pool, ear)).names == 0
            a.path("d7/f").write_bytes(b"y")
            a.path("d8/sub").mkdir()
            found = await sync(a, pool, ear)
            assert {seen.path for seen in found.seen} == {b"d7/f", b"d8/f", b"d8/sub"}
            assert found.names == 3
            a.path("d8/sub/new").write_bytes(b"z")
            found = await sync(a, pool, ear)
            assert [seen.path for seen in found.seen] == [b"d8/sub/new"], "covered as it was found"

    asyncio.run(main())


def test_a_renamed_directory_is_heard_under_its_new_name(tmp_path: Path) -> None:
    async def main() -> None:
        a, _ = pair(tmp_path)
        pool = MemoryPool()
        a.path("old/deep").mkdir(parents=True)
        a.path("old/deep/f").write_bytes(b"x")
        async with listening() as ear:
            await sync(a, pool, ear)
            a.path("old").rename(a.path("new"))
            await sync(a, pool, ear)
            a.path("new/deep/f").write_bytes(b"other")
            found = await sync(a, pool, ear)
            assert {seen.path for seen in found.seen} >= {b"new/deep/f"}
            assert set(a.state.tree()) == {b"new", b"new/deep", b"new/deep/f"}

    asyncio.run(main())


def test_without_watches_everything_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        a, _ = pair(tmp_path)
        pool = MemoryPool()
        a.path("f").write_bytes(b"x")
        async with listening() as ear:
            monkeypatch.setattr(notify, "_add", lambda *_: -1)
            await sync(a, pool, ear)
            assert ear.broken
            a.path("f").write_bytes(b"other")
            assert (await sync(a, pool, ear)).names == 1

    asyncio.run(main())


def test_a_queue_that_ran_over_is_a_look_at_everything(tmp_path: Path) -> None:
    async def main() -> None:
        a, _ = pair(tmp_path)
        pool = MemoryPool()
        a.path("d").mkdir()
        a.path("f").write_bytes(b"x")
        async with listening() as ear:
            await sync(a, pool, ear)
            for number in range(QUEUED_MAX + 10):  # two events each, and nobody reads meanwhile
                a.path(f"d/{number % 2}").write_bytes(b"")
            a.path("late").write_bytes(b"unheard")
            found = await sync(a, pool, ear)
            assert b"late" in {seen.path for seen in found.seen}

    asyncio.run(main())
