"""Two people at once: both sides are kept, on both devices, under the same names."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.device.folder_world import Device, MemoryPool, exchange, pair

from holdfast.device.folder import read
from holdfast.device.folder.disk import Disk
from holdfast.device.folder.folder import Folder
from holdfast.errors import OperationFault, UsageError

Change = Callable[[Device], None]


async def converge(pool: MemoryPool, *devices: Device) -> None:
    """Commit, exchange, apply, until nobody has anything to say; at most a few rounds."""
    for _ in range(6):
        before = [len(device.log) for device in devices]
        for device in devices:
            await device.commit(pool)
        exchange(*devices)
        for device in devices:
            applied = await device.apply(pool)
            assert applied.problems == []
        if before == [len(device.log) for device in devices]:
            return
    raise AssertionError("they never agree")


def write(name: str, content: bytes) -> Change:
    def change(device: Device) -> None:
        device.path(name).write_bytes(content)

    return change


def run(tmp_path: Path, at_first: Change, on_a: Change, on_b: Change) -> dict[bytes, bytes]:
    """What both devices show after changes at the same time: content by name."""

    async def main() -> dict[bytes, bytes]:
        a, b = pair(tmp_path)
        pool = MemoryPool()
        at_first(a)
        await converge(pool, a, b)
        on_a(a)
        on_b(b)
        await converge(pool, a, b)
        assert a.shown() == b.shown()
        return {
            path: content for path, (kind, _, content) in a.shown().items() if kind != "directory"
        }

    return asyncio.run(main())


def test_edit_and_edit(tmp_path: Path) -> None:
    got = run(tmp_path, write("x.txt", b"0"), write("x.txt", b"from a"), write("x.txt", b"from b"))
    assert sorted(got.values()) == [b"from a", b"from b"]
    [copy] = got.keys() - {b"x.txt"}
    assert copy.startswith((b"x (conflict, a, ", b"x (conflict, b, "))
    assert copy.endswith(b").txt")


def test_edit_and_delete(tmp_path: Path) -> None:
    def delete(device: Device) -> None:
        device.path("x").unlink()

    assert run(tmp_path, write("x", b"0"), write("x", b"kept"), delete) == {b"x": b"kept"}


def test_create_and_create(tmp_path: Path) -> None:
    def nothing(_device: Device) -> None:
        return

    got = run(tmp_path, nothing, write("new", b"from a"), write("new", b"from b"))
    assert sorted(got.values()) == [b"from a", b"from b"]
    got = run(tmp_path / "same", nothing, write("new", b"same"), write("new", b"same"))
    assert got == {b"new": b"same"}


def test_file_and_directory(tmp_path: Path) -> None:
    def directory(device: Device) -> None:
        device.path("x").unlink()
        device.path("x/sub").mkdir(parents=True)
        device.path("x/sub/inside").write_bytes(b"inside")

    got = run(tmp_path, write("x", b"0"), write("x", b"edited"), directory)
    assert got.pop(b"x/sub/inside") == b"inside"
    assert list(got.values()) == [b"edited"]


def test_delete_of_a_directory_that_gets_a_new_file(tmp_path: Path) -> None:
    def at_first(device: Device) -> None:
        device.path("d").mkdir()
        device.path("d/old").write_bytes(b"old")

    def delete(device: Device) -> None:
        device.path("d/old").unlink()
        device.path("d").rmdir()

    assert run(tmp_path, at_first, write("d/new", b"new"), delete) == {b"d/new": b"new"}


def test_rename_and_edit(tmp_path: Path) -> None:
    def rename(device: Device) -> None:
        device.path("x").rename(device.path("y"))

    got = run(tmp_path, write("x", b"0"), write("x", b"edited"), rename)
    assert got == {b"x": b"edited", b"y": b"0"}


def test_link_and_file(tmp_path: Path) -> None:
    def link(device: Device) -> None:
        device.path("x").unlink()
        device.path("x").symlink_to("target")

    got = run(tmp_path, write("x", b"0"), write("x", b"edited"), link)
    assert sorted(got.values()) == [b"edited", b"target"]


def test_a_conflict_copy_is_settled_by_deleting_editing_or_moving_it(tmp_path: Path) -> None:
    async def main() -> None:
        a, b = pair(tmp_path)
        pool = MemoryPool()
        for name in ("deleted", "edited", "moved", "winner"):
            a.path(name).write_bytes(b"0")
        await converge(pool, a, b)
        for device in (a, b):
            for name in ("deleted", "edited", "moved", "winner"):
                device.path(name).write_bytes(device.name.encode() + name.encode())
        await converge(pool, a, b)
        copies = {p.split(b" (")[0]: p for p in a.shown() if b"conflict" in p}
        assert len(copies) == 4
        a.path(copies[b"deleted"]).unlink()
        a.path(copies[b"edited"]).write_bytes(b"edited copy")
        a.path(copies[b"moved"]).rename(a.path("elsewhere"))
        loser = a.path(copies[b"winner"]).read_bytes()
        a.path("winner").unlink()
        await converge(pool, a, b)
        got = a.shown()
        assert got == b.shown()
        assert copies[b"deleted"] not in got
        assert got[copies[b"edited"]][2] == b"edited copy"
        assert copies[b"moved"] not in got
        assert b"elsewhere" in got
        assert got[b"winner"][2] == loser, "what is left takes the name"
        assert copies[b"winner"] not in got

    asyncio.run(main())


# --- changes that no scan has seen ---------------------------------------------------------------
def unscanned(
    tmp_path: Path, at_first: Change, on_a: Change, late_on_b: Change
) -> tuple[Device, dict[bytes, bytes]]:
    """b changes something between its scan and its apply of what a did."""

    async def main() -> tuple[Device, dict[bytes, bytes]]:
        a, b = pair(tmp_path)
        pool = MemoryPool()
        at_first(a)
        await converge(pool, a, b)
        on_a(a)
        await a.commit(pool)
        await b.commit(pool)
        exchange(a, b)
        late_on_b(b)
        await b.apply(pool)
        late = {p: c for p, (k, _, c) in b.shown().items() if k != "directory"}
        await converge(pool, a, b)
        assert a.shown() == b.shown()
        return b, late

    return asyncio.run(main())


def test_an_edit_that_no_scan_saw_is_not_overwritten(tmp_path: Path) -> None:
    b, late = unscanned(tmp_path, write("x", b"0"), write("x", b"a's"), write("x", b"late"))
    assert late[b"x"] == b"a's"
    assert b"late" in late.values()
    assert {c for k, _, c in b.shown().values()} == {b"a's", b"late"}


def test_a_new_file_that_no_scan_saw_is_not_overwritten(tmp_path: Path) -> None:
    def nothing(_device: Device) -> None:
        return

    b, late = unscanned(tmp_path, nothing, write("x", b"a's"), write("x", b"late"))
    assert late[b"x"] == b"a's"
    assert {c for k, _, c in b.shown().values()} == {b"a's", b"late"}


def test_an_edit_that_no_scan_saw_is_not_deleted(tmp_path: Path) -> None:
    def delete(device: Device) -> None:
        device.path("x").unlink()

    b, late = unscanned(tmp_path, write("x", b"0"), delete, write("x", b"late"))
    assert late == {b"x": b"late"}
    assert b.shown()[b"x"][2] == b"late"


def test_a_directory_that_got_a_file_no_scan_saw_is_not_deleted(tmp_path: Path) -> None:
    def at_first(device: Device) -> None:
        device.path("d").mkdir()

    def delete(device: Device) -> None:
        device.path("d").rmdir()

    _b, late = unscanned(tmp_path, at_first, delete, write("d/late", b"late"))
    assert late == {b"d/late": b"late"}


def test_a_directory_in_the_way_of_a_file_is_kept_aside(tmp_path: Path) -> None:
    def nothing(_device: Device) -> None:
        return

    def directory(device: Device) -> None:
        device.path("x").mkdir()
        device.path("x/late").write_bytes(b"late")

    _b, late = unscanned(tmp_path, nothing, write("x", b"a's"), directory)
    assert late[b"x"] == b"a's"
    assert b"late" in late.values()


def test_nothing_is_written_through_a_link_that_no_scan_saw(tmp_path: Path) -> None:
    """A directory swapped for a link to somewhere else, between scan and apply."""
    outside = tmp_path / "outside"
    outside.mkdir()

    def at_first(device: Device) -> None:
        device.path("d").mkdir()
        device.path("d/x").write_bytes(b"0")

    def edit(device: Device) -> None:
        device.path("d/x").write_bytes(b"a's")
        device.path("d/new").write_bytes(b"a's")

    async def main() -> None:
        a, b = pair(tmp_path / "devices")
        pool = MemoryPool()
        at_first(a)
        await converge(pool, a, b)
        edit(a)
        await a.commit(pool)
        await b.commit(pool)
        exchange(a, b)
        b.path("d").rename(b.path("was-d"))
        b.path("d").symlink_to(outside)
        applied = await b.apply(pool)
        assert {path for path, _ in applied.problems} == {b"d/x", b"d/new"}
        assert os.listdir(outside) == []
        await converge(pool, a, b)
        assert os.listdir(outside) == []
        assert a.shown() == b.shown()

    asyncio.run(main())


def test_an_edit_with_the_same_size_and_time_is_seen(tmp_path: Path) -> None:
    async def main() -> None:
        a, b = pair(tmp_path)
        pool = MemoryPool()
        a.path("x").write_bytes(b"one")
        await a.commit(pool)
        info = a.path("x").stat()
        a.path("x").write_bytes(b"two")
        os.utime(a.path("x"), ns=(info.st_atime_ns, info.st_mtime_ns))
        await converge(pool, a, b)
        assert b.shown()[b"x"][2] == b"two"

    asyncio.run(main())


# --- the directory itself ------------------------------------------------------------------------
def test_an_unmounted_disk_is_not_everything_deleted(tmp_path: Path) -> None:
    async def main() -> None:
        a, _ = pair(tmp_path)
        pool = MemoryPool()
        a.path("x").write_bytes(b"1")
        await a.commit(pool)
        a.top.rename(tmp_path / "elsewhere")
        with pytest.raises(OperationFault):
            await a.scan()
        a.top.mkdir()
        with pytest.raises(OperationFault, match="mounted"):
            await a.scan()
        a.folder.accept_top()
        assert [row.path for row in (await a.scan()).missing] == [b"x"]

    asyncio.run(main())


def test_another_disk_with_the_same_inode_is_not_everything_deleted(tmp_path: Path) -> None:
    """The tops of two fresh filesystems have the same inode: only the marker tells them apart."""

    async def main() -> None:
        a, _ = pair(tmp_path)
        pool = MemoryPool()
        a.path("x").write_bytes(b"1")
        await a.commit(pool)
        for marker in (None, b"another disk's .."):
            a.path("x").unlink(missing_ok=True)
            a.path(".holdfast~/marker").unlink(missing_ok=True)
            if marker:
                a.path(".holdfast~/marker").write_bytes(marker[:16])
            with pytest.raises(OperationFault, match="mounted"):
                await a.scan()
        a.folder.accept_top()
        assert [row.path for row in (await a.scan()).missing] == [b"x"]
        assert [row.path for row in (await a.scan()).missing] == [b"x"]

    asyncio.run(main())


def test_a_lost_marker_is_made_again_where_all_else_is_there(tmp_path: Path) -> None:
    async def main() -> None:
        a, _ = pair(tmp_path)
        pool = MemoryPool()
        a.path("x").write_bytes(b"1")
        await a.commit(pool)
        marker = a.path(".holdfast~/marker").read_bytes()
        shutil.rmtree(a.path(".holdfast~"))
        await a.commit(pool)
        assert a.path(".holdfast~/marker").read_bytes() == marker
        a.path("x").unlink()
        assert [row.path for row in (await a.scan()).missing] == [b"x"]

    asyncio.run(main())


def test_where_no_marker_can_be_kept_deletions_wait(tmp_path: Path) -> None:
    class ReadOnly(Disk):
        def step(self, _name: str) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    async def main() -> None:
        a, _ = pair(tmp_path)
        pool = MemoryPool()
        a.restart(ReadOnly)
        a.path("x").write_bytes(b"1")
        await a.commit(pool)
        a.path("x").unlink()
        found = await a.scan()
        assert (found.missing, found.busy) == ([], {b"x"})
        a.restart()
        assert [row.path for row in (await a.scan()).missing] == [b"x"]

    asyncio.run(main())


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Folder(tmp_path / "nowhere", tmp_path / "i", b"k" * 32)


def test_a_folder_that_holds_our_own_keys_is_not_shared(tmp_path: Path) -> None:
    (tmp_path / "home" / "state").mkdir(parents=True)
    for index in (tmp_path / "home" / "state" / "i", tmp_path / "home" / "i"):
        with pytest.raises(UsageError, match="keys"):
            Folder(tmp_path / "home", index, b"k" * 32)
    (tmp_path / "home" / "shared").mkdir()
    Folder(tmp_path / "home" / "shared", tmp_path / "home" / "i", b"k" * 32).close()


# --- changes while a file is read ----------------------------------------------------------------
def test_a_small_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [1]

    def pread(fd: int, count: int, offset: int) -> bytes:
        data = os.pread(fd, count, offset)
        if times[0]:
            times[0] -= 1
            (tmp_path / "a" / "x").write_bytes(b"two")
        return data

    async def main() -> None:
        a, b = pair(tmp_path)
        pool = MemoryPool()
        a.path("x").write_bytes(b"one")
        monkeypatch.setattr(read, "os", _Patched(pread=pread))
        await a.commit(pool)
        await converge(pool, a, b)
        assert b.shown()[b"x"][2] == b"two"
        times[0] = 2
        a.path("x").write_bytes(b"three")
        snapshot = await a.commit(pool)
        assert snapshot.skipped == [(b"x", "changed while it was read")]
        await a.apply(pool)
        assert a.shown()[b"x"][2] == b"two", "left alone by apply, too"
        await converge(pool, a, b)

    asyncio.run(main())


def test_a_long_file_that_changes_while_it_is_read_waits_for_the_next_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [1]

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        if times[0] and offset:
            times[0] -= 1
            with open(tmp_path / "a" / "x", "ab") as file:
                file.write(b"more")
        return os.preadv(fd, buffers, offset)

    async def main() -> None:
        a, b = pair(tmp_path)
        pool = MemoryPool()
        a.path("x").write_bytes(os.urandom(5_000_000))
        monkeypatch.setattr(read, "os", _Patched(preadv=preadv))
        snapshot = await a.commit(pool)
        assert snapshot.skipped == [(b"x", "changed while it was read")]
        assert snapshot.busy == {b"x"}
        await converge(pool, a, b)
        assert b.shown()[b"x"][2].endswith(b"more")

    asyncio.run(main())


class _Patched:
    """The `os` module with some calls replaced."""

    def __init__(self, **calls: Any) -> None:
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        return self._calls.get(name) or getattr(os, name)
