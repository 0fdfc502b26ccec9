"""What this device knows of one folder: an SQLite file in the device's state directory.

| table   | one row for                                                                         |
|---------|-------------------------------------------------------------------------------------|
| files   | every name on disk that is in step with a version of the log, and its stat then     |
| placing | every name being put in place: what it is to be, until the disk is known to have it |
| chunks  | every chunk this device has sealed or verified: which pack holds it                 |
| extents | every chunk of a large file on this disk: hints, checked by hash when used          |

Nothing here is precious: without it the folder is read once more and finds itself in the log.
`placing` alone is made durable before the disk is touched; with it a file torn by a power cut is
told from a file somebody edited. Rows travel many to a statement: each step lets go of the
interpreter lock, and winning it back from a busy thread takes long.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgspec

from holdfast.errors import OperationFault
from holdfast.logic.group.changeset import Piece
from holdfast.logic.group.operation import VersionId
from holdfast.logic.group.paths import STAGING_NAME, parent_of

T = TypeVar("T")
SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value ANY) WITHOUT ROWID;
CREATE TABLE files(path BLOB PRIMARY KEY, logical BLOB, kind INTEGER, mode INTEGER, size INTEGER,
                   mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER, identity BLOB,
                   operation BLOB, entry INTEGER) WITHOUT ROWID;
CREATE TABLE placing(path BLOB PRIMARY KEY, identity BLOB, mtime_ns INTEGER) WITHOUT ROWID;
CREATE TABLE packs(id INTEGER PRIMARY KEY, blob BLOB UNIQUE);
CREATE TABLE chunks(hash BLOB PRIMARY KEY, pack INTEGER, offset INTEGER, stored INTEGER,
                    plain INTEGER, codec INTEGER) WITHOUT ROWID;
CREATE TABLE extents(path BLOB, offset INTEGER, hash BLOB, plain INTEGER,
                     PRIMARY KEY(path, offset)) WITHOUT ROWID;
CREATE INDEX extents_by_hash ON extents(hash);
"""
_ROWS_PER_STATEMENT = 64
_MOUNTS = "mounts"
FILE, DIRECTORY, LINK = 1, 2, 3
RACY = 0
"""`ctime_ns` of a row whose file was changed so recently that its stat proves nothing yet."""


class Stat(msgspec.Struct, frozen=True, gc=False):
    """What a stat says of a file, directory or link. Of directories only kind and mode count."""

    kind: int
    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class Row(msgspec.Struct, frozen=True, gc=False):
    """A name on disk in step with version (operation, entry) of the path `logical`.

    `operation` is empty for a directory that exists only because something lives in it, and for a
    torn file. `logical` differs from `path` for a conflict copy.
    """

    path: bytes
    logical: bytes
    kind: int
    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    identity: bytes
    operation: bytes
    entry: int

    @property
    def version(self) -> VersionId | None:
        """The version this name shows."""
        return (self.operation, self.entry) if self.operation else None


class Placing(msgspec.Struct, frozen=True, gc=False):
    """A file on its way to `path`."""

    path: bytes
    identity: bytes
    mtime_ns: int


def row_of(
    path: bytes, stat: Stat, identity: bytes, version: VersionId | None, logical: bytes = b""
) -> Row:
    """The row of `path` as `stat` found it."""
    operation, entry = version or (b"", 0)
    return Row(
        path,
        logical or path,
        stat.kind,
        stat.mode,
        stat.size,
        stat.mtime_ns,
        stat.ctime_ns,
        stat.inode,
        identity,
        operation,
        entry,
    )


