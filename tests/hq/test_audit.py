"""The audit log in the control store: one chain whoever writes, and tampering shows."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.errors import OperationFault
from holdfast.hq.audit import AuditAnchor, AuditLog, audit_rows, verify_audit
from holdfast.hq.transparency import TransparencyLog
from holdfast.logic.audit import AUDIT_HEAD, Head, audit_key, export_line
from holdfast.logic.effects import Audit
from holdfast.rim.clock import ManualClock, SystemClock
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.control.store import Delete, Put


def test_two_headquarters_write_one_chain() -> None:
    async def main() -> None:
        store = await SqliteStore.open(None, SystemClock())
        clock = ManualClock()
        left = AuditLog(store, clock, "hq-a", lambda: 1)
        right = AuditLog(store, clock, "hq-b", lambda: 2)
        await asyncio.gather(
            *(
                log([Audit("x", str(n)), Audit("y", str(n))])
                for n in range(20)
                for log in (left, right)
            )
        )
        await left([Audit("many", str(n)) for n in range(250)])
        head, breaks = await verify_audit(store)
        assert (head.sequence, breaks) == (330, [])
        rows = [export_line(row) async for row in audit_rows(store)]
        assert {(row.author, row.term) for row in rows} == {("hq-a", 1), ("hq-b", 2)}
        for first, second in zip(rows[:80:2], rows[1:80:2], strict=True):
            assert (first.verb, second.verb, first.subject) == ("x", "y", second.subject)
        assert [row.sequence for row in rows] == list(range(1, 331))
        assert len([row async for row in audit_rows(store, after=325)]) == 5
        await store.close()

    asyncio.run(main())


def test_tampering_with_the_store_is_found() -> None:
    async def main() -> None:
        store = await SqliteStore.open(None, SystemClock())
        log = AuditLog(store, ManualClock(), "hq", lambda: 1)
        await log([Audit("spoke", str(n)) for n in range(5)])
        honest, _ = await verify_audit(store)
        kv = await store.get(audit_key(3))
        assert kv is not None
        await store.txn([], [Put(kv.key, kv.value.replace(b"spoke", b"broke"))])
        _, breaks = await verify_audit(store)
        assert [b.sequence for b in breaks] == [4]
        await store.txn([], [Put(kv.key, kv.value), Delete(audit_key(5))])
        _, breaks = await verify_audit(store)
        assert [b.sequence for b in breaks] == [5]
        await store.txn([], [Delete(AUDIT_HEAD), *(Delete(audit_key(n)) for n in range(1, 6))])
        assert (await verify_audit(store)) == (Head(), [])
        _, breaks = await verify_audit(store, [honest])
        assert [b.sequence for b in breaks] == [5]
        await store.close()

    asyncio.run(main())


def test_a_lost_head_stops_the_log_and_says_so() -> None:
    async def main() -> None:
        store = await SqliteStore.open(None, SystemClock())
        log = AuditLog(store, ManualClock(), "hq", lambda: 1)
        await log.line("verb", "subject", why="because")
        await store.txn([], [Delete(AUDIT_HEAD)])
        with pytest.raises(OperationFault, match="audit verify"):
            await log.line("verb", "subject")
        await store.close()

    asyncio.run(main())


def test_a_cut_chain_contradicts_the_log_that_witnesses_saw() -> None:
    """Issue 4 §6: who cuts the chain's end and mends its head still has the log against him."""

    async def main() -> None:
        store = await SqliteStore.open(None, SystemClock())
        log = AuditLog(store, ManualClock(), "hq", lambda: 1)
        public = TransparencyLog(store)
        await public.open()
        anchor = AuditAnchor(store, public, ManualClock())
        await anchor.round()
        assert len(public.tree) == 0, "an empty chain has nothing to vouch for"
        await log([Audit("spoke", str(n)) for n in range(3)])
        shorter = await store.get(AUDIT_HEAD)
        await log([Audit("spoke", str(n)) for n in range(2)])
        for _ in range(2):
            await anchor.round()
        assert len(public.tree) == 1, "each head once"
        head, breaks = await verify_audit(store)
        assert (head.sequence, breaks) == (5, [])
        assert shorter is not None
        cut = [Delete(audit_key(4)), Delete(audit_key(5)), Put(AUDIT_HEAD, shorter.value)]
        await store.txn([], cut)
        _, breaks = await verify_audit(store)
        assert [item.sequence for item in breaks] == [5]
        await store.txn([], [Delete("/log/0000000000000000")])
        assert (await verify_audit(store))[1] == [], "control: without the log it is not seen"
        await store.close()

    asyncio.run(main())
