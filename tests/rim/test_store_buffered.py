"""Rows of the index in memory: no answer tells where a row is, and a crash loses none."""

from __future__ import annotations

import asyncio
import itertools
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rim.store_kit import DAY, TAG, blob, open_store, picture, put, run

from holdfast.crypto.pure import hash_bytes
from holdfast.limits import LATE_BYTES_MAX, LATE_ROWS_MAX
from holdfast.rim.store import DiskStore, WriteRefused
from holdfast.rim.store.buffered import BufferedIndex
from holdfast.rim.store.index import Index, Row, StreamRow

SLOT = b"s" * 16


def row(stream: int, sequence: int, name: int, born: int = DAY, blob_class: int = 1) -> Row:
    body = hash_bytes(name.to_bytes(4, "big"))
    return Row(stream, sequence, body, born, blob_class, 200, 1, 1_000 * name)


def stream_row(number: int) -> StreamRow:
    return StreamRow(number, SLOT, number.to_bytes(32, "big"), 0, 1)


PUSHES = st.lists(
    st.tuples(
        st.sampled_from([1, 2]),  # stream
        st.sampled_from([DAY, DAY + 1]),
        st.sampled_from([1, 2]),  # class
        st.sampled_from(["same commit", "next commit", "to the file"]),  # what follows it
    ),
    min_size=1,
    max_size=24,
)


@given(PUSHES, st.integers(0, 24), st.integers(1, 24))
def test_every_answer_is_that_of_an_index_that_has_all_in_its_file(
    pushes: list[tuple[int, int, int, str]], sequence: int, count: int
) -> None:
    with TemporaryDirectory() as home:
        plain, late = Index(Path(home) / "a"), BufferedIndex(Index(Path(home) / "b"))
        _compare(plain, late, pushes, sequence, count)


