"""The control store in one SQLite file (D26): WAL, synchronous=FULL, one thread per process.

Theory of operation. `event` is the log: one row for each change of a key, numbered by revision and
position in it. `head` points from each living key to its newest row. A transaction is one
`BEGIN IMMEDIATE`, so several processes may share the file and still see one order; it appends rows
under the next revision and moves heads. Compaction deletes rows that no head points at.

Watches read `event` from where they stand. They are woken by commits of this process at once, and
by those of others when `PRAGMA data_version` changes, asked every `POLL_S` real seconds.

Leases are counted without a shared clock: a row holds the time to live and a renewal counter, and
every process measures on its own Clock how long it has seen the counter stand still (the way
Kubernetes elects leaders). So a stepped wall clock ends no lease, and a process that has just
opened the file waits a full time to live before it calls anyone dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw

from holdfast.errors import OperationFault, UsageError
from holdfast.rim.clock import Clock
from holdfast.rim.control.sqlite_file import Database
from holdfast.rim.control.store import (
    Batch,
    Compare,
    KeyValue,
    Operation,
    RangeReply,
    TxnReply,
    check_key,
    check_txn,
)

T = TypeVar("T")
POLL_S: Final = 0.05
"""Real seconds between looks for other processes' commits and for leases that ran out."""
HISTORY_REVISIONS: Final = 10_000
"""Revisions kept for watchers that fall behind; about ten minutes of a busy HQ."""


class SqliteStore:
    """A `ControlStore` in one file; `open` it inside the loop that will use it."""

    def __init__(self, database: Database, thread: ThreadPoolExecutor, clock: Clock) -> None:
        self._database = database
        self._thread = thread
        self._clock = clock
        self._closed = False
        self._changed = asyncio.Event()
        self._seen: dict[int, tuple[int, float]] = {}
        self._poller = asyncio.create_task(self._poll())

    @classmethod
    async def open(
        cls, path: Path | None, clock: Clock, *, history_revisions: int = HISTORY_REVISIONS
    ) -> SqliteStore:
        """Open or create the file, private to its owner; None is a store in memory, for tests."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="control-store")
        loop = asyncio.get_running_loop()
        try:
            database = await loop.run_in_executor(thread, Database, path, history_revisions)
        except (apsw.Error, OSError) as error:
            thread.shutdown(wait=False)
            raise OperationFault(f"cannot open control store {path}: {error}") from error
        return cls(database, thread, clock)

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        """`work` on the store's thread; SQLite's errors become ours here and nowhere else."""
        if self._closed:
            raise OperationFault("the control store is closed", retryable=False)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, work, *arguments)
        except apsw.Error as error:
            raise OperationFault(f"control store: {error}") from error

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def get(self, key: str) -> KeyValue | None:
        check_key(key)
        return await self._run(self._database.get, key)

    async def range(self, prefix: str, limit: int = 0, after: str = "") -> RangeReply:
        check_key(prefix)
        return await self._run(self._database.range, prefix, limit, after)

    async def txn(
        self,
        compares: Sequence[Compare],
        success: Sequence[Operation],
        failure: Sequence[Operation] = (),
    ) -> TxnReply:
        check_txn(compares, success, failure)
        try:
            return await self._run(self._database.txn, compares, success, failure)
        finally:
            self._wake()

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[Batch]:
        check_key(prefix)
        while not self._closed:
            changed = self._changed  # before the read, so that no commit falls between
            batches, from_revision = await self._run(self._database.events, prefix, from_revision)
            for batch in batches:
                yield batch
            if not batches:
                await changed.wait()

    async def grant(self, ttl_s: float) -> int:
        if not ttl_s > 0:
            raise UsageError("a lease needs a time to live above zero")
        lease = await self._run(self._database.grant, ttl_s)
        self._seen[lease] = (0, self._clock.elapsed())
        return lease

    async def keep_alive(self, lease: int) -> None:
        renewal = await self._run(self._database.keep_alive, lease)
        self._seen[lease] = (renewal, self._clock.elapsed())

    async def revoke(self, lease: int) -> None:
        if await self._run(self._database.end_lease, lease, None):
            self._wake()

    async def compact(self, revision: int) -> None:
        await self._run(self._database.compact, revision)

    async def begin_at(self, revision: int) -> None:
        """Count on from `revision`: for the first rows of a restored store. Raises UsageError."""
        await self._run(self._database.begin_at, revision)

    async def revision(self) -> int:
        return await self._run(self._database.revision)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._poller.cancel()
        await asyncio.gather(self._poller, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
        self._thread.shutdown()
        self._wake()

    async def _poll(self) -> None:
        """Notice what other processes committed, and end leases that stood still too long."""
        version = -1
        while True:
            try:
                newest = await self._run(self._database.data_version)
                if newest != version:
                    version = newest
                    self._wake()
                await self._expire()
            except OperationFault:
                pass  # a full or slow disk: whoever calls next is told; leases end late, not early
            await asyncio.sleep(POLL_S)

    async def _expire(self) -> None:
        leases = await self._run(self._database.leases)
        now = self._clock.elapsed()
        for lease, ttl_s, renewal in leases:
            known, since = self._seen.setdefault(lease, (renewal, now))
            if renewal != known:
                self._seen[lease] = (renewal, now)
            elif now - since >= ttl_s and await self._run(self._database.end_lease, lease, renewal):
                self._wake()
        living = {lease for lease, _, _ in leases}
        for lease in [lease for lease in self._seen if lease not in living]:
            del self._seen[lease]
