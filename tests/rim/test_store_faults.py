"""A store on a disk that breaks its word: full, read-only, failing to sync (A9, A11).

92 % of catastrophic failures are a wrong answer to an error that was signalled; these are ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rim.store_kit import (
    DAY,
    SLOT,
    TAG,
    blob,
    open_store,
    put,
    random_blob,
    run,
    segment_files,
)

from holdfast.errors import OperationFault, PeerFault
from holdfast.rim.store import DiskStore, FaultyFiles, StorePolicy, WriteRefused
from holdfast.rim.store.record import HEADER_BYTES
from holdfast.wire.pool import BlobClass


def test_a_failed_sync_stops_writing_for_good_and_is_never_repeated(tmp_path: Path) -> None:
    """A second fsync may say yes without having written anything; only a restart helps."""
    files = FaultyFiles()

    async def work(store: DiskStore) -> None:
        await put(store, [blob("a")])
        files.sync_error = errno.EIO
        with pytest.raises(WriteRefused) as refused:
            await put(store, [blob("b")])
        assert refused.value.code == "read-only"
        assert not refused.value.retryable
        tried = files.syncs
        files.sync_error = 0
        with pytest.raises(WriteRefused):
            await put(store, [blob("c")])
        with pytest.raises(WriteRefused):
            await put(store, [random_blob(600)], blob_class=BlobClass.CANARY)
        assert files.syncs == tried
        assert store.read(SLOT, TAG, [blob("a").blob, blob("b").blob]).keys() == {blob("a").blob}
        assert "fdatasync" in store.figures().trouble

    run(tmp_path, work, files=files)

    async def again(store: DiskStore) -> None:
        assert store.figures().trouble == ""
        reply = await put(store, [blob("b")])
        assert reply.receipts[0].sequence == 2
        assert len(store.read(SLOT, TAG, [blob("a").blob, blob("b").blob])) == 2

    run(tmp_path, again)


def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    """reliability.md A11: 0 acknowledged loss, reads go on, writes come back with the room."""
    files = FaultyFiles()

    async def work(store: DiskStore) -> None:
        await put(store, [blob("a")])
        files.room_bytes = 150
        for n in range(3):
            with pytest.raises(WriteRefused) as refused:
                await put(store, [blob(f"x{n}")])
            assert refused.value.code == "full"
            assert refused.value.retryable
            files.room_bytes = 150
        (file,) = segment_files(tmp_path)
        assert file.stat().st_size == HEADER_BYTES + 200, "the partial write was taken back"
        assert store.read(SLOT, TAG, [blob("a").blob])
        assert store.figures().trouble
        files.room_bytes = None
        reply = await put(store, [blob("b")])
        assert reply.receipts[0].sequence == 2
        assert store.figures().trouble == ""

    run(tmp_path, work, files=files)

    async def check(store: DiskStore) -> None:
        assert store.figures().blobs == 2

    run(tmp_path, check)


def test_a_blob_that_cannot_be_read_now_is_not_forgotten(tmp_path: Path) -> None:
    """A transient error says nothing about what is on the disk: reading it later must work."""
    files = FaultyFiles()
    name = blob("a").blob

    async def work(store: DiskStore) -> None:
        await put(store, [blob("a")])
        files.read_error = errno.EIO
        assert store.read(SLOT, TAG, [name]) == {}
        assert store.figures().trouble
        files.read_error = 0
        await put(store, [blob("b")])  # whatever the reader queued is done before this
        assert store.read(SLOT, TAG, [name]).keys() == {name}
        assert (store.figures().trouble, store.figures().rotten) == ("", 0)

    run(tmp_path, work, files=files)


def test_a_second_look_decides_whether_a_blob_is_forgotten(tmp_path: Path) -> None:
    """Bytes that came back wrong once, and right when the writer looks, are kept."""

    class Flaky(FaultyFiles):
        wrong = 0

        def read(self, fd: int, offset: int, size: int) -> bytes:
            body = super().read(fd, offset, size)
            self.wrong -= 1
            return bytes(size) if self.wrong == 0 else body

    files = Flaky()
    name = blob("a").blob

    async def work(store: DiskStore) -> None:
        await put(store, [blob("a")])
        files.wrong = 1
        assert store.read(SLOT, TAG, [name]) == {}
        await put(store, [blob("b")])
        assert store.read(SLOT, TAG, [name]).keys() == {name}
        assert store.figures().rotten == 0

    run(tmp_path, work, files=files)


def test_the_reserve_is_kept_free(tmp_path: Path) -> None:
    """The index must be able to grow after the last blob."""
    files = FaultyFiles()

    async def work(store: DiskStore) -> None:
        files.room_bytes = 9_999
        with pytest.raises(WriteRefused) as refused:
            await put(store, [blob("a")])
        assert refused.value.code == "full"
        files.room_bytes = 20_000
        await put(store, [blob("a")])

    run(tmp_path, work, StorePolicy(reserve_bytes=10_000), files)


def test_a_disk_with_plenty_of_room_is_asked_for_it_seldom(tmp_path: Path) -> None:
    class Counting(FaultyFiles):
        asked = 0

        def free_bytes(self, path: Path) -> int:
            self.asked += 1
            return super().free_bytes(path)

    files = Counting()

    async def work(store: DiskStore) -> None:
        await put(store, [blob("first")])
        before = files.asked
        for n in range(200):
            await put(store, [blob(f"a{n}")])
        assert files.asked - before < 100

    run(tmp_path, work, files=files)


@pytest.mark.parametrize("error", [errno.EIO, errno.EROFS])
def test_a_failing_write_makes_the_store_read_only(tmp_path: Path, error: int) -> None:
    files = FaultyFiles()

    async def work(store: DiskStore) -> None:
        await put(store, [blob("a")])
        files.append_error = error
        with pytest.raises(WriteRefused) as refused:
            await put(store, [blob("b")])
        assert refused.value.code == "read-only"
        assert store.read(SLOT, TAG, [blob("a").blob])

    run(tmp_path, work, files=files)


@pytest.mark.parametrize(
    ("error", "code"), [(errno.EMFILE, "busy"), (errno.ENFILE, "busy"), (errno.EIO, "read-only")]
)
def test_a_segment_that_does_not_open_leaves_the_writer_alive(
    tmp_path: Path, error: int, code: str
) -> None:
    """Descriptors come back; until then pushes are refused, and every one is answered."""
    files = FaultyFiles()

    async def work(store: DiskStore) -> None:
        await put(store, [blob("a"), blob("b", born=DAY + 1)])
        files.open_error = error
        store._segments.close()  # as when the oldest open ones have made room
        for _ in range(2):
            with pytest.raises(WriteRefused) as refused:
                await asyncio.wait_for(put(store, [blob("c")]), 20)
            assert refused.value.code == code
        files.open_error = 0
        if code == "busy":
            assert (await put(store, [blob("c")])).receipts[0].sequence == 3

    run(tmp_path, work, files=files)


def test_a_cancelled_push_counts_as_queued_until_the_writer_is_through(tmp_path: Path) -> None:
    """Its bytes are held in memory for as long."""

    async def work(store: DiskStore) -> None:
        gate = threading.Event()
        blocked = asyncio.create_task(store._perform(gate.wait))
        push = asyncio.create_task(put(store, [blob("a")]))
        await asyncio.sleep(0)
        push.cancel()
        await asyncio.gather(push, return_exceptions=True)
        held = store._queued_bytes
        gate.set()
        await blocked
        assert (push.cancelled(), held) == (True, 200)
        await put(store, [blob("b")])
        assert store._queued_bytes == 0
        assert store.figures().blobs == 2

    run(tmp_path, work)


def test_a_push_that_is_refused_replaces_nothing(tmp_path: Path) -> None:
    """A rotten blob pushed again in a request for which there is no room is not counted out with
    the request's neighbours."""

    async def work(store: DiskStore) -> None:
        await put(store, [blob("a"), blob("b")])
        (file,) = segment_files(tmp_path)
        data = bytearray(file.read_bytes())
        data[HEADER_BYTES + 60] ^= 0x40
        file.write_bytes(data)
        full = put(store, [blob("a"), random_blob(900)])
        fits = put(store, [blob("c")], tag=b"u" * 32)
        refused, stored = await asyncio.gather(full, fits, return_exceptions=True)
        assert isinstance(refused, PeerFault)
        assert not isinstance(stored, BaseException)
        assert (store.figures().blobs, store.figures().rotten) == (3, 0)
        assert store.used_bytes(SLOT, TAG) == 400

    run(tmp_path, work, StorePolicy(reserve_bytes=0, group_bytes_max=1_000))


