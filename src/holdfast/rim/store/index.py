"""Where every blob lies: an SQLite file that can be thrown away.

Everything here can be read back from the segments, so nothing is synced: a crash of the process
loses nothing (the page cache survives), and after a crash of the machine the index is rebuilt. The
writer thread has one connection, readers another; in WAL mode they do not wait for each other.

Rows are written and looked up many at a time in one statement. Each step of a statement lets go of
the interpreter lock, and winning it back from a busy event loop can take milliseconds.

The fat rows are appended; only narrow entries go to random places. `key` is the first seven bytes
of a blob id as an integer: its order is the order of ids, and a bucket is a range of it. Measured
per blob with 64 streams: 14 us, against 39 us with ids in the keys and rows ordered by stream.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import apsw

from holdfast.errors import OperationFault
from holdfast.limits import INDEX_ROWS_PER_STATEMENT

T = TypeVar("T")
SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value ANY) WITHOUT ROWID;
CREATE TABLE segments(id INTEGER PRIMARY KEY, name TEXT UNIQUE, bytes INTEGER);
CREATE TABLE streams(id INTEGER PRIMARY KEY, slot BLOB, tag BLOB, head INTEGER, first_at INTEGER,
                     UNIQUE(slot, tag));
CREATE TABLE blobs(stream INTEGER, sequence INTEGER, blob BLOB, born INTEGER, class INTEGER,
                   size INTEGER, segment INTEGER, offset INTEGER, key INTEGER);
CREATE UNIQUE INDEX blobs_by_sequence ON blobs(stream, sequence);
CREATE INDEX blobs_by_id ON blobs(key);
CREATE INDEX blobs_by_day ON blobs(born, key);
"""
_KEY_BYTES = 7
_COLUMNS = "stream, sequence, blob, born, class, size, segment, offset"


class Row(NamedTuple):
    """One blob: its stream and sequence, what it is, and where its body starts."""

    stream: int
    sequence: int
    blob: bytes
    born: int
    blob_class: int
    size: int
    segment: int
    offset: int


class StreamRow(NamedTuple):
    """One (slot, tag). `first_at` is Unix seconds of the first commit. `head` is written when the
    stream is new or a row that showed it goes; the head is the larger of it and of the rows."""

    id: int
    slot: bytes
    tag: bytes
    head: int
    first_at: int


