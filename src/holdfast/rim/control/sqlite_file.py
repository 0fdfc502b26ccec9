"""The blocking half of the SQLite store: tables and transactions, one connection, one thread."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from holdfast.errors import UsageError
from holdfast.rim.control.store import (
    Batch,
    Compacted,
    Compare,
    Delete,
    Event,
    Field,
    Get,
    KeyValue,
    LeaseGone,
    Operation,
    Put,
    RangeReply,
    Relation,
    TxnReply,
)

BUSY_MS: Final = 10_000
"""How long one process waits for another's transaction."""
_WATCH_EVENTS: Final = 500
"""About how many events one turn of a watch reads; a revision is never cut in two."""
_PREFIX_END: Final = "\x7f"
"""Sorts after every character a key may hold."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (revision INTEGER NOT NULL, compacted INTEGER NOT NULL);
INSERT INTO meta SELECT 0, 0 WHERE NOT EXISTS (SELECT 1 FROM meta);
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY, revision INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
    create_revision INTEGER NOT NULL, version INTEGER NOT NULL, lease INTEGER NOT NULL,
    deleted INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS event_revision ON event (revision);
CREATE TABLE IF NOT EXISTS head (
    key TEXT PRIMARY KEY, id INTEGER NOT NULL, lease INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS head_lease ON head (lease) WHERE lease != 0;
CREATE TABLE IF NOT EXISTS lease (
    id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_s REAL NOT NULL, renewal INTEGER NOT NULL);
"""
_COLUMNS: Final = "e.key, e.value, e.create_revision, e.revision, e.version, e.lease, e.deleted"
_SELECT_HEAD: Final = f"SELECT {_COLUMNS} FROM head h JOIN event e ON e.id = h.id"


