"""What goes in on one device comes out on another: every kind of name, file and change."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest
from tests.device.folder_world import Device, MemoryPool, exchange, found_group, pair

from holdfast.limits import CHUNK_BYTES_AVG, CHUNK_BYTES_MAX, MIB
from holdfast.logic.group.folder import File

ODD_NAMES = [
    b"plain",
    b"with space",
    b"new\nline",
    b"\xff\xfe not utf-8 \x80",
    "umlaut-ä".encode(),
    "a\u0308 decomposed".encode(),
    b"-rf",
    b"...",
    b"..a",
    b"~",
    b"CON",
    b"a:b*c?",
    b"\x01\x7f",
    b"n" * 255,
    "ü".encode() * 127,
    b"name (conflict, a, 000000).txt",
    b".holdfast",
]


def both_ways(tmp_path: Path) -> tuple[Device, Device, MemoryPool]:
    return *pair(tmp_path), MemoryPool()


async def send(a: Device, b: Device, pool: MemoryPool) -> None:
    """a's changes reach b, and then nobody has anything left to do."""
    await a.commit(pool)
    exchange(a, b)
    applied = await b.apply(pool)
    assert applied.problems == []
    assert applied.missing == set()
    assert b.shown() == a.shown()
    for device in (a, b):
        again = await device.scan()
        count = len(device.log)
        await device.commit(pool)
        assert len(device.log) == count, f"{device.name} saw changes: {again.seen}"
        assert device.folder.plan(device.state).is_empty
        assert os.listdir(device.path(".holdfast~")) == ["marker"]


def test_odd_names_arrive_unharmed(tmp_path: Path) -> None:
    async def main() -> None:
        a, b, pool = both_ways(tmp_path)
        for name in ODD_NAMES:
            a.path(name).write_bytes(name)
            a.path(b"d-" + name[:250]).mkdir()
            a.path(b"d-" + name[:250] + b"/" + name).write_bytes(b"below")
        await send(a, b, pool)
        assert len(b.shown()) == 3 * len(ODD_NAMES)

    asyncio.run(main())