class Index:
    """The writing side, for one thread, and the reading side, for others."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises apsw.Error when the file is not a sound index."""
        self._write = _connect(path)
        version = _one(self._write, "PRAGMA user_version")
        if version == 0:
            self._write.execute(_SCHEMA)
            self._write.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        elif version != SCHEMA_VERSION:
            raise apsw.CorruptError(f"index schema {version}")
        self._read = _connect(path)
        self._reading = threading.Lock()

    def close(self) -> None:
        """Close both connections, once whoever reads beside the event loop is through."""
        with self._reading:
            self._read.close()
        self._write.close()

    # --- Writing thread --------------------------------------------------------------------------
    def meta(self, key: str) -> Any:
        """A value noted with `set_meta`, None when there is none."""
        row = self._write.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return None if row is None else row[0]

    def set_meta(self, key: str, value: bytes | str | int) -> None:
        """Note a value about the index itself."""
        self._write.execute("INSERT OR REPLACE INTO meta VALUES(?,?)", (key, value))

    def segment(self, name: str) -> tuple[int, int]:
        """(id, bytes indexed) of a segment, made when new."""
        row = self._write.execute("SELECT id, bytes FROM segments WHERE name=?", (name,)).fetchone()
        if row is None:
            self._write.execute("INSERT INTO segments(name, bytes) VALUES(?, 0)", (name,))
            return self._write.last_insert_rowid(), 0
        return row[0], row[1]

    def segments(self) -> dict[int, str]:
        """Names by id."""
        return dict(self._write.execute("SELECT id, name FROM segments"))

    def commit(
        self,
        rows: Sequence[Row],
        streams: Iterable[StreamRow],
        extents: Iterable[tuple[int, int]],
        replaced: Iterable[tuple[int, bytes]] = (),
        *,
        skip_conflicts: bool = False,
    ) -> None:
        """Everything of one commit, or nothing. `streams` are those that are new or whose head no
        row shows any more; `extents` are (segment id, bytes indexed);
        `replaced` are (stream, blob) whose rotten rows give way. Recovery skips rows that stand in
        the way of earlier ones; for a commit they are a bug. Raises apsw.Error."""
        or_skip = "OR IGNORE " if skip_conflicts else ""
        with self._write:
            self._delete(replaced)
            self._put_streams(streams)
            for chunk in _chunks(rows):
                places = ",".join(["(?,?,?,?,?,?,?,?,?)"] * len(chunk))
                values = [value for row in chunk for value in (*row, _key(row.blob))]
                self._write.execute(f"INSERT {or_skip}INTO blobs VALUES {places}", values)
            for segment, size in extents:
                self._write.execute("UPDATE segments SET bytes=? WHERE id=?", (size, segment))

    def forget(self, stream: StreamRow, blob: bytes) -> None:
        """Take a blob out of the index; the body stays where it is, the head is kept."""
        with self._write:
            self._delete([(stream.id, blob)])
            self._put_streams([stream])

    def last_sequences(self, segment: int, born: int) -> dict[int, int]:
        """The highest sequence in a segment of a born day, by stream."""
        query = "SELECT stream, max(sequence) FROM blobs WHERE born=? AND segment=? GROUP BY stream"
        return dict(self._write.execute(query, (born, segment)))

    def forget_segment(self, segment: int, born: int) -> None:
        """Take a segment of a born day and all its blobs out of the index."""
        with self._write:
            self._write.execute("DELETE FROM blobs WHERE born=? AND segment=?", (born, segment))
            self._write.execute("DELETE FROM segments WHERE id=?", (segment,))

    def _put_streams(self, streams: Iterable[StreamRow]) -> None:
        for stream in streams:
            self._write.execute("INSERT OR REPLACE INTO streams VALUES(?,?,?,?,?)", stream)

    def _delete(self, wanted: Iterable[tuple[int, bytes]]) -> None:
        query = "DELETE FROM blobs WHERE key=? AND stream=? AND blob=?"
        for stream, blob in wanted:
            self._write.execute(query, (_key(blob), stream, blob))

    def known(self, wanted: Sequence[tuple[int, bytes]]) -> dict[tuple[int, bytes], Row]:
        """The rows of those (stream, blob) that are here, as the writer sees them."""
        return _lookup(self._write, wanted)

    def every_blob(self) -> Iterator[tuple[int, int, bytes, int]]:
        """(stream, born, id, class) of all blobs, for rebuilding what is kept in memory."""
        rows: Any = self._write.execute("SELECT stream, born, blob, class FROM blobs")
        return iter(rows)

    def totals(self) -> list[tuple[int, int, int, int]]:
        """(stream, blobs, bytes, highest sequence) of every stream that has any."""
        query = "SELECT stream, count(*), sum(size), max(sequence) FROM blobs GROUP BY stream"
        rows: Any = self._write.execute(query)
        return list(rows)

    def streams(self) -> list[StreamRow]:
        """All streams."""
        rows: Any = self._write.execute("SELECT id, slot, tag, head, first_at FROM streams")
        return [StreamRow(*row) for row in rows]

    def day_rows(self, born: int) -> list[Row]:
        """All blobs of a born day, in the order of their segments."""
        query = f"SELECT {_COLUMNS} FROM blobs WHERE born=? ORDER BY segment, offset"
        return _rows(self._write, query, (born,))

    # --- Readers: all raise OperationFault when the file is damaged ------------------------------
    def find(self, stream: int, blobs: Sequence[bytes]) -> dict[bytes, Row]:
        """Rows of those ids that are here."""
        try:
            with self._reading:
                found = _lookup(self._read, [(stream, blob) for blob in blobs])
        except apsw.Error as error:
            raise _damaged(error) from error
        return {blob: row for (_, blob), row in found.items()}

    def after(self, stream: int, sequence: int, count: int, blob_class: int | None) -> list[Row]:
        """Up to `count` rows past a sequence, in order."""
        only = "" if blob_class is None else "AND class=? "
        query = (
            f"SELECT {_COLUMNS} FROM blobs WHERE stream=? AND sequence>? {only}"
            "ORDER BY sequence LIMIT ?"
        )
        picked = () if blob_class is None else (blob_class,)
        return self._rows_read(query, (stream, sequence, *picked, count))

    def listing(self, stream: int, born: int, blob: bytes, count: int) -> list[Row]:
        """Up to `count` rows of a stream past (born day, id), in that order. Looks at every row
        of the stream: for a cursor that was lost, not for every day."""
        query = (
            f"SELECT {_COLUMNS} FROM blobs WHERE stream=? AND (born, blob)>(?, ?) "
            "ORDER BY born, blob LIMIT ?"
        )
        return self._rows_read(query, (stream, born, blob, count))

    def _rows_read(self, query: str, values: Sequence[Any]) -> list[Row]:
        try:
            with self._reading:
                return _rows(self._read, query, values)
        except apsw.Error as error:
            raise _damaged(error) from error

    def bucket(self, born: int, bucket: int) -> list[Row]:
        """All rows of a born day whose id starts with byte `bucket`, of every stream."""
        low, high = _key(bytes((bucket,))), _key(bytes((bucket,)) + b"\xff" * 6)
        query = f"SELECT {_COLUMNS} FROM blobs WHERE born=? AND key BETWEEN ? AND ?"
        return self._rows_read(query, (born, low, high))


def _damaged(error: apsw.Error) -> OperationFault:
    return OperationFault(f"the index cannot be read ({error}); a restart rebuilds it")


def _connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(5_000)
    for pragma in (
        "journal_mode=WAL",
        "synchronous=OFF",
        "cache_size=-65536",
        "temp_store=MEMORY",
        "wal_autocheckpoint=4000",
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _key(blob: bytes) -> int:
    """The place of an id in the indexes; 56 bits, so that SQLite keeps it positive."""
    return int.from_bytes(blob[:_KEY_BYTES].ljust(_KEY_BYTES, b"\x00"), "big")


def _rows(connection: apsw.Connection, query: str, values: Sequence[Any]) -> list[Row]:
    rows: Any = connection.execute(query, values)
    return [Row(*row) for row in rows]


def _one(connection: apsw.Connection, query: str) -> Any:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Pieces of a power of two each, the largest first: ten statements serve every number of
    rows, and all of them stay compiled."""
    start, size = 0, INDEX_ROWS_PER_STATEMENT
    while start < len(items):
        while size > len(items) - start:
            size >>= 1
        yield items[start : start + size]
        start += size


def _lookup(
    connection: apsw.Connection, wanted: Sequence[tuple[int, bytes]]
) -> dict[tuple[int, bytes], Row]:
    found: dict[tuple[int, bytes], Row] = {}
    for chunk in _chunks(wanted):
        places = ",".join(["(?,?,?)"] * len(chunk))
        query = (
            f"WITH wanted(k, s, b) AS (VALUES {places}) "
            f"SELECT {_COLUMNS} FROM wanted CROSS JOIN blobs ON key=k AND stream=s AND blob=b"
        )
        values = [value for stream, blob in chunk for value in (_key(blob), stream, blob)]
        for row in _rows(connection, query, values):
            found[row.stream, row.blob] = row
    return found