def _groups(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while group := list(islice(iterator, _ROWS_PER_STATEMENT)):
        yield group


class FolderIndex:
    """One connection, used by any thread, one at a time."""

    def __init__(self, path: Path) -> None:
        """Open or create; a file of another schema is started over. Raises OperationFault."""
        self._lock = threading.Lock()
        try:
            self._db = _connect(path)
        except apsw.Error as error:
            raise OperationFault(
                f"cannot open {path}: {error}; move it away and the folder is read once more",
                retryable=False,
            ) from error
        self._pack_ids: dict[bytes, int] = {}
        self._rows: dict[bytes, Row] | None = None
        self._below: dict[bytes, dict[bytes, Row]] | None = None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _insert(self, statement: str, columns: int, rows: Iterable[Sequence[Any]]) -> None:
        one = "(" + ",".join("?" * columns) + ")"
        for group in _groups(rows):
            values = ",".join([one] * len(group))
            self._db.execute(f"{statement} VALUES {values}", [v for row in group for v in row])

    def _delete(self, table: str, paths: Iterable[bytes]) -> None:
        for group in _groups(paths):
            marks = ",".join("?" * len(group))
            self._db.execute(f"DELETE FROM {table} WHERE path IN ({marks})", group)

    # --- meta ------------------------------------------------------------------------------------
    def meta(self, key: str) -> Any:
        """A remembered value, or None."""
        with self._lock:
            return self._db.execute("SELECT value FROM meta WHERE key=?", (key,)).get

    def set_meta(self, key: str, value: int | bytes | str) -> None:
        """Remember a value."""
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES(?,?)", (key, value))

    def mounts(self) -> dict[bytes, int] | None:
        """Directories that were another filesystem's than their parents, and its number; None
        when that is not known."""
        noted = self.meta(_MOUNTS)
        return msgspec.msgpack.decode(noted, type=dict[bytes, int]) if noted else None

    def set_mounts(self, mounts: dict[bytes, int] | None) -> None:
        """Remember which directories are another filesystem's."""
        self.set_meta(_MOUNTS, b"" if mounts is None else msgspec.msgpack.encode(mounts))

    # --- files -----------------------------------------------------------------------------------
    def rows(self) -> dict[bytes, Row]:
        """Every name on disk that is in step, by path: the index's own, which `update` changes."""
        with self._lock:
            if self._rows is None:
                found = self._db.execute("SELECT * FROM files")
                same: dict[bytes, bytes] = {}
                self._rows = {
                    v[0]: Row(*(*v[:9], same.setdefault(v[9], v[9]), v[10])) for v in found
                }
            return self._rows

    def below(self, directory: bytes) -> dict[bytes, Row]:
        """Names right in one directory, by path."""
        rows = self.rows()
        with self._lock:
            if self._below is None:
                self._below = {}
                for path, row in rows.items():
                    self._below.setdefault(parent_of(path), {})[path] = row
            return dict(self._below.get(directory, ()))

    def _remember(self, rows: list[Row], gone: list[bytes]) -> None:
        """What `update` wrote, for `rows` and `below`."""
        if self._rows is None:
            return
        for path in gone:
            self._rows.pop(path, None)
            if self._below is not None:
                self._below.get(parent_of(path), {}).pop(path, None)
        for row in rows:
            self._rows[row.path] = row
            if self._below is not None:
                self._below.setdefault(parent_of(row.path), {})[row.path] = row

    def update(self, rows: Iterable[Row] = (), gone: Iterable[bytes] = ()) -> None:
        """Write rows and drop others, in one transaction; what is written is placed."""
        rows, gone = list(rows), list(gone)
        with self._lock:
            with self._db:
                self._delete("files", gone)
                self._delete("extents", gone)
                self._insert(
                    "INSERT OR REPLACE INTO files", 11, (msgspec.structs.astuple(r) for r in rows)
                )
                self._delete("placing", (row.path for row in rows))
            self._remember(rows, gone)

    # --- placing ---------------------------------------------------------------------------------
    def set_placing(self, placing: Iterable[Placing]) -> None:
        """Note, durably, what is about to be put in place; forgets earlier notes."""
        with self._lock:
            self._db.execute("PRAGMA synchronous=FULL")
            try:
                with self._db:
                    self._db.execute("DELETE FROM placing")
                    self._insert(
                        "INSERT OR REPLACE INTO placing",
                        3,
                        (msgspec.structs.astuple(p) for p in placing),
                    )
            finally:
                self._db.execute("PRAGMA synchronous=NORMAL")

    def placing(self) -> dict[bytes, Placing]:
        """What an interrupted apply was about to put in place, by path."""
        with self._lock:
            found = self._db.execute("SELECT * FROM placing")
            return {values[0]: Placing(*values) for values in found}

    # --- chunks ----------------------------------------------------------------------------------
    def has_chunks(self) -> bool:
        """Whether looking chunks up can find any."""
        with self._lock:
            return self._db.execute("SELECT 1 FROM chunks LIMIT 1").get is not None

    def chunks(self, hashes: Sequence[bytes]) -> dict[bytes, Piece]:
        """Those of `hashes` that are stored already, and where."""
        found: dict[bytes, Piece] = {}
        with self._lock:
            for group in _groups(hashes):
                marks = ",".join("?" * len(group))
                for digest, blob, offset, stored, plain, codec in self._db.execute(
                    "SELECT hash, blob, offset, stored, plain, codec FROM chunks "
                    f"JOIN packs ON packs.id = chunks.pack WHERE hash IN ({marks})",
                    group,
                ):
                    found[digest] = Piece(blob, offset, stored, plain, codec, digest)
        return found

    def add_chunks(self, pieces: Iterable[Piece]) -> None:
        """Remember where chunks lie: sealed by this device, or verified by it."""
        try:
            with self._lock, self._db:
                self._insert(
                    "INSERT OR IGNORE INTO chunks",
                    6,
                    (
                        (p.hash, self._pack_id(p.pack), p.offset, p.stored, p.plain, p.codec)
                        for p in pieces
                    ),
                )
        except BaseException:
            self._pack_ids.clear()  # some of them were rolled back
            raise

    def _pack_id(self, blob: bytes) -> int:
        known = self._pack_ids.get(blob)
        if known is None:
            known = self._db.execute("SELECT id FROM packs WHERE blob=?", (blob,)).get
            if known is None:
                self._db.execute("INSERT INTO packs(blob) VALUES(?)", (blob,))
                known = self._db.last_insert_rowid()
            if len(self._pack_ids) > 10_000:
                self._pack_ids.clear()
            self._pack_ids[blob] = known
        assert isinstance(known, int)
        return known

    # --- extents ---------------------------------------------------------------------------------
    def clear_extents(self, path: bytes) -> None:
        """Forget the chunks of a file."""
        with self._lock:
            self._db.execute("DELETE FROM extents WHERE path=?", (path,))

    def add_extents(self, extents: Iterable[tuple[bytes, int, bytes, int]]) -> None:
        """Remember (path, offset, hash, plain) of chunks of a large file on this disk."""
        with self._lock, self._db:
            self._insert("INSERT OR REPLACE INTO extents", 4, extents)

    def move_extents(self, staged: bytes, path: bytes) -> None:
        """The file put together at `staged` is at `path` now."""
        with self._lock, self._db:
            self._db.execute("DELETE FROM extents WHERE path=?", (path,))
            self._db.execute("UPDATE extents SET path=? WHERE path=?", (path, staged))

    def copy_extents(self, path: bytes, staged: bytes) -> None:
        """The file put together at `staged` has the content of `path`."""
        with self._lock:
            self._db.execute(
                "INSERT OR REPLACE INTO extents "
                "SELECT ?, offset, hash, plain FROM extents WHERE path=?",
                (staged, path),
            )

    def forget_staged(self) -> None:
        """Nothing is under construction: drop extents of earlier tries."""
        low, high = STAGING_NAME + b"/", STAGING_NAME + b"0"
        with self._lock:
            self._db.execute("DELETE FROM extents WHERE path >= ? AND path < ?", (low, high))

    def has_extents(self) -> bool:
        """Whether looking extents up can find any."""
        with self._lock:
            return self._db.execute("SELECT 1 FROM extents LIMIT 1").get is not None

    def extents(self, hashes: Sequence[bytes]) -> dict[bytes, tuple[bytes, int]]:
        """(path, offset) where each of `hashes` may be found on this disk."""
        found: dict[bytes, tuple[bytes, int]] = {}
        with self._lock:
            for group in _groups(hashes):
                marks = ",".join("?" * len(group))
                for digest, path, offset in self._db.execute(
                    f"SELECT hash, path, offset FROM extents WHERE hash IN ({marks})", group
                ):
                    found[digest] = (path, offset)
        return found


def _connect(path: Path) -> apsw.Connection:
    db = apsw.Connection(str(path))
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    version = db.execute("PRAGMA user_version").get
    if version != SCHEMA_VERSION:
        with db:
            tables = db.execute("SELECT name FROM sqlite_schema WHERE type='table'").fetchall()
            for (name,) in tables:
                db.execute(f'DROP TABLE "{name}"')
            db.execute(_SCHEMA)
            db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    return db
