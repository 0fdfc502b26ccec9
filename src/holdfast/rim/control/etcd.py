"""The control store on etcd (D26): its transactions, watches and leases under our interface.

Theory of operation. Keys are etcd's keys and the store has its etcd to itself, so revisions are
etcd's, less one. Reads are linearizable: a member that is cut off answers nobody. A watch asks for
one revision more than it wants, because etcd replays a compacted revision with its deletions
missing where we promise `Compacted`; what was not asked for is dropped. A watch that hears nothing
for a while, or whose member has no leader, is opened anew at the next member from where it stood.

Leases are etcd's own, counted by etcd in real seconds: `ttl_s` is divided by the Clock's scale and
rounded up, so that a lease may end late and never early.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from holdfast.errors import OperationFault, UsageError
from holdfast.limits.control import TXN_BYTES_MAX, WATCH_IDLE_REAL_S
from holdfast.rim.clock import Clock
from holdfast.rim.control import etcd_wire as wire
from holdfast.rim.control.etcd_access import EtcdAccess
from holdfast.rim.control.etcd_gateway import EtcdSays, Gateway
from holdfast.rim.control.store import (
    Batch,
    Compacted,
    Compare,
    Get,
    KeyValue,
    LeaseGone,
    Operation,
    Put,
    RangeReply,
    TxnReply,
    check_key,
    check_txn,
)

T = TypeVar("T")


class EtcdStore:
    """A `ControlStore` over the members of one etcd; `open` it inside the loop that will use it."""

    def __init__(self, gateway: Gateway, clock: Clock) -> None:
        self._gateway = gateway
        self._clock = clock
        self._closed = False
        self._hearing: set[asyncio.Future[Any]] = set()

    @classmethod
    async def open(cls, access: EtcdAccess, base: Path, clock: Clock) -> EtcdStore:
        """Connect. Raises UsageError for certificates that will not do, OperationFault when no
        member answers."""
        store = cls(Gateway(access, base, clock), clock)
        try:
            await store.revision()
        except BaseException:
            await store.close()
            raise
        return store

    async def _call(self, path: str, body: Any, reply: type[T], *, again: bool = True) -> T:
        if self._closed:
            raise OperationFault("the control store is closed", retryable=False)
        return await self._gateway.call(path, body, reply, again=again)

    async def get(self, key: str) -> KeyValue | None:
        check_key(key)
        found: wire.Range = await self._call("/v3/kv/range", {"key": wire.text(key)}, wire.Range)
        return wire.key_value(found.kvs[0]) if found.kvs else None

    async def range(self, prefix: str, limit: int = 0, after: str = "") -> RangeReply:
        check_key(prefix)
        body = {**wire.span(prefix, after), "limit": str(limit), "sort_target": "KEY"}
        found: wire.Range = await self._call("/v3/kv/range", body, wire.Range)
        items = tuple(map(wire.key_value, found.kvs))
        return RangeReply(items, wire.ours(found.header.revision), found.more)

    async def txn(
        self,
        compares: Sequence[Compare],
        success: Sequence[Operation],
        failure: Sequence[Operation] = (),
    ) -> TxnReply:
        check_txn(compares, success, failure)
        _check_size(compares, success, failure)
        reads_only = all(isinstance(item, Get) for item in (*success, *failure))
        try:
            reply: wire.Txn = await self._call(
                "/v3/kv/txn",
                wire.txn_body(compares, success, failure),
                wire.Txn,
                again=reads_only,
            )
        except EtcdSays as says:
            if says.not_found:
                raise LeaseGone(_lease_of(success, failure)) from says
            raise
        return wire.txn_reply(reply, success if reply.succeeded else failure)

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[Batch]:
        check_key(prefix)
        revision = max(1, from_revision)
        while not self._closed:
            create = {
                **wire.span(prefix),
                "start_revision": str(wire.theirs(revision) - 1),
            }
            try:
                async with self._gateway.watch({"create_request": create}) as messages:
                    while (message := await self._hear(messages)) is not None:
                        if message.compact_revision:
                            raise Compacted(wire.ours(message.compact_revision))
                        if message.canceled:
                            break
                        for batch in wire.batches(message):
                            if batch.revision >= revision:
                                revision = batch.revision + 1
                                yield batch
            except OperationFault:
                if self._ended():
                    return
                raise
            self._gateway.move_on()

    def _ended(self) -> bool:
        return self._closed

    async def _hear(self, messages: AsyncIterator[wire.Watched]) -> wire.Watched | None:
        """The next message; None after a silence, at the end of the stream and of the store."""
        heard: asyncio.Future[wire.Watched | None] = asyncio.ensure_future(_next(messages))
        self._hearing.add(heard)
        try:
            async with self._clock.real_timeout(WATCH_IDLE_REAL_S):
                return await heard
        except TimeoutError:
            return None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                return None  # it was `close` that cancelled, and only the hearing
            raise
        finally:
            self._hearing.discard(heard)

    async def grant(self, ttl_s: float) -> int:
        if not ttl_s > 0:
            raise UsageError("a lease needs a time to live above zero")
        body = {"TTL": str(math.ceil(ttl_s / self._clock.scale))}
        granted: wire.Grant = await self._call("/v3/lease/grant", body, wire.Grant)
        return granted.ID

    async def keep_alive(self, lease: int) -> None:
        line: wire.KeepAliveLine = await self._call(
            "/v3/lease/keepalive", {"ID": str(lease)}, wire.KeepAliveLine
        )
        if line.result.TTL <= 0:
            raise LeaseGone(lease)

    async def revoke(self, lease: int) -> None:
        try:
            await self._call("/v3/lease/revoke", {"ID": str(lease)}, dict)
        except EtcdSays as says:
            if not says.not_found:
                raise

    async def compact(self, revision: int) -> None:
        body = {"revision": str(wire.theirs(revision)), "physical": False}
        try:
            await self._call("/v3/kv/compaction", body, dict)
        except EtcdSays as says:
            if not says.out_of_range:
                raise
            if "future" in says.text:
                raise UsageError(f"revision {revision} has not happened yet") from says

    async def revision(self) -> int:
        body = {"key": wire.text("/"), "count_only": True}
        found: wire.Range = await self._call("/v3/kv/range", body, wire.Range)
        return wire.ours(found.header.revision)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for heard in list(self._hearing):
            heard.cancel()
        await asyncio.sleep(0)
        await self._gateway.close()


async def _next(messages: AsyncIterator[wire.Watched]) -> wire.Watched | None:
    return await anext(messages, None)


def _lease_of(*branches: Sequence[Operation]) -> int:
    leases = [op.lease for branch in branches for op in branch if isinstance(op, Put) and op.lease]
    return leases[0] if leases else 0


def _check_size(compares: Sequence[Compare], *branches: Sequence[Operation]) -> None:
    """Raises UsageError for what etcd would refuse as too large."""
    size = sum(len(item.operand) for item in compares if isinstance(item.operand, bytes))
    size += sum(len(op.value) for branch in branches for op in branch if isinstance(op, Put))
    if size > TXN_BYTES_MAX:
        raise UsageError(f"transaction of {size} bytes, limit {TXN_BYTES_MAX}; cut it up")
