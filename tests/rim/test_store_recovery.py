"""What a crash, a torn write, a lost index or a rotten disk leaves of a store (D14, STYLE 1.1)."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rim.store_kit import (
    DAY,
    SLOT,
    TAG,
    blob,
    delete_index,
    open_store,
    picture,
    put,
    random_blob,
    run,
    segment_files,
)

from holdfast.rim.store import DiskStore
from holdfast.rim.store import recovery as recovery_module
from holdfast.rim.store.record import (
    HEADER_BYTES,
    Record,
    pack_record,
    scan,
    unpack_record,
)


async def _fill(store: DiskStore) -> object:
    for n in range(20):
        tag, slot = bytes((n % 3,)) * 32, bytes((n % 2,)) * 16
        await put(store, [random_blob(300 + n, DAY - n % 4) for _ in range(3)], tag=tag, slot=slot)
    return picture(store)


# --- Restart, rebuild ----------------------------------------------------------------------------
def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    before = run(tmp_path, _fill)

    async def check(store: DiskStore) -> None:
        assert picture(store) == before

    run(tmp_path, check)


def test_a_deleted_index_is_rebuilt_equal(tmp_path: Path) -> None:
    """DESIGN §6: the index is rebuildable from the segments; proved by deleting it."""
    before = run(tmp_path, _fill)
    delete_index(tmp_path)

    async def check(store: DiskStore) -> None:
        assert picture(store) == before
        reply = await put(store, [blob("next")], tag=b"\x00" * 32, slot=b"\x00" * 16)
        assert reply.receipts[0].sequence == store.head(b"\x00" * 16, b"\x00" * 32)

    run(tmp_path, check)


@pytest.mark.parametrize("garbage", [b"", b"not a database" * 500, b"SQLite format 3\x00" * 100])
def test_a_broken_index_is_rebuilt_equal(tmp_path: Path, garbage: bytes) -> None:
    before = run(tmp_path, _fill)
    delete_index(tmp_path)
    (tmp_path / "index.sqlite").write_bytes(garbage)

    async def check(store: DiskStore) -> None:
        assert picture(store) == before

    run(tmp_path, check)


def test_an_older_index_catches_up(tmp_path: Path) -> None:
    """A crash between the sync and the index, or an index put back from a copy."""
    run(tmp_path, _fill)
    kept = tmp_path.parent / f"{tmp_path.name}-index"
    shutil.copy(tmp_path / "index.sqlite", kept)
    after = run(tmp_path, _fill)
    delete_index(tmp_path)
    shutil.copy(kept, tmp_path / "index.sqlite")

    async def check(store: DiskStore) -> None:
        assert picture(store) == after

    run(tmp_path, check)


def test_after_a_crash_of_the_machine_the_index_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """synchronous=OFF is allowed because another boot rebuilds."""

    async def crash() -> object:
        store = await open_store(tmp_path)
        before = await _fill(store)
        await asyncio.to_thread(store._writer.stop)  # no clean mark
        store._index.close(clean=False)
        return before

    before = asyncio.run(crash())
    rebuilt: list[Path] = []
    original = recovery_module.Index

    def watched(path: Path) -> object:
        if not path.exists():
            rebuilt.append(path)
        return original(path)

    monkeypatch.setattr(recovery_module, "Index", watched)

    async def check(store: DiskStore) -> None:
        assert picture(store) == before

    run(tmp_path, check)
    assert rebuilt == [], "the same boot: the page cache has everything"
    asyncio.run(crash())
    monkeypatch.setattr(recovery_module, "boot_id", lambda: "another boot")
    run(tmp_path, _nothing)
    assert rebuilt == [tmp_path / "index.sqlite"]


async def _nothing(store: DiskStore) -> None:
    return None


# --- Torn tails ----------------------------------------------------------------------------------
def test_a_torn_tail_is_cut_at_every_byte_of_the_last_record(tmp_path: Path) -> None:
    """Whatever part of the last record reached the disk, what came before is whole, the file ends
    at its end, and the store goes on."""
    base = tmp_path / "base"

    async def fill(store: DiskStore) -> None:
        for n in range(3):
            await put(store, [blob(f"b{n}", 150)])

    run(base, fill)
    (file,) = segment_files(base)
    whole = file.read_bytes()
    record = HEADER_BYTES + 150
    assert len(whole) == 3 * record
    for cut in range(record):
        here = tmp_path / f"cut{cut}"
        (here / "segments").mkdir(parents=True)
        (here / "incarnation").write_bytes((base / "incarnation").read_bytes())
        torn = here / "segments" / file.name
        torn.write_bytes(whole[: 2 * record + cut])

        async def check(store: DiskStore) -> None:
            assert store.figures().blobs == 2
            assert store.head(SLOT, TAG) == 2
            reply = await put(store, [blob("b2", 150)])
            assert (reply.receipts[0].sequence, reply.receipts[0].duplicate) == (3, False)
            assert len(store.read(SLOT, TAG, [blob(f"b{n}", 150).blob for n in range(3)])) == 3

        run(here, check)
        assert torn.stat().st_size == 3 * record
        shutil.rmtree(here)


def test_a_tail_that_no_index_covers_mints_a_new_incarnation(tmp_path: Path) -> None:
    """Without an index nobody can say whether the torn bytes were acknowledged: no client may
    resume from a cursor that now could point at something else (D14)."""
    before = run(tmp_path, _incarnation_of_two)
    (file,) = segment_files(tmp_path)
    file.write_bytes(file.read_bytes()[:-7])
    delete_index(tmp_path)
    after = run(tmp_path, _incarnation)
    assert after != before


def test_a_torn_tail_past_the_index_keeps_the_incarnation(tmp_path: Path) -> None:
    """What the index does not cover was never acknowledged."""
    before = run(tmp_path, _incarnation_of_two)
    (file,) = segment_files(tmp_path)
    with file.open("ab") as tail:
        tail.write(file.read_bytes()[: HEADER_BYTES + 20])
    size = file.stat().st_size
    after = run(tmp_path, _incarnation)
    assert after == before
    assert file.stat().st_size == size - HEADER_BYTES - 20


async def _incarnation_of_two(store: DiskStore) -> bytes:
    await put(store, [blob("a")])
    await put(store, [blob("b")])
    return store.incarnation


async def _incarnation(store: DiskStore) -> bytes:
    return store.incarnation


def test_a_whole_record_past_the_index_is_adopted(tmp_path: Path) -> None:
    """Synced but not indexed when the process died: kept, whether or not it was acknowledged."""
    run(tmp_path, _incarnation_of_two)
    (file,) = segment_files(tmp_path)
    extra = blob("c")
    header = Record(1, len(extra.body), DAY, 1_700_000_000, 3, SLOT, TAG, extra.blob)
    with file.open("ab") as tail:
        tail.write(pack_record(header) + bytes(extra.body))

    async def check(store: DiskStore) -> None:
        assert store.head(SLOT, TAG) == 3
        assert store.read(SLOT, TAG, [extra.blob])

    run(tmp_path, check)


def test_a_segment_that_shrank_mints_a_new_incarnation(tmp_path: Path) -> None:
    before = run(tmp_path, _incarnation_of_two)
    (file,) = segment_files(tmp_path)
    file.write_bytes(file.read_bytes()[: HEADER_BYTES + 200])

    async def check(store: DiskStore) -> None:
        assert store.incarnation != before
        assert store.figures().blobs == 1
        assert store.read(SLOT, TAG, [blob("a").blob])

    run(tmp_path, check)


@pytest.mark.parametrize("rebuilt", [False, True])
def test_a_segment_that_is_gone_mints_a_new_incarnation(tmp_path: Path, rebuilt: bool) -> None:
    """Its sequences must not be given out again under the incarnation that acknowledged them."""
    before = run(tmp_path, _incarnation_of_two_days)
    segment_files(tmp_path)[-1].unlink()
    if rebuilt:
        delete_index(tmp_path)
    after = run(tmp_path, _incarnation)
    assert after != before
    assert run(tmp_path, _incarnation) == after, "once is enough"

    async def check(store: DiskStore) -> None:
        assert store.read(SLOT, TAG, [blob("a").blob])
        assert rebuilt or store.head(SLOT, TAG) == 2

    run(tmp_path, check)


async def _incarnation_of_two_days(store: DiskStore) -> bytes:
    await put(store, [blob("a")])
    await put(store, [blob("b", born=DAY + 1)])
    return store.incarnation


@pytest.mark.parametrize("rebuilt", [False, True])
def test_a_dropped_day_casts_no_doubt(tmp_path: Path, rebuilt: bool) -> None:
    """Retention has noted the heads, and has taken the day's files off the manifest."""

    async def drop(store: DiskStore) -> bytes:
        await _incarnation_of_two_days(store)
        await store.drop_day(DAY + 1)
        return store.incarnation

    before = run(tmp_path, drop)
    if rebuilt:
        delete_index(tmp_path)
    assert run(tmp_path, _incarnation) == before

    async def check(store: DiskStore) -> None:
        assert store.head(SLOT, TAG) == 2

    run(tmp_path, check)