@pytest.mark.parametrize("nth", range(1, 9))
@pytest.mark.parametrize("fault", ["append", "sync"])
def test_the_nth_error_loses_nothing_acknowledged(tmp_path: Path, fault: str, nth: int) -> None:
    """reliability.md A9: the n-th I/O fails once; everything that was acknowledged is there after
    a restart, whole and once."""

    class Nth(FaultyFiles):
        def __init__(self) -> None:
            super().__init__()
            self.left = nth

        def _due(self) -> None:
            self.left -= 1
            if self.left == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        def append(self, fd: int, parts: object) -> None:
            if fault == "append":
                self._due()
            super().append(fd, parts)  # type: ignore[arg-type]

        def sync(self, fd: int) -> None:
            if fault == "sync":
                self._due()
            super().sync(fd)

    acknowledged: list[bytes] = []

    async def work(store: DiskStore) -> None:
        for n in range(8):
            item = blob(f"b{n}", born=20_000 + n % 2)
            try:
                await put(store, [item])
            except WriteRefused:
                continue
            acknowledged.append(item.blob)

    run(tmp_path, work, files=Nth())
    assert len(acknowledged) == nth - 1

    async def check(store: DiskStore) -> None:
        assert store.read(SLOT, TAG, acknowledged).keys() == set(acknowledged)
        sequences = [entry.sequence for entry in store.after(SLOT, TAG, 0, 100, None)]
        assert sequences == sorted(set(sequences))

    run(tmp_path, check)


