"""Killed anywhere, begun again: the folder ends as the log shows it, and nothing is made up."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.device.folder_world import (
    Device,
    Killed,
    KillingDisk,
    MemoryPool,
    Shown,
    dump,
    exchange,
    pair,
    shown,
)

from holdfast.errors import OperationFault
from holdfast.limits import MIB
from holdfast.logic.group.operation import Kind

SOURCE = random.Random(11)
LONG = SOURCE.randbytes(3 * MIB)
LONGER = SOURCE.randbytes(11 * MIB)
STEPS_MAX = 400


def fill(device: Device) -> None:
    """One of everything an apply does."""
    for name in ("edit", "delete", "rename", "chmod", "to-directory", "swap1", "swap2"):
        device.path(name).write_bytes(name.encode() * 50)
    device.path("dir/sub").mkdir(parents=True)
    device.path("dir/sub/x").write_bytes(b"x")
    device.path("to-file").mkdir()
    device.path("to-file/y").write_bytes(b"y")
    device.path("long").write_bytes(LONG)
    device.path("long-rename").write_bytes(LONG[::-1])
    device.path("link").symlink_to("edit")


def change(device: Device) -> None:
    path = device.path
    path("edit").write_bytes(b"edited")
    path("delete").unlink()
    path("rename").rename(path("renamed"))
    path("chmod").chmod(0o755)
    path("to-directory").unlink()
    path("to-directory").mkdir()
    path("to-directory/z").write_bytes(b"z")
    path("swap1").rename(path("t"))
    path("swap2").rename(path("swap1"))
    path("t").rename(path("swap2"))
    path("dir").rename(path("moved"))
    path("to-file/y").unlink()
    path("to-file").rmdir()
    path("to-file").write_bytes(b"now a file")
    path("long").write_bytes(LONG[:MIB] + b"!" + LONG[MIB:])
    path("long-rename").rename(path("long-renamed"))
    path("longer").write_bytes(LONGER)
    path("empty").write_bytes(b"")
    path("link").unlink()
    path("link").symlink_to("elsewhere")
    path("new-directory").mkdir(mode=0o700)


class Scene:
    """b is one apply away from a; copied from a template for every kill."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.pool = MemoryPool()

    async def prepare(self, *, from_nothing: bool) -> None:
        a, b = pair(self.base / "template")
        fill(a)
        if not from_nothing:
            await a.commit(self.pool)
            exchange(a, b)
            await b.apply(self.pool)
        change(a)
        await a.commit(self.pool)
        await b.commit(self.pool)
        exchange(a, b)
        self.log = list(b.log)
        self.wanted = a.shown()
        a.folder.close()
        b.folder.close()

    async def device(self, number: int) -> Device:
        """b once more. The copy has other inodes: one scan finds everything in step again."""
        base = self.base / str(number)
        shutil.copytree(self.base / "template", base, symlinks=True)
        device = Device(base, "b")
        device.receive(self.log)
        device.folder.accept_top()
        await device.commit(self.pool)
        return device


async def killed_at(scene: Scene, number: int) -> bool:
    """Kill an apply before its n-th change; True when it was over before that."""
    countdown = [number]
    device = await scene.device(number)
    device.restart(lambda top: KillingDisk(top, countdown))
    finished = False
    try:
        await device.apply(scene.pool)
        finished = True
    except Killed:
        pass
    device.restart()
    count = len(device.log)
    applied = await device.sync(scene.pool)
    assert applied.problems == [], number
    assert device.shown() == scene.wanted, number
    assert len(device.log) == count, f"a kill at {number} made up changes"
    assert device.folder.plan(device.state).is_empty
    assert os.listdir(device.path(".holdfast~")) == ["marker"]
    device.folder.close()
    shutil.rmtree(scene.base / str(number))
    return finished