@pytest.mark.parametrize("manifest", [None, b"damaged"])
def test_a_manifest_that_is_not_there_is_made_anew(tmp_path: Path, manifest: bytes | None) -> None:
    """Without one nothing is known to be missing; a damaged one may hide it."""
    before = run(tmp_path, _incarnation_of_two_days)
    (tmp_path / "manifest").unlink()
    if manifest is not None:
        (tmp_path / "manifest").write_bytes(manifest)
    after = run(tmp_path, _incarnation)
    assert (after == before) is (manifest is None)
    assert run(tmp_path, _incarnation) == after


def test_a_store_without_its_incarnation_mints_one(tmp_path: Path) -> None:
    """Minted with the store, and again after any restore (D14)."""
    before = run(tmp_path, _incarnation_of_two)
    (tmp_path / "incarnation").unlink()
    assert run(tmp_path, _incarnation) != before


# --- Rot -----------------------------------------------------------------------------------------
def _flip(file: Path, offset: int) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 0x40
    file.write_bytes(data)


def test_rot_is_found_on_read_and_the_blob_is_missing(tmp_path: Path) -> None:
    """reliability.md A10: detected before a byte is returned; the summary shows the gap, so that
    the servers of the slot repair it."""
    run(tmp_path, _incarnation_of_two)
    (file,) = segment_files(tmp_path)
    _flip(file, HEADER_BYTES + 60)

    async def check(store: DiskStore) -> None:
        days = store.days(SLOT)
        wanted = [blob("a").blob, blob("b").blob]
        assert list(store.read(SLOT, TAG, wanted)) == wanted[1:]
        reply = await put(store, [blob("other")])  # the forgetting is queued before this
        assert reply.receipts[0].sequence == 3
        assert list(store.sizes(SLOT, TAG, wanted)) == wanted[1:]
        assert store.figures().rotten == 1
        assert store.days(SLOT)[0].count == days[0].count
        again = await put(store, [blob("a")])
        assert not again.receipts[0].duplicate
        assert len(store.read(SLOT, TAG, wanted)) == 2

    run(tmp_path, check)


