"""The blob store: what goes in comes out, once, in order, with a receipt (D12-D15)."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from tests.rim.store_kit import (
    DAY,
    IDENTITY,
    SLOT,
    TAG,
    blob,
    open_store,
    picture,
    put,
    random_blob,
    run,
    segment_files,
)

from holdfast.errors import OperationFault, PeerFault
from holdfast.rim.store import DiskStore, StorePolicy, WriteRefused
from holdfast.rim.store import segments as segments_module
from holdfast.rim.store.index import Index
from holdfast.wire.pool import BlobClass
from holdfast.wire.receipts import verify_receipts


def test_a_push_is_receipted_listed_and_read(tmp_path: Path) -> None:
    async def work(store: DiskStore) -> None:
        blobs = [blob(f"b{n}", 200 + n) for n in range(5)]
        reply = await put(store, blobs)
        pushed = [(b.blob, len(b.body), b.born) for b in blobs]
        batch = verify_receipts(reply, node=IDENTITY.node, tag=TAG, pushed=pushed)
        assert batch.incarnation == store.incarnation
        assert [r.sequence for r in reply.receipts] == [1, 2, 3, 4, 5]
        assert store.head(SLOT, TAG) == 5
        assert store.used_bytes(SLOT, TAG) == sum(len(b.body) for b in blobs)
        entries = store.after(SLOT, TAG, 2, 10, None)
        assert [(e.sequence, e.blob) for e in entries] == [
            (n, blobs[n - 1].blob) for n in (3, 4, 5)
        ]
        bodies = store.read(SLOT, TAG, [b.blob for b in blobs] + [b"0" * 32])
        assert bodies == {b.blob: bytes(b.body) for b in blobs}
        assert store.sizes(SLOT, TAG, [blobs[0].blob, b"0" * 32]) == {blobs[0].blob: 200}

    run(tmp_path, work)


def test_a_tag_of_another_slot_is_another_stream(tmp_path: Path) -> None:
    async def work(store: DiskStore) -> None:
        await put(store, [blob("a")])
        await put(store, [blob("a"), blob("b")], slot=b"x" * 16)
        assert store.head(SLOT, TAG) == 1
        assert store.head(b"x" * 16, TAG) == 2
        assert store.read(SLOT, TAG, [blob("b").blob]) == {}
        assert store.read(SLOT, b"u" * 32, [blob("a").blob]) == {}

    run(tmp_path, work)


def test_a_duplicate_is_idempotent_and_gets_a_fresh_receipt(tmp_path: Path) -> None:
    """Reference §2.4 defect 4: a retry must not become another blob."""

    async def work(store: DiskStore) -> None:
        first = await put(store, [blob("a"), blob("b")])
        again = await put(store, [blob("b"), blob("c"), blob("c")])
        assert [(r.sequence, r.duplicate) for r in first.receipts] == [(1, False), (2, False)]
        assert [(r.sequence, r.duplicate) for r in again.receipts] == [
            (2, True),
            (3, False),
            (3, True),
        ]
        assert again.batch != first.batch
        pushed = [(b.blob, len(b.body), b.born) for b in (blob("b"), blob("c"), blob("c"))]
        verify_receipts(again, node=IDENTITY.node, tag=TAG, pushed=pushed)
        assert store.figures().blobs == 3

    run(tmp_path, work)


def test_the_same_blob_pushed_at_once_is_stored_once(tmp_path: Path) -> None:
    async def work(store: DiskStore) -> None:
        replies = await asyncio.gather(*(put(store, [blob("same")]) for _ in range(20)))
        assert {r.receipts[0].sequence for r in replies} == {1}
        assert sum(not r.receipts[0].duplicate for r in replies) == 1
        assert store.figures().blobs == 1

    run(tmp_path, work)


def test_a_puller_never_sees_a_sequence_before_the_one_below_it(tmp_path: Path) -> None:
    """Reference §2.4 defect 6: pullers saw cursor 6 before 5 existed and moved past it."""

    async def work(store: DiskStore) -> None:
        seen: list[int] = []

        async def pull() -> None:
            while len(seen) < 400:
                seen.extend(e.sequence for e in store.after(SLOT, TAG, len(seen), 1_000, None))
                assert seen == list(range(1, len(seen) + 1))
                await asyncio.sleep(0)

        puller = asyncio.create_task(pull())
        await asyncio.gather(*(put(store, [random_blob(300)]) for _ in range(400)))
        await asyncio.wait_for(puller, 10)

    run(tmp_path, work)


def test_one_signature_covers_a_commit(tmp_path: Path) -> None:
    """DESIGN §6: one signature over the batch's Merkle root."""

    async def work(store: DiskStore) -> None:
        tags = [os.urandom(32) for _ in range(30)]
        replies = await asyncio.gather(*(put(store, [random_blob(300)], tag=t) for t in tags))
        assert len({reply.batch.signature for reply in replies}) < 30

    run(tmp_path, work)