@pytest.mark.parametrize("from_nothing", [False, True])
@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.campaign)])
@pytest.mark.system
def test_killed_before_any_change_to_the_disk(
    tmp_path: Path, from_nothing: bool, stride: int
) -> None:
    """Before every third change; before every one in a campaign."""

    async def main() -> None:
        scene = Scene(tmp_path)
        await scene.prepare(from_nothing=from_nothing)
        for number in range(0, STEPS_MAX, stride):
            if await killed_at(scene, number):
                assert number > 40, "the scene does many things"
                return
        raise AssertionError("an apply that never ends")

    asyncio.run(main())


def test_what_was_staged_of_a_long_file_is_not_fetched_again(tmp_path: Path) -> None:
    async def main() -> None:
        a, b = pair(tmp_path)
        pool = MemoryPool()
        a.path("longer").write_bytes(LONGER)
        await a.commit(pool)
        exchange(a, b)
        countdown = [50]
        b.restart(lambda top: KillingDisk(top, countdown))
        with pytest.raises(Killed):
            await b.apply(pool)
        b.restart()
        pool.gets.clear()
        await b.sync(pool)
        assert b.shown() == a.shown()
        assert len(pool.gets) <= pool.puts - 3, "the recipe, and what was not written yet"

    asyncio.run(main())


def test_a_file_torn_by_a_power_cut_is_not_an_edit(tmp_path: Path) -> None:
    """Renamed, never synced, and empty or full of zeros after the crash: its time is still ours."""

    async def main() -> None:
        a, b = pair(tmp_path)
        pool = MemoryPool()
        for name in ("empty", "zeros", "whole", "edited"):
            a.path(name).write_bytes(name.encode() * 100)
        await a.commit(pool)
        exchange(a, b)
        b.restart(lambda top: _NoSync(top))
        with pytest.raises(Killed):
            await b.apply(pool)
        for name, content in (("empty", b""), ("zeros", bytes(500))):
            info = b.path(name).stat()
            b.path(name).write_bytes(content)
            os.utime(b.path(name), ns=(info.st_atime_ns, info.st_mtime_ns))
        b.path("edited").write_bytes(b"by a person, after the crash")
        b.restart()
        snapshot = await b.commit(pool)
        assert sorted(snapshot.torn) == [b"empty", b"zeros"]
        await b.apply(pool)
        got = b.shown()
        for name in (b"empty", b"zeros", b"whole"):
            assert got[name][2] == name * 100
        assert b"by a person, after the crash" in {content for _, _, content in got.values()}
        assert len(got) == 5

    class _NoSync(KillingDisk):
        def __init__(self, top: bytes) -> None:
            super().__init__(top, [10**9])

        def sync(self) -> None:
            raise Killed

    asyncio.run(main())


# --- on the way out ------------------------------------------------------------------------------
def test_killed_after_the_operation_was_stored_and_before_it_was_confirmed(tmp_path: Path) -> None:
    async def main() -> None:
        a, b = pair(tmp_path)
        pool = MemoryPool()
        a.path("x").write_bytes(b"1")
        a.path("d").mkdir()
        a.path("big").write_bytes(LONG)
        snapshot = a.folder.snapshot(await a.scan(), a.state, pool)
        async for draft in snapshot.drafts():
            a.write(Kind.FOLDER, draft.entries)
        a.restart()
        count, puts = len(a.log), pool.puts
        await a.sync(pool)
        assert len(a.log) == count
        assert pool.puts == puts
        exchange(a, b)
        await b.apply(pool)
        assert b.shown() == a.shown()

    asyncio.run(main())


def test_the_same_with_a_conflict_that_arrived_meanwhile(tmp_path: Path) -> None:
    async def main() -> None:
        a, b = pair(tmp_path)
        pool = MemoryPool()
        a.path("x").write_bytes(b"from a")
        os.utime(a.path("x"), ns=(1, 1))
        snapshot = a.folder.snapshot(await a.scan(), a.state, pool)
        async for draft in snapshot.drafts():
            a.write(Kind.FOLDER, draft.entries)
        b.path("x").write_bytes(b"from b")
        await b.commit(pool)
        a.restart()
        exchange(a, b)
        count = len(a.log)
        await a.sync(pool)
        await b.sync(pool)
        assert len(a.log) == count, "its own version is found again, not made anew"
        assert a.shown() == b.shown()
        assert len(a.shown()) == 2

    asyncio.run(main())