def test_a_path_deeper_than_the_kernel_takes_in_one_call(tmp_path: Path) -> None:
    async def main() -> None:
        a, b, pool = both_ways(tmp_path)
        fd = os.open(a.top, os.O_RDONLY)
        for _ in range(19):
            os.mkdir(b"d" * 200, dir_fd=fd)
            below = os.open(b"d" * 200, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        file = os.open(b"deep", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd)
        os.write(file, b"down here")
        os.close(file)
        os.close(fd)
        await send(a, b, pool)
        assert (b"/".join([b"d" * 200] * 19) + b"/deep") in b.shown()

    asyncio.run(main())


SIZES = [
    0,
    1,
    63,
    65,
    4096,
    CHUNK_BYTES_AVG - 1,
    CHUNK_BYTES_AVG,
    CHUNK_BYTES_AVG + 1,
    CHUNK_BYTES_MAX,
    CHUNK_BYTES_MAX + 1,
    MIB,
    5 * MIB + 17,
    14 * MIB,
]


@pytest.mark.parametrize("kind", ["random", "text", "zeros"])
def test_every_size_from_nothing_to_a_recipe(tmp_path: Path, kind: str) -> None:
    async def main() -> None:
        a, b, pool = both_ways(tmp_path)
        source = random.Random(7)
        for size in SIZES:
            content = {
                "random": lambda size=size: source.randbytes(size),
                "text": lambda size=size: (b"%d lines of text\n" % size * (size // 8 + 1))[:size],
                "zeros": lambda size=size: bytes(size),
            }[kind]()
            a.path(f"{size:09}").write_bytes(content)
        await send(a, b, pool)
        entries = [n.version.entry for n in a.state.tree().values() if n.version]
        longest = max((e for e in entries if isinstance(e, File)), key=lambda e: e.size)
        assert (longest.recipe is not None) == (kind == "random"), "zeros repeat few chunks"

    asyncio.run(main())


def test_modes_links_and_empty_directories(tmp_path: Path) -> None:
    """DESIGN §6; seed 004 builds on folders of real programs: exec bits and links matter."""

    async def main() -> None:
        a, b, pool = both_ways(tmp_path)
        for mode in (0o644, 0o755, 0o600, 0o444, 0o777, 0o711):
            a.path(f"m{mode:o}").write_bytes(b"x")
            a.path(f"m{mode:o}").chmod(mode)
            a.path(f"d{mode:o}").mkdir()
            a.path(f"d{mode:o}/inside").write_bytes(b"y")
            a.path(f"d{mode:o}").chmod(mode | 0o500)
        a.path("empty").mkdir()
        a.path("deep/er/empty").mkdir(parents=True)
        a.path("dangling").symlink_to("nowhere")
        a.path("outside").symlink_to("/etc/passwd")
        a.path("up").symlink_to("../../..")
        a.path("to-a-directory").symlink_to("empty")
        os.symlink(b"\xff\n", os.fsencode(a.top) + b"/odd-target")
        await send(a, b, pool)
        got = b.shown()
        assert got[b"outside"] == ("link", 0, b"/etc/passwd")
        assert got[b"m755"][1] == 0o755
        assert got[b"deep/er/empty"][0] == "directory"

    asyncio.run(main())


def test_hard_links_become_files_and_cost_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        a, b, pool = both_ways(tmp_path)
        a.path("one").write_bytes(random.Random(1).randbytes(100_000))
        a.path("two").hardlink_to(a.path("one"))
        await send(a, b, pool)
        assert pool.payload_bytes < 101_000
        b.path("one").write_bytes(b"changed")
        assert len(b.path("two").read_bytes()) == 100_000

    asyncio.run(main())


def test_times_of_files_travel(tmp_path: Path) -> None:
    async def main() -> None:
        a, b, pool = both_ways(tmp_path)
        a.path("x").write_bytes(b"1")
        os.utime(a.path("x"), ns=(1, 1_234_567_890_123_456_789))
        await send(a, b, pool)
        assert b.path("x").stat().st_mtime_ns == 1_234_567_890_123_456_789

    asyncio.run(main())


def test_the_same_content_many_times_is_sent_once(tmp_path: Path) -> None:
    async def main() -> None:
        a, b, pool = both_ways(tmp_path)
        content = random.Random(2).randbytes(200_000)
        for i in range(300):
            a.path(f"copy{i}").write_bytes(content)
        await send(a, b, pool)
        assert pool.payload_bytes < 210_000
        b.path("another").write_bytes(content)
        await send(b, a, pool)
        assert pool.payload_bytes < 210_000, "b verified that chunk: it need not send it again"

    asyncio.run(main())


def test_special_files_are_named_and_left_out(tmp_path: Path) -> None:
    async def main() -> None:
        a, b, pool = both_ways(tmp_path)
        os.mkfifo(a.path("pipe"))
        a.path("file").write_bytes(b"1")
        found = await a.scan()
        assert [path for path, _ in found.skipped] == [b"pipe"]
        await send_ignoring_pipe(a, b, pool)
        assert list(b.shown()) == [b"file"]

    async def send_ignoring_pipe(a: Device, b: Device, pool: MemoryPool) -> None:
        await a.commit(pool)
        exchange(a, b)
        assert (await b.apply(pool)).problems == []

    asyncio.run(main())


# --- changes -------------------------------------------------------------------------------------
def test_edit_rename_delete_and_chmod(tmp_path: Path) -> None:
    async def main() -> None:
        a, b, pool = both_ways(tmp_path)
        for name in ("edit", "rename", "delete", "chmod"):
            a.path(name).write_bytes(name.encode() * 1000)
        a.path("dir/sub").mkdir(parents=True)
        a.path("dir/sub/x").write_bytes(b"x")
        await send(a, b, pool)
        sent = pool.payload_bytes

        b.path("edit").write_bytes(b"edited")
        b.path("rename").rename(b.path("renamed"))
        b.path("delete").unlink()
        b.path("chmod").chmod(0o755)
        b.path("dir").rename(b.path("moved"))
        await send(b, a, pool)
        assert sorted(a.shown()) == [
            b"chmod",
            b"edit",
            b"moved",
            b"moved/sub",
            b"moved/sub/x",
            b"renamed",
        ]
        assert pool.payload_bytes < sent + 200, "only the edit is new"

    asyncio.run(main())


def test_a_rename_moves_the_file_on_the_other_side(tmp_path: Path) -> None:
    """No pack is fetched, and not even the inode changes."""

    async def main() -> None:
        a, b, pool = both_ways(tmp_path)
        a.path("small").write_bytes(b"s" * 1000)
        a.path("big").write_bytes(random.Random(3).randbytes(12 * MIB))
        await send(a, b, pool)
        inode = b.path("big").stat().st_ino
        pool.gets.clear()
        for name in ("small", "big"):
            a.path(name).rename(a.path(f"new-{name}"))
        await send(a, b, pool)
        assert pool.gets == []
        assert b.path("new-big").stat().st_ino == inode
        assert b.path("new-big").stat().st_nlink == 1

    asyncio.run(main())


def test_two_files_swap_their_names(tmp_path: Path) -> None:
    async def main() -> None:
        a, b, pool = both_ways(tmp_path)
        source = random.Random(4)
        for name, size in (("s1", 500), ("s2", 600), ("l1", 3 * MIB), ("l2", 4 * MIB)):
            a.path(name).write_bytes(source.randbytes(size))
        await send(a, b, pool)
        for one, other in (("s1", "s2"), ("l1", "l2")):
            a.path(one).rename(a.path("t"))
            a.path(other).rename(a.path(one))
            a.path("t").rename(a.path(other))
        pool.gets.clear()
        await send(a, b, pool)
        assert pool.gets == []

    asyncio.run(main())


def test_an_insertion_into_a_big_file_moves_little(tmp_path: Path) -> None:
    async def main() -> None:
        a, b, pool = both_ways(tmp_path)
        content = random.Random(5).randbytes(16 * MIB)
        a.path("big").write_bytes(content)
        await send(a, b, pool)
        sent, pool.gets = pool.payload_bytes, []
        a.path("big").write_bytes(content[: 7 * MIB] + b"inserted" + content[7 * MIB :])
        await send(a, b, pool)
        assert pool.payload_bytes - sent < 2 * CHUNK_BYTES_MAX
        assert len(pool.gets) <= 3, "the rest was on the disk already"

    asyncio.run(main())


def test_kinds_change_into_each_other(tmp_path: Path) -> None:
    async def main() -> None:
        a, b, pool = both_ways(tmp_path)
        a.path("f2d").write_bytes(b"file")
        a.path("d2f/x").mkdir(parents=True)
        a.path("d2f/x/y").write_bytes(b"1")
        a.path("l2f").symlink_to("away")
        a.path("f2l").write_bytes(b"file")
        a.path("d2l/x").mkdir(parents=True)
        await send(a, b, pool)
        a.path("f2d").unlink()
        a.path("f2d").mkdir()
        a.path("f2d/inside").write_bytes(b"2")
        a.path("d2f/x/y").unlink()
        a.path("d2f/x").rmdir()
        a.path("d2f").rmdir()
        a.path("d2f").write_bytes(b"now a file")
        a.path("l2f").unlink()
        a.path("l2f").write_bytes(b"now a file")
        a.path("f2l").unlink()
        a.path("f2l").symlink_to("d2f")
        a.path("d2l/x").rmdir()
        a.path("d2l").rmdir()
        a.path("d2l").symlink_to(".")
        await send(a, b, pool)

    asyncio.run(main())


def test_a_folder_that_was_on_both_sides_costs_no_transfer(tmp_path: Path) -> None:
    async def main() -> None:
        a, b, pool = both_ways(tmp_path)
        source = random.Random(6)
        for size in (0, 10, 300_000, 12 * MIB):
            content = source.randbytes(size)
            for device in (a, b):
                device.path(f"f{size}").write_bytes(content)
        a.path("d").mkdir()
        b.path("d").mkdir()
        await a.commit(pool)
        exchange(a, b)
        puts = pool.puts
        await b.commit(pool)
        assert pool.puts == puts
        applied = await b.apply(pool)
        assert applied.files == 0
        assert pool.gets == []
        await send(b, a, pool)
        assert len(a.shown()) == 5, "and no conflict"

    asyncio.run(main())


def test_a_third_device_restores_everything_from_the_log_alone(tmp_path: Path) -> None:
    async def main() -> None:
        a, b, c = (Device(tmp_path, name) for name in "abc")
        found_group(a, b, c)
        pool = MemoryPool()
        for i in range(50):
            a.path(f"f{i}").write_bytes(b"%d" % i)
        await a.commit(pool)
        exchange(a, b, c)
        await b.apply(pool)
        for i in range(0, 50, 2):
            b.path(f"f{i}").unlink()
        await b.commit(pool)
        exchange(a, b, c)
        await a.apply(pool)
        await c.apply(pool)
        assert a.shown() == b.shown() == c.shown()
        assert len(c.shown()) == 25

    asyncio.run(main())