def test_listeners_hear_of_a_commit_once_it_can_be_read(tmp_path: Path) -> None:
    async def work(store: DiskStore) -> None:
        heard: list[tuple[bytes, bytes, int, int]] = []
        store.subscribe(
            lambda slot, tag, head: heard.append(
                (slot, tag, head, len(store.after(slot, tag, 0, 10, None)))
            )
        )
        await put(store, [blob("a"), blob("b")])
        assert heard == [(SLOT, TAG, 2, 2)]

    run(tmp_path, work)


def test_classes_are_told_apart(tmp_path: Path) -> None:
    async def work(store: DiskStore) -> None:
        await put(store, [blob("a")])
        await put(store, [blob("b")], blob_class=BlobClass.BULK)
        await put(store, [blob("c")])
        log = store.after(SLOT, TAG, 0, 10, BlobClass.LOG)
        assert [entry.sequence for entry in log] == [1, 3]
        assert [e.blob_class for e in store.after(SLOT, TAG, 1, 1, None)] == [BlobClass.BULK]

    run(tmp_path, work)


def test_listing_pages_by_born_day_and_id(tmp_path: Path) -> None:
    async def work(store: DiskStore) -> None:
        blobs = [blob(f"b{n}", born=DAY + n % 3) for n in range(30)]
        await put(store, blobs)
        expected = sorted((b.born, b.blob) for b in blobs if b.born >= DAY + 1)
        found: list[tuple[int, bytes]] = []
        at = (DAY + 1, b"")
        while page := store.listing(SLOT, TAG, *at, 7):
            found += [(entry.born, entry.blob) for entry in page]
            at = found[-1]
        assert found == expected

    run(tmp_path, work)


# --- Limits --------------------------------------------------------------------------------------
def test_a_group_over_its_quota_is_refused_whole(tmp_path: Path) -> None:
    """Seed 004 §11.3 `max_group_storage`."""

    async def work(store: DiskStore) -> None:
        await put(store, [blob("a", 600)])
        with pytest.raises(PeerFault) as refused:
            await put(store, [blob("b", 200), blob("c", 201)])
        assert refused.value.code == "quota"
        assert store.figures().blobs == 1
        await put(store, [blob("a", 600)])  # a duplicate takes no room
        reply = await put(store, [blob("b", 200), blob("c", 200)])
        assert [r.sequence for r in reply.receipts] == [2, 3]
        await put(store, [blob("x", 900)], tag=b"u" * 32)

    run(tmp_path, work, StorePolicy(group_bytes_max=1_000, reserve_bytes=0))


def test_a_refusal_does_not_touch_its_neighbours_in_the_commit(tmp_path: Path) -> None:
    async def work(store: DiskStore) -> None:
        pushes = [put(store, [blob(f"b{n}", 400)], tag=bytes((n % 2,)) * 32) for n in range(6)]
        answers = await asyncio.gather(*pushes, return_exceptions=True)
        assert sum(isinstance(answer, PeerFault) for answer in answers) == 2
        assert store.figures().blobs == 4
        for tag in (b"\x00" * 32, b"\x01" * 32):
            assert [e.sequence for e in store.after(SLOT, tag, 0, 9, None)] == [1, 2]

    run(tmp_path, work, StorePolicy(group_bytes_max=1_000, reserve_bytes=0))


def test_the_caps_on_groups_and_on_the_store(tmp_path: Path) -> None:
    """Seed 004 §11.3 `groups_per_relay`, `max_db_size`."""

    async def work(store: DiskStore) -> None:
        await put(store, [blob("a", 400)], tag=b"a" * 32)
        await put(store, [blob("b", 400)], tag=b"b" * 32)
        with pytest.raises(WriteRefused) as refused:
            await put(store, [blob("c", 100)], tag=b"c" * 32)
        assert refused.value.code == "full"
        with pytest.raises(WriteRefused):
            await put(store, [blob("d", 201)], tag=b"a" * 32)
        await put(store, [blob("d", 200)], tag=b"a" * 32)
        assert store.figures().free_bytes == 0

    run(tmp_path, work, StorePolicy(groups_max=2, store_bytes_max=1_000, reserve_bytes=0))


