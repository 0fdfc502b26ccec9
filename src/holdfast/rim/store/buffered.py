"""The index, with the rows of the latest commits still in memory.

A row of a random id costs SQLite a page in each of two trees. Written a thousand at a time they
share the pages: 5 us a row, against 15 us in commits of a hundred, and the writer thread gives up
the interpreter lock so much less often. The blobs themselves are durable before a row gets here,
and an opening reads from the segments whatever the index does not cover, so a crash loses nothing
and costs the reading of `LATE_BYTES_MAX` at most.

Readers look at the rows in memory first and at the file second: rows leave the one only after they
have entered the other, so none is missed; what is seen twice is counted once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from holdfast.limits import LATE_BYTES_MAX, LATE_ROWS_MAX
from holdfast.rim.store.index import Index, Row, StreamRow


class _Late:
    """What the file does not have yet. Only grows; a new one takes its place."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, bytes], Row] = {}
        self.by_stream: dict[int, list[Row]] = {}
        """In the order of their sequences, which all lie past those in the file."""
        self.streams: dict[int, StreamRow] = {}
        self.extents: dict[int, int] = {}
        self.size = 0

    def add(self, rows: Sequence[Row]) -> None:
        """Show the rows of a commit to the readers. They come day by day: a stream's own order is
        that of its sequences."""
        for row in sorted(rows, key=_sequence):
            self.rows[row.stream, row.blob] = row
            self.by_stream.setdefault(row.stream, []).append(row)
            self.size += row.size


class BufferedIndex:
    """As `Index`. What an `Index` cannot be told late is written through."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._late = _Late()

    # --- Writing thread: all raise apsw.Error ----------------------------------------------------
    def commit(
        self,
        rows: Sequence[Row],
        streams: Iterable[StreamRow],
        extents: Iterable[tuple[int, int]],
        replaced: Collection[tuple[int, bytes]] = (),
    ) -> None:
        """As `Index.commit`: everything of one commit, or nothing."""
        late = self._late
        size = late.size + sum(row.size for row in rows)
        full = len(late.rows) + len(rows) > LATE_ROWS_MAX or size > LATE_BYTES_MAX
        if full or replaced:
            known = {**late.streams, **{row.id: row for row in streams}}
            covered = {**late.extents, **dict(extents)}
            gone = frozenset(replaced)
            kept = [row for key, row in late.rows.items() if key not in gone]
            self._index.commit([*kept, *rows], known.values(), covered.items(), gone)
            self._late = _Late()
            return
        late.streams.update((row.id, row) for row in streams)
        late.extents.update(extents)
        late.add(rows)

    def flush(self) -> None:
        """Write what is in memory."""
        late = self._late
        if late.rows or late.streams or late.extents:
            rows = list(late.rows.values())
            self._index.commit(rows, late.streams.values(), late.extents.items())
            self._late = _Late()

    def known(self, wanted: Sequence[tuple[int, bytes]]) -> dict[tuple[int, bytes], Row]:
        """As `Index.known`."""
        late = self._late.rows
        found = {key: late[key] for key in wanted if key in late}
        rest = [key for key in wanted if key not in found]
        return {**found, **self._index.known(rest)} if rest else found

    def forget(self, stream: StreamRow, blob: bytes) -> None:
        """As `Index.forget`."""
        self.flush()
        self._index.forget(stream, blob)

    def segment(self, name: str) -> int:
        """The id of a segment, made when new."""
        number, _ = self._index.segment(name)
        return number

    def segments(self) -> dict[int, str]:
        """As `Index.segments`."""
        return self._index.segments()

    def day_rows(self, born: int) -> list[Row]:
        """As `Index.day_rows`."""
        self.flush()
        return self._index.day_rows(born)

    def forget_segment(self, segment: int, born: int) -> None:
        """As `Index.forget_segment`."""
        self.flush()
        self._index.forget_segment(segment, born)

    def close(self, *, clean: bool) -> None:
        """Close; `clean` when the next opening may believe the file."""
        try:
            if clean:
                self.flush()
                self._index.set_meta("clean", 1)
        finally:
            self._index.close()

    # --- Readers: all raise OperationFault when the file is damaged ------------------------------
    def find(self, stream: int, blobs: Sequence[bytes]) -> dict[bytes, Row]:
        """As `Index.find`."""
        late = self._late.rows
        found = {blob: row for blob in blobs if (row := late.get((stream, blob))) is not None}
        rest = [blob for blob in blobs if blob not in found]
        return {**found, **self._index.find(stream, rest)} if rest else found

    def after(self, stream: int, sequence: int, count: int, blob_class: int | None) -> list[Row]:
        """As `Index.after`."""
        late = self._of_stream(stream)
        rows = self._index.after(stream, sequence, count, blob_class)
        last = rows[-1].sequence if rows else sequence
        more = (
            row
            for row in late
            if row.sequence > last and (blob_class is None or row.blob_class == blob_class)
        )
        return [*rows, *more][:count]

    def listing(self, stream: int, born: int, blob: bytes, count: int) -> list[Row]:
        """As `Index.listing`."""
        late = [row for row in self._of_stream(stream) if (row.born, row.blob) > (born, blob)]
        rows = self._index.listing(stream, born, blob, count)
        if not late:
            return rows
        both = {row.blob: row for row in (*rows, *late)}
        return sorted(both.values(), key=lambda row: (row.born, row.blob))[:count]

    def bucket(self, born: int, bucket: int) -> list[Row]:
        """As `Index.bucket`."""
        late = [
            row
            for row in list(self._late.rows.values())
            if row.born == born and row.blob[0] == bucket
        ]
        both = {(row.stream, row.blob): row for row in self._index.bucket(born, bucket)}
        both.update(((row.stream, row.blob), row) for row in late)
        return list(both.values())

    def _of_stream(self, stream: int) -> list[Row]:
        """The stream's rows in memory, as they are now."""
        return list(self._late.by_stream.get(stream, ()))


def _sequence(row: Row) -> int:
    return row.sequence