def _compare(
    plain: Index,
    late: BufferedIndex,
    pushes: list[tuple[int, int, int, str]],
    sequence: int,
    count: int,
) -> None:
    names = itertools.count()
    heads = {1: 0, 2: 0}
    rows: list[Row] = []
    commit: list[Row] = []
    for number, (stream, born, blob_class, then) in enumerate(pushes):
        heads[stream] += 1
        rows.append(row(stream, heads[stream], next(names), born, blob_class))
        commit.append(rows[-1])
        if then == "same commit" and number < len(pushes) - 1:
            continue
        by_day = sorted(commit, key=lambda each: -each.born)  # a segment after the other
        for index in (plain, late):
            index.commit(by_day, [stream_row(1), stream_row(2)], [(1, len(rows))])
        commit = []
        if then == "to the file":
            late.flush()
    wanted = [(each.stream, each.blob) for each in rows] + [(1, b"x" * 32)]
    assert late.known(wanted) == plain.known(wanted)
    for stream in (1, 2, 3):
        blobs = [each.blob for each in rows]
        assert late.find(stream, blobs) == plain.find(stream, blobs)
        for wish in (None, 1, 2):
            assert late.after(stream, sequence, count, wish) == plain.after(
                stream, sequence, count, wish
            )
        middle = rows[len(rows) // 2]
        assert late.listing(stream, middle.born, middle.blob, count) == plain.listing(
            stream, middle.born, middle.blob, count
        )
    for each in rows:
        bucket = each.blob[0]
        assert sorted(late.bucket(each.born, bucket)) == sorted(plain.bucket(each.born, bucket))
    assert sorted(late.day_rows(DAY)) == sorted(plain.day_rows(DAY))
    late.close(clean=True)
    plain.close()


def test_a_row_that_gives_way_while_in_memory_is_gone(tmp_path: Path) -> None:
    late = BufferedIndex(Index(tmp_path / "index.sqlite"))
    old = row(1, 1, 7)
    late.commit([old], [stream_row(1)], [(1, 1)])
    again = old._replace(sequence=2, offset=9)
    late.commit([again], [stream_row(1)], [(1, 2)], [(1, old.blob)])
    assert late.find(1, [old.blob]) == {old.blob: again}
    assert late.after(1, 0, 10, None) == [again]
    late.close(clean=True)


def test_memory_is_bounded_in_rows_and_in_bytes(tmp_path: Path) -> None:
    late = BufferedIndex(Index(tmp_path / "index.sqlite"))
    names = itertools.count()
    for sequence in range(1, LATE_ROWS_MAX + 2):
        late.commit([row(1, sequence, next(names))], [], [(1, sequence)])
        assert len(late._late.rows) <= LATE_ROWS_MAX
    assert not late._late.rows
    large = row(2, 1, next(names))._replace(size=LATE_BYTES_MAX + 1)
    late.commit([large], [], [(1, 1)])
    assert not late._late.rows
    late.close(clean=True)


def test_a_reader_misses_nothing_while_rows_go_to_the_file(tmp_path: Path) -> None:
    late = BufferedIndex(Index(tmp_path / "index.sqlite"))
    committed = 0
    over = threading.Event()
    missed: list[tuple[int, int]] = []

    def look() -> None:
        while not over.is_set():
            least = committed
            found = [each.sequence for each in late.after(1, 0, 10_000, None)]
            if found != list(range(1, len(found) + 1)) or len(found) < least:
                missed.append((least, len(found)))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for sequence in range(1, 1_501):
            late.commit([row(1, sequence, sequence)], [stream_row(1)], [(1, sequence)])
            committed = sequence
            if sequence % 7 == 0:
                late.flush()
    finally:
        over.set()
        reader.join()
    assert missed == []
    late.close(clean=True)


def test_a_crash_before_the_rows_are_written_loses_nothing(tmp_path: Path) -> None:
    """D14: what is in the segments is the truth, and the incarnation stays."""

    async def crash() -> object:
        store = await open_store(tmp_path)
        for n in range(20):
            await put(store, [blob(f"a{n}"), blob(f"b{n}", born=DAY + 1)])
        assert store._index._late.rows, "nothing has been written to the file"
        before = picture(store)
        await asyncio.to_thread(store._writer.stop)
        store._index.close(clean=False)
        return before

    before = asyncio.run(crash())

    async def check(store: DiskStore) -> None:
        assert picture(store) == before

    run(tmp_path, check)


def test_a_full_disk_takes_back_the_new_rows_and_keeps_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing acknowledged is lost when SQLite finds no room for what it is told late."""

    async def work(store: DiskStore) -> None:
        first = [blob(f"a{n}") for n in range(LATE_ROWS_MAX)]
        for start in range(0, len(first), 64):
            await put(store, first[start : start + 64])
        assert len(store._index._late.rows) == LATE_ROWS_MAX

        def full(*_: object) -> None:
            raise apsw.FullError("database or disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(store._index._index, "commit", full)
            with pytest.raises(WriteRefused) as refused:
                await put(store, [blob("x")])
            assert refused.value.code == "full"
            names = [each.blob for each in first]
            assert len(store.read(SLOT, TAG, names)) == LATE_ROWS_MAX
            assert not store.read(SLOT, TAG, [blob("x").blob])
        reply = await put(store, [blob("y")])
        assert reply.receipts[0].sequence == LATE_ROWS_MAX + 1

    run(tmp_path, work)


def test_rot_that_is_found_on_a_full_disk_does_not_break_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To forget a blob the late rows are written first. There is no room now; there will be."""

    async def work(store: DiskStore) -> None:
        items = [blob(f"a{n}") for n in range(16)]
        await put(store, items)
        rotten = store._index._late.rows[1, items[5].blob]
        name = store._state.segments[rotten.segment]
        with (tmp_path / "segments" / name).open("r+b") as file:
            file.seek(rotten.offset + 50)
            file.write(b"rot")

        def full(*_: object) -> None:
            raise apsw.FullError("database or disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(store._index._index, "commit", full)
            assert not store.read(SLOT, TAG, [rotten.blob])
            await store._perform(lambda: None)  # behind the forgetting
            assert store.figures().trouble.startswith("no room")
        await put(store, [blob("new")])
        assert not store.read(SLOT, TAG, [rotten.blob])
        await store._perform(lambda: None)
        assert not store.sizes(SLOT, TAG, [rotten.blob])
        assert not store.figures().trouble

    run(tmp_path, work)