# --- Days ----------------------------------------------------------------------------------------
def test_a_dropped_day_is_gone_and_its_sequences_are_never_reused(tmp_path: Path) -> None:
    """D11: the day is the unit of retention; D14: a cursor never points at something else."""

    async def first(store: DiskStore) -> None:
        await put(store, [blob("old", born=DAY - 9), blob("older", born=DAY - 9)])
        await put(store, [blob("new")])
        await put(store, [blob("last", born=DAY - 9)])
        assert store.born_days() == [DAY - 9, DAY]
        assert await store.drop_day(DAY - 9) == 3
        assert store.born_days() == [DAY]
        assert store.read(SLOT, TAG, [blob("old", born=DAY - 9).blob]) == {}
        assert [day.born for day in store.days(SLOT)] == [DAY]
        assert store.head(SLOT, TAG) == 4
        assert store.used_bytes(SLOT, TAG) == 200
        assert store.figures().blobs == 1

    async def second(store: DiskStore) -> None:
        reply = await put(store, [blob("next")])
        assert reply.receipts[0].sequence == 5

    run(tmp_path, first)
    for file in tmp_path.glob("index.sqlite*"):
        file.unlink()
    run(tmp_path, second)


def test_a_tag_whose_days_are_all_gone_is_no_group(tmp_path: Path) -> None:
    async def work(store: DiskStore) -> None:
        await put(store, [blob("old", born=DAY - 9)])
        await store.drop_day(DAY - 9)
        assert store.figures().groups == 0
        assert store.first_at(SLOT, TAG) is None
        assert store.slots_of(DAY - 9) == ()

    run(tmp_path, work)


def test_a_born_day_spreads_over_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments_module, "SEGMENT_BYTES_MAX", 2_000)

    async def work(store: DiskStore) -> object:
        for n in range(12):
            await put(store, [blob(f"b{n}", 700)])
        assert len(store.read(SLOT, TAG, [blob(f"b{n}", 700).blob for n in range(12)])) == 12
        return picture(store)

    before = run(tmp_path, work)
    assert len(segment_files(tmp_path)) > 3

    async def check(store: DiskStore) -> None:
        assert picture(store) == before
        assert await store.drop_day(DAY) == 12

    run(tmp_path, check)
    assert segment_files(tmp_path) == []


# --- Canaries ------------------------------------------------------------------------------------
def test_a_canary_is_durable_readable_and_counts_for_nothing(tmp_path: Path) -> None:
    async def work(store: DiskStore) -> None:
        canary = random_blob(1_024)
        syncs = store.figures().blobs
        reply = await put(store, [canary], tag=b"c" * 32, blob_class=BlobClass.CANARY)
        pushed = [(canary.blob, len(canary.body), canary.born)]
        verify_receipts(reply, node=IDENTITY.node, tag=b"c" * 32, pushed=pushed)
        assert store.read(SLOT, b"c" * 32, [canary.blob]) == {canary.blob: bytes(canary.body)}
        assert store.figures().blobs == syncs == 0
        assert store.figures().groups == 0
        assert store.days(SLOT) == ()
        assert store.after(SLOT, b"c" * 32, 0, 10, None) == []

    run(tmp_path, work)
    assert segment_files(tmp_path) == []


def test_canaries_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.rim.store.writer.CANARY_BYTES_MAX", 10_000)

    async def work(store: DiskStore) -> None:
        for _ in range(40):
            canary = random_blob(1_024)
            await put(store, [canary], tag=b"c" * 32, blob_class=BlobClass.CANARY)
            assert store.read(SLOT, b"c" * 32, [canary.blob])

    run(tmp_path, work)
    assert (tmp_path / "segments" / "canary.seg").stat().st_size < 12_000


def test_too_much_in_the_queue_is_told_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.rim.store.disk.WRITE_QUEUE_BYTES_MAX", 5_000)

    async def work(store: DiskStore) -> None:
        pushes = [put(store, [random_blob(2_000)]) for _ in range(5)]
        answers = await asyncio.gather(*pushes, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, WriteRefused)]
        assert [answer.code for answer in refused] == ["busy"] * 3
        await put(store, [random_blob(2_000)])

    run(tmp_path, work)


def test_a_store_opens_twice_in_a_row(tmp_path: Path) -> None:
    async def main() -> None:
        store = await open_store(tmp_path)
        await put(store, [blob("a")])
        before = picture(store)
        await store.close()
        store = await open_store(tmp_path)
        assert picture(store) == before
        await store.close()

    asyncio.run(main())


SLOW_QUERY = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000)
SELECT 1, 2, x'00', 4, 5, 6, 7, 8 FROM n WHERE i = 500000
"""


def test_closing_waits_for_a_reader_on_another_thread(tmp_path: Path) -> None:
    """A reconcile reads a day beside the event loop while the server is told to stop."""
    index = Index(tmp_path / "index.db")

    async def main() -> None:
        reading = asyncio.create_task(asyncio.to_thread(index._rows_read, SLOW_QUERY, ()))
        while not index._reading.locked():  # noqa: ASYNC110 - a thread, which tells nobody
            await asyncio.sleep(0.001)
        index.close()
        assert len(await reading) == 1
        with pytest.raises(OperationFault):
            index.find(1, [b"x" * 32])

    asyncio.run(main())