def test_a_store_that_cannot_open_says_so(tmp_path: Path) -> None:
    (tmp_path / "index.sqlite").mkdir()
    with pytest.raises(OperationFault):
        run(tmp_path, _nothing)


async def _nothing(store: DiskStore) -> None:
    return None


# --- A real full disk ----------------------------------------------------------------------------
@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 2 MiB: a real ENOSPC, for blobs and index alike. Without the right to mount,
    `test_a_full_disk_refuses_and_recovers` stands in with a faulty disk."""
    place = tmp_path / "tiny"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        yield Path()
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_really_full(tiny_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """reliability.md A11 on a real tmpfs, the index on the same disk. Not a byte is left when the
    store is opened again: its ballast lets it."""
    monkeypatch.setattr("holdfast.rim.store.disk.BALLAST_BYTES", 200_000)
    if tiny_disk == Path():
        return
    acknowledged: list[bytes] = []

    async def fill(store: DiskStore) -> None:
        codes: list[str] = []
        while len(codes) < 20:
            item = random_blob(8_000)
            try:
                await put(store, [item])
                acknowledged.append(item.blob)
            except WriteRefused as refusal:
                codes.append(refusal.code)
        assert set(codes) == {"full"}
        assert store.read(SLOT, TAG, acknowledged).keys() == set(acknowledged)

    async def main() -> None:
        ballast = tiny_disk / "ballast"
        ballast.write_bytes(b"x" * 1_000_000)
        store = await open_store(tiny_disk / "store")
        await fill(store)
        before = len(acknowledged)
        ballast.unlink()
        await put(store, [item := random_blob(8_000)])
        acknowledged.append(item.blob)
        await fill(store)
        assert len(acknowledged) > before + 20
        await store.close()
        with contextlib.suppress(OSError):
            (tiny_disk / "more").write_bytes(b"x" * 2_000_000)
        for _ in range(2):
            store = await open_store(tiny_disk / "store")
            assert store.read(SLOT, TAG, acknowledged).keys() == set(acknowledged)
            await store.close()

    asyncio.run(main())


def test_a_ballast_that_was_used_up_is_held_again(tmp_path: Path) -> None:
    """An opening on a full disk gave it up; the next one may need it as well."""

    async def main() -> None:
        store = await open_store(tmp_path / "store")
        (tmp_path / "store" / "ballast").unlink()
        await put(store, [random_blob(1_000)])
        assert (tmp_path / "store" / "ballast").exists()
        await store.close()

    asyncio.run(main())