class Database:
    """Every method runs on the store's one thread and may raise apsw.Error."""

    def __init__(self, path: Path | None, history_revisions: int) -> None:
        self._history = history_revisions
        if path is not None:
            path.touch(mode=0o600)
        self._db = apsw.Connection(":memory:" if path is None else str(path))
        self._db.set_busy_timeout(BUSY_MS)
        self._db.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
        with self._writing():
            self._db.execute(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if not self._db.get_autocommit():
                self._db.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """One snapshot for several statements."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("COMMIT")

    def _value(self, sql: str, *bindings: Any) -> Any:
        row = self._db.execute(sql, bindings).fetchone()
        return None if row is None else row[0]

    def revision(self) -> int:
        return int(self._value("SELECT revision FROM meta"))

    def data_version(self) -> int:
        return int(self._value("PRAGMA data_version"))

    def get(self, key: str) -> KeyValue | None:
        row = self._db.execute(f"{_SELECT_HEAD} WHERE h.key = ?", (key,)).fetchone()
        return None if row is None else _event(row).kv

    def range(self, prefix: str, limit: int, after: str) -> RangeReply:
        sql = f"{_SELECT_HEAD} WHERE h.key >= ? AND h.key < ? AND h.key > ? ORDER BY h.key LIMIT ?"
        with self._reading():
            bindings = (prefix, prefix + _PREFIX_END, after, limit + 1 if limit else -1)
            rows = self._db.execute(sql, bindings).fetchall()
            revision = self.revision()
        more = bool(limit) and len(rows) > limit
        items = tuple(_event(row).kv for row in (rows[:limit] if limit else rows))
        return RangeReply(items, revision, more)

    def txn(
        self,
        compares: Sequence[Compare],
        success: Sequence[Operation],
        failure: Sequence[Operation],
    ) -> TxnReply:
        with self._writing():
            succeeded = all(_holds(compare, self.get(compare.key)) for compare in compares)
            revision, reads = self._apply(success if succeeded else failure)
            return TxnReply(succeeded, revision, tuple(reads))

    def _apply(self, operations: Sequence[Operation]) -> tuple[int, list[KeyValue | None]]:
        """Append events under the next revision; the revision stands still if nothing changed."""
        before = self.revision()
        changed = False
        reads: list[KeyValue | None] = []
        for operation in operations:
            current = self.get(operation.key)
            if isinstance(operation, Get):
                reads.append(current)
            elif isinstance(operation, Put):
                self._put(operation, current, before + 1)
                changed = True
            elif current is not None:
                self._delete(current, before + 1)
                changed = True
        if not changed:
            return before, reads
        self._db.execute("UPDATE meta SET revision = ?", (before + 1,))
        if (before + 1) % max(1, self._history // 10) == 0:
            self._forget(before + 1 - self._history)
        return before + 1, reads

    def _put(self, put: Put, current: KeyValue | None, revision: int) -> None:
        if put.lease and self._value("SELECT 1 FROM lease WHERE id = ?", put.lease) is None:
            raise LeaseGone(put.lease)
        created = current.create_revision if current else revision
        version = current.version + 1 if current else 1
        self._append(KeyValue(put.key, put.value, created, revision, version, put.lease), False)

    def _delete(self, current: KeyValue, revision: int) -> None:
        self._append(KeyValue(current.key, b"", current.create_revision, revision, 0), True)

    def _append(self, kv: KeyValue, deleted: bool) -> None:
        self._db.execute(
            "INSERT INTO event (key, value, create_revision, revision, version, lease, deleted) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease, deleted),
        )
        if deleted:
            self._db.execute("DELETE FROM head WHERE key = ?", (kv.key,))
        else:
            self._db.execute(
                "INSERT OR REPLACE INTO head VALUES (?, ?, ?)",
                (kv.key, self._db.last_insert_rowid(), kv.lease),
            )

    def events(self, prefix: str, from_revision: int) -> tuple[list[Batch], int]:
        """Whole batches from `from_revision` on, and the revision to ask from next time."""
        where = "FROM event e WHERE e.revision >= ? AND e.key >= ? AND e.key < ?"
        bindings = (from_revision, prefix, prefix + _PREFIX_END)
        order = "ORDER BY e.revision, e.id"
        with self._reading():
            compacted = int(self._value("SELECT compacted FROM meta"))
            if from_revision <= compacted:
                raise Compacted(compacted)
            cut = self._value(
                f"SELECT e.revision {where} {order} LIMIT 1 OFFSET {_WATCH_EVENTS}", *bindings
            )
            through = max(self.revision(), from_revision - 1) if cut is None else int(cut)
            rows = self._db.execute(
                f"SELECT {_COLUMNS} {where} AND e.revision <= ? {order}", (*bindings, through)
            ).fetchall()
        batches: dict[int, list[Event]] = {}
        for row in rows:
            event = _event(row)
            batches.setdefault(event.kv.mod_revision, []).append(event)
        return [Batch(revision, tuple(found)) for revision, found in batches.items()], through + 1

    def begin_at(self, revision: int) -> None:
        """Count on from `revision`, in a file nothing was ever written to."""
        with self._writing():
            if self.revision():
                raise UsageError("only an empty store can begin at a revision")
            self._db.execute("UPDATE meta SET revision = ?, compacted = ?", (revision, revision))

    def compact(self, revision: int) -> None:
        with self._writing():
            if revision > self.revision():
                raise UsageError(f"revision {revision} has not happened yet")
            self._forget(revision)

    def _forget(self, revision: int) -> None:
        if revision <= int(self._value("SELECT compacted FROM meta")):
            return
        self._db.execute(
            "DELETE FROM event WHERE revision <= ? AND id NOT IN (SELECT id FROM head)", (revision,)
        )
        self._db.execute("UPDATE meta SET compacted = ?", (revision,))

    def grant(self, ttl_s: float) -> int:
        with self._writing():
            self._db.execute("INSERT INTO lease (ttl_s, renewal) VALUES (?, 0)", (ttl_s,))
            return self._db.last_insert_rowid()

    def keep_alive(self, lease: int) -> int:
        """The new renewal count."""
        with self._writing():
            self._db.execute("UPDATE lease SET renewal = renewal + 1 WHERE id = ?", (lease,))
            if self._db.changes() == 0:
                raise LeaseGone(lease)
            return int(self._value("SELECT renewal FROM lease WHERE id = ?", lease))

    def leases(self) -> list[tuple[int, float, int]]:
        """(lease, time to live, renewals) of every living lease."""
        rows: list[Any] = self._db.execute("SELECT id, ttl_s, renewal FROM lease").fetchall()
        return [(int(lease), float(ttl_s), int(renewal)) for lease, ttl_s, renewal in rows]

    def end_lease(self, lease: int, renewal: int | None) -> bool:
        """Delete the lease and its keys, unless it was renewed since it stood at `renewal`."""
        with self._writing():
            now = self._value("SELECT renewal FROM lease WHERE id = ?", lease)
            if now is None or (renewal is not None and now != renewal):
                return False
            rows = self._db.execute("SELECT key FROM head WHERE lease = ?", (lease,)).fetchall()
            self._apply([Delete(str(key)) for (key,) in rows])
            self._db.execute("DELETE FROM lease WHERE id = ?", (lease,))
            return True


def _event(row: Sequence[Any]) -> Event:
    key, value, created, revision, version, lease, deleted = row
    return Event(KeyValue(key, value, created, revision, version, lease), bool(deleted))


def _holds(compare: Compare, kv: KeyValue | None) -> bool:
    if compare.field is Field.VALUE and kv is None:
        return False
    actual: Any = getattr(kv, compare.field.value) if kv else 0
    match compare.relation:
        case Relation.EQUAL:
            return bool(actual == compare.operand)
        case Relation.NOT_EQUAL:
            return bool(actual != compare.operand)
        case Relation.LESS:
            return bool(actual < compare.operand)
        case Relation.GREATER:
            return bool(actual > compare.operand)
