"""Size: memory stays bounded whatever the file, and fifty thousand files are no special case."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from tests.device.folder_world import BULK, Device, MemoryPool, exchange, found_group

from holdfast.crypto.blob import unseal
from holdfast.limits import GIB, MIB

EXTRA_BYTES_MAX = 100 * MIB


class DiskPool(MemoryPool):
    """As the one in memory, without the memory."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        directory.mkdir()

    async def put_bulk(self, payload: bytes) -> bytes:
        blob, name = await asyncio.to_thread(self._seal, payload)
        (self._directory / name.hex()).write_bytes(blob)
        self.puts += 1
        self.payload_bytes += len(payload)
        return name

    async def get_bulk(self, blobs: Sequence[bytes]) -> AsyncIterator[tuple[bytes, bytes]]:
        for name in blobs:
            blob = (self._directory / name.hex()).read_bytes()
            opened = await asyncio.to_thread(unseal, self.era, BULK, blob)
            self.gets.append(name)
            yield name, opened.payload


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def watched() -> Iterator[list[int]]:
    """Peak of resident memory beyond what it was, in the one element of the list."""
    start, peak, over = resident_bytes(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            peak[0] = max(peak[0], resident_bytes() - start)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


async def there_and_edited(tmp_path: Path, name: str, edit_at: int) -> tuple[int, MemoryPool]:
    """Peak memory of sending the file at a's `name`, then of sending an edit of it."""
    a, b = Device(tmp_path, "a"), Device(tmp_path, "b")
    found_group(a, b)
    pool = DiskPool(tmp_path / "pool")
    with watched() as peak:
        await a.commit(pool)
        exchange(a, b)
        applied = await b.apply(pool)
        assert applied.problems == []
        same(a.path(name), b.path(name))
        sent, fetched = pool.puts, len(pool.gets)
        edit(a.path(name), edit_at)
        await a.commit(pool)
        exchange(a, b)
        assert (await b.apply(pool)).problems == []
        same(a.path(name), b.path(name))
        assert pool.puts - sent < 8, "an edit moves chunks, not files"
        assert len(pool.gets) - fetched < 8
    return peak[0], pool


def edit(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"edited")


def same(one: Path, other: Path) -> None:
    with one.open("rb") as left, other.open("rb") as right:
        assert os.fstat(left.fileno()).st_size == os.fstat(right.fileno()).st_size
        while content := left.read(16 * MIB):
            assert right.read(16 * MIB) == content


@pytest.mark.system
@pytest.mark.parametrize(
    "size_gib", [1, pytest.param(10, marks=pytest.mark.campaign)], ids=lambda gib: f"{gib}GiB"
)
def test_a_sparse_file(tmp_path: Path, size_gib: int) -> None:
    (tmp_path / "a").mkdir()
    with open(tmp_path / "a" / "sparse", "wb") as file:
        file.truncate(size_gib * GIB)
        file.seek(size_gib * GIB // 2)
        file.write(b"in the middle")
    peak, pool = asyncio.run(there_and_edited(tmp_path, "sparse", size_gib * GIB * 7 // 10))
    print(f"{size_gib} GiB sparse: {peak / MIB:.0f} MiB of memory, {pool.payload_bytes} bytes sent")
    assert peak < EXTRA_BYTES_MAX
    assert pool.payload_bytes < 4 * MIB
    assert (tmp_path / "b" / "sparse").stat().st_blocks * 512 < 64 * MIB, "still sparse"


@pytest.mark.system
@pytest.mark.parametrize("size_mib", [160, pytest.param(512, marks=pytest.mark.campaign)])
def test_a_random_file(tmp_path: Path, size_mib: int) -> None:
    source = random.Random(5)
    (tmp_path / "a").mkdir()
    with open(tmp_path / "a" / "random", "wb") as file:
        for _ in range(size_mib // 16):
            file.write(source.randbytes(16 * MIB))
    peak, pool = asyncio.run(there_and_edited(tmp_path, "random", size_mib * MIB // 2))
    print(f"{size_mib} MiB random: {peak / MIB:.0f} MiB of memory, {pool.puts} packs")
    assert peak < EXTRA_BYTES_MAX
    assert pool.puts < size_mib * 1.06 + 8, "packs are filled"


@pytest.mark.system
@pytest.mark.parametrize("count", [5_000, pytest.param(50_000, marks=pytest.mark.campaign)])
def test_many_small_files(tmp_path: Path, count: int) -> None:
    """DESIGN §6: 50,000 files; one signature per changeset, one sync."""
    a, b = Device(tmp_path, "a"), Device(tmp_path, "b")
    found_group(a, b)
    source = random.Random(9)
    line = b"%d def function(argument): return argument\n"
    for number in range(count):
        directory = a.top / f"package{number // 100}"
        directory.mkdir(exist_ok=True)
        (directory / f"module{number}.py").write_bytes(line % number * source.randint(1, 200))

    async def main() -> None:
        pool = MemoryPool()
        marks = [("start", time.perf_counter())]

        def mark(name: str) -> None:
            marks.append((name, time.perf_counter()))

        await a.commit(pool)
        mark("snapshot")
        exchange(a, b)
        mark("exchange and fold")
        applied = await b.apply(pool)
        mark("restore")
        found = await b.scan()
        mark("scan with nothing changed")
        assert applied.files == count
        assert (found.seen, found.missing) == ([], [])
        assert len(a.log) < 20
        text = ", ".join(
            f"{name} {end - start:.1f} s" for (_, start), (name, end) in pairwise(marks)
        )
        print(f"{count} files, {applied.content_bytes / 1e6:.0f} MB: {text}")

    asyncio.run(main())
    assert a.shown() == b.shown()