@pytest.mark.parametrize("puts", [0, 1, 5])
def test_a_sink_that_gives_up_leaves_a_snapshot_to_be_repeated(tmp_path: Path, puts: int) -> None:
    async def main() -> None:
        a, b = pair(tmp_path)
        pool = MemoryPool()
        fill(a)
        a.path("longer").write_bytes(LONGER)
        pool.fail_after = puts
        count = len(a.log)
        with pytest.raises(OperationFault):
            await a.commit(pool)
        assert len(a.log) == count
        pool.fail_after = None
        await a.commit(pool)
        exchange(a, b)
        await b.apply(pool)
        assert a.shown() == b.shown()

    asyncio.run(main())


# --- on the way in -------------------------------------------------------------------------------
def test_a_pack_that_nobody_has_is_named_and_the_rest_arrives(tmp_path: Path) -> None:
    async def main() -> None:
        a, b = pair(tmp_path)
        pool = MemoryPool()
        a.path("lost").write_bytes(SOURCE.randbytes(10_000))
        await a.commit(pool)
        pool.lost = set(pool.blobs)
        a.path("there").write_bytes(b"there")
        a.path("longer").write_bytes(LONGER)
        await a.commit(pool)
        exchange(a, b)
        applied = await b.apply(pool)
        assert applied.missing == pool.lost
        assert [path for path, _ in applied.problems] == [b"lost"]
        assert sorted(b.shown()) == [b"longer", b"there"]
        pool.lost = set()
        count = len(b.log)
        assert (await b.sync(pool)).problems == []
        assert b.shown() == a.shown()
        assert len(b.log) == count, "what is missing here is not deleted elsewhere"

    asyncio.run(main())


def test_a_chunk_that_is_not_what_it_says_is_not_placed(tmp_path: Path) -> None:
    async def main() -> None:
        a, b = pair(tmp_path)
        pool = MemoryPool()
        a.path("x").write_bytes(SOURCE.randbytes(1_000))
        await a.commit(pool)
        [name] = pool.blobs
        _, other = await _other_blob(pool)
        pool.blobs[name] = other
        exchange(a, b)
        applied = await b.apply(pool)
        assert [path for path, _ in applied.problems] == [b"x"]
        assert b.shown() == {}

    async def _other_blob(pool: MemoryPool) -> tuple[bytes, bytes]:
        name = await pool.put_bulk(bytes(2_000))
        return name, pool.blobs[name]

    asyncio.run(main())


CHILD = """
import asyncio, sys
from pathlib import Path
from tests.device.folder_world import Device, load

async def main(base):
    pool, log = load(base)
    device = Device(base, "b")
    device.receive(log)
    print("begun", flush=True)
    count = len(device.log)
    applied = await device.sync(pool)
    print("done", len(device.log) - count, len(applied.problems), flush=True)

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.system
def test_killed_with_sigkill_until_it_is_done(tmp_path: Path) -> None:
    """A real process, a real signal, at moments nobody chose."""

    async def prepare() -> Shown:
        a, b = pair(tmp_path)
        pool = MemoryPool()
        for i in range(4_000):
            a.path(f"d{i % 40}").mkdir(exist_ok=True)
            a.path(f"d{i % 40}/f{i}").write_bytes(SOURCE.randbytes(i))
        a.path("longer").write_bytes(LONGER)
        await a.commit(pool)
        exchange(a, b)
        dump(tmp_path, pool, b)
        b.folder.close()
        return a.shown()

    wanted = asyncio.run(prepare())
    kills = 0
    for kills in range(100):
        command = [sys.executable, "-c", CHILD, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            killer = threading.Timer(0.03 + 0.06 * kills, process.kill)
            killer.start()
            last = process.stdout.readline()
            killer.cancel()
        assert process.returncode in (0, -signal.SIGKILL)
        if last:
            assert last == "done 0 0\n", "nothing was made up, nothing is missing"
            break
    assert kills >= 2, "it was killed at least twice"
    assert shown(tmp_path / "b") == wanted
