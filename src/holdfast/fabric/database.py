"""One SQLite file beside its blobs: what a client must still know after kill -9.

WAL mode. Two strengths of commit: `durable` returns after an fsync (a blob put into the outbox,
an invite burned), `commit` after the write (a receipt, a cursor: lost with the power, learned
again from the servers). Neither loses anything to kill -9. Calls are safe from any thread, one at
a time; what may sync belongs in `asyncio.to_thread`. The sync of a durable commit is ours, of the
WAL file and after the lock is free: the event loop, which commits receipts, never waits for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import apsw

from holdfast.errors import OperationFault

Row = tuple[Any, ...]
BUSY_MS: Final = 10_000
"""Another process of this person (a status command) may hold the file for a moment."""


class DiskFault(OperationFault):
    """This device's own disk failed; no server is to blame."""


class Database:
    """A connection and its lock. Raises DiskFault when the disk does not play along."""

    def __init__(self, path: Path | None, schema: str, *, read_only: bool = False) -> None:
        """`path` None: in memory, for what need not outlive the process."""
        self._lock = threading.RLock()
        self._path = path or Path("memory")
        self._wal = -1
        flags = (
            apsw.SQLITE_OPEN_READONLY
            if read_only
            else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        )
        with self._translated():
            self._connection = apsw.Connection(str(path or ":memory:"), flags=flags)
            self._connection.set_busy_timeout(BUSY_MS)
            if path is not None and not read_only:
                path.chmod(0o600)
                self._connection.execute("pragma journal_mode = wal")
                self._connection.execute("pragma synchronous = normal")
            if not read_only:
                self._connection.execute(schema)
            if path is not None and not read_only:
                self._wal = _open_wal(path)

    @contextmanager
    def durable(self) -> Iterator[None]:
        """A transaction that is on the disk when the block ends; within another one, part of it."""
        with self._lock:
            is_part = self._connection.in_transaction
        with self.commit():
            yield
        if not is_part and self._wal >= 0:
            try:
                os.fdatasync(self._wal)
            except OSError as error:
                raise DiskFault(f"cannot sync {self._path}: {error.strerror}") from error

    @contextmanager
    def commit(self) -> Iterator[None]:
        """A transaction that survives this process when the block ends."""
        with self._transaction():
            yield

    def run(self, sql: str, values: Row = ()) -> list[Row]:
        """All rows of one statement."""
        with self._lock, self._translated():
            return self._connection.execute(sql, values).fetchall()

    def one(self, sql: str, values: Row = ()) -> Row | None:
        """The first row of one statement."""
        rows = self.run(sql, values)
        return rows[0] if rows else None

    def many(self, sql: str, rows: list[Row]) -> None:
        """One statement for each of `rows`."""
        with self._lock, self._translated():
            self._connection.executemany(sql, rows)

    @property
    def changes(self) -> int:
        """Rows changed by the last statement."""
        return self._connection.changes()

    def close(self) -> None:
        """Close the file; another call is harmless."""
        with self._lock, self._translated():
            self._connection.close()
            wal, self._wal = self._wal, -1
            if wal >= 0:
                os.close(wal)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            with self._translated():
                self._connection.execute("begin immediate")
            try:
                yield
            except BaseException:
                with self._translated():
                    self._connection.execute("rollback")
                raise
            with self._translated():
                self._connection.execute("commit")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except apsw.ConstraintError as error:
            raise AssertionError(f"{self._path.name}: {error}") from error
        except (apsw.FullError, apsw.ReadOnlyError) as error:
            raise DiskFault(f"cannot write {self._path}: {error}; free some space") from error
        except (apsw.CorruptError, apsw.NotADBError) as error:
            raise DiskFault(
                f"{self._path} is damaged: {error}; restore this device from its words",
                retryable=False,
            ) from error
        except (apsw.BusyError, apsw.IOError, apsw.CantOpenError) as error:
            raise DiskFault(f"cannot use {self._path}: {error}") from error


def _open_wal(path: Path) -> int:
    """The WAL beside a database that is open (and so keeps it), its name durable. SQLite takes no
    locks on this file, so a second descriptor disturbs none."""
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        wal = os.open(f"{path.name}-wal", os.O_RDWR | os.O_CLOEXEC, dir_fd=directory)
        os.fsync(directory)
    finally:
        os.close(directory)
    return wal