def test_forgetting_the_newest_blob_keeps_the_head(tmp_path: Path) -> None:
    """A sequence is never given to another blob, whatever the disk did to the first."""
    run(tmp_path, _incarnation_of_two)
    (file,) = segment_files(tmp_path)
    _flip(file, file.stat().st_size - 5)

    async def lose(store: DiskStore) -> None:
        assert store.read(SLOT, TAG, [blob("b").blob]) == {}

    async def check(store: DiskStore) -> None:
        assert store.figures().blobs == 1
        assert store.head(SLOT, TAG) == 2
        assert (await put(store, [blob("c")])).receipts[0].sequence == 3

    run(tmp_path, lose)
    run(tmp_path, check)


def test_a_duplicate_push_heals_a_rotten_blob(tmp_path: Path) -> None:
    """A receipt vouches for what is on the disk now, not for what was once."""
    run(tmp_path, _incarnation_of_two)
    (file,) = segment_files(tmp_path)
    _flip(file, HEADER_BYTES + 60)

    async def check(store: DiskStore) -> None:
        reply = await put(store, [blob("a")])
        assert (reply.receipts[0].sequence, reply.receipts[0].duplicate) == (3, False)
        assert store.read(SLOT, TAG, [blob("a").blob])
        assert store.figures().blobs == 2
        assert store.days(SLOT)[0].count == 2

    run(tmp_path, check)


@pytest.mark.parametrize("offset", [0, 5, 40, 100, HEADER_BYTES - 1, HEADER_BYTES + 10])
def test_a_rebuild_steps_over_rot_in_the_middle(tmp_path: Path, offset: int) -> None:
    run(tmp_path, _incarnation_of_two)
    (file,) = segment_files(tmp_path)
    _flip(file, offset)
    delete_index(tmp_path)

    async def check(store: DiskStore) -> None:
        wanted = [blob("a").blob, blob("b").blob]
        assert list(store.read(SLOT, TAG, wanted)) == wanted[1:]
        assert store.head(SLOT, TAG) == 2

    run(tmp_path, check)


# --- Records -------------------------------------------------------------------------------------
RECORD = Record(2, 40, DAY, 1_700_000_000, 7, SLOT, TAG, blob("x", 60).blob)


def test_a_record_header_comes_back() -> None:
    assert unpack_record(pack_record(RECORD)) == RECORD


@given(st.integers(0, HEADER_BYTES - 1), st.integers(1, 255))
def test_a_damaged_header_is_none(at: int, change: int) -> None:
    data = bytearray(pack_record(RECORD))
    data[at] ^= change
    assert unpack_record(bytes(data)) is None


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(60, 400), min_size=1, max_size=6),
    damage=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=3),
    cut=st.integers(0, 10_000),
)
def test_scan_finds_whole_records_and_nothing_else(
    sizes: list[int], damage: list[tuple[int, int]], cut: int
) -> None:
    """Every record that no damage touched is found, at its place; none is made up."""
    data, spans = bytearray(), []
    for number, size in enumerate(sizes):
        item = blob(f"r{number}", size)
        header = Record(1, size, DAY, 0, number + 1, SLOT, TAG, item.blob)
        start = len(data)
        data += pack_record(header) + bytes(item.body)
        spans.append((start, len(data)))
    del data[len(data) - cut % (len(data) + 1) :]
    touched = set()
    for at, change in damage:
        if data:
            data[at % len(data)] ^= change
            touched.add(at % len(data))
    flips = {at for at in touched if bytes(data)[at] != _original(sizes)[at]}
    expected = {
        start
        for start, end in spans
        if end <= len(data) and not any(start <= at < end for at in flips)
    }
    stored = bytes(data)
    found = list(scan(lambda offset, size: stored[offset : offset + size], 0, len(stored)))
    assert {f.offset - HEADER_BYTES for f in found} == expected


def _original(sizes: list[int]) -> bytes:
    data = b""
    for number, size in enumerate(sizes):
        item = blob(f"r{number}", size)
        data += pack_record(Record(1, size, DAY, 0, number + 1, SLOT, TAG, item.blob))
        data += bytes(item.body)
    return data
