"""The audit log's driver: chain rows in the control store, in order, whoever writes.

Appending compares the head, so two HQ processes on one store make one chain; the loser reads the
new head and tries again. `AuditLog` is the `AuditSink` the brain is given.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import msgspec

from holdfast.errors import OperationFault
from holdfast.hq.transparency import LOG, TransparencyLog
from holdfast.logic.audit import (
    AUDIT,
    AUDIT_HEAD,
    Break,
    Head,
    audit_key,
    check,
    extend,
    head_leaf,
    logged_heads,
)
from holdfast.logic.effects import Audit
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import ControlStore, KeyValue, Put, absent, unchanged

_LINES_PER_TXN: Final = 100
_PAGE: Final = 500
ANCHOR_REAL_S: Final = 60.0
"""A line of the audit log is witnessed a minute after it was written."""
_log = logging.getLogger("holdfast.hq.audit")


class AuditLog:
    """`author` names this HQ; `term` is asked anew for every append (0 for one that never led)."""

    def __init__(
        self, store: ControlStore, clock: Clock, author: str, term: Callable[[], int]
    ) -> None:
        self._store = store
        self._clock = clock
        self._author = author
        self._term = term
        self._turn = asyncio.Lock()

    async def __call__(self, lines: Sequence[Audit]) -> None:
        """Append `lines` in order; durable when it returns. Raises OperationFault."""
        async with self._turn:
            for start in range(0, len(lines), _LINES_PER_TXN):
                await self._append(lines[start : start + _LINES_PER_TXN])

    async def line(self, verb: str, subject: str, **detail: object) -> None:
        """Append one line."""
        await self([Audit(verb, subject, detail)])

    async def _append(self, lines: Sequence[Audit]) -> None:
        while True:
            kv = await self._store.get(AUDIT_HEAD)
            before = head_of(kv)
            rows, after = extend(
                before, lines, at=self._clock.wall(), term=self._term(), author=self._author
            )
            keys = [audit_key(before.sequence + 1 + index) for index in range(len(rows))]
            reply = await self._store.txn(
                [unchanged(AUDIT_HEAD, kv), *map(absent, keys)],
                [
                    Put(AUDIT_HEAD, msgspec.msgpack.encode(after)),
                    *(Put(key, row) for key, row in zip(keys, rows, strict=True)),
                ],
            )
            if reply.succeeded:
                return
            if await self._store.get(keys[0]) is not None and kv == await self._store.get(
                AUDIT_HEAD
            ):
                raise OperationFault(
                    f"audit row {keys[0]} exists beyond the head; run: holdfast hq audit verify",
                    retryable=False,
                )


async def audit_rows(store: ControlStore, after: int = 0) -> AsyncIterator[bytes]:
    """The stored rows after sequence `after`, in order."""
    last = audit_key(after) if after else ""
    more = True
    while more:
        page = await store.range(AUDIT, limit=_PAGE, after=last)
        for kv in page.items:
            yield kv.value
            last = kv.key
        more = page.more


async def verify_audit(
    store: ControlStore, remembered: Sequence[Head] = ()
) -> tuple[Head, list[Break]]:
    """Walk the whole chain as stored; it must contain the head HQ keeps, those in the transparency
    log and those `remembered`."""
    logged = await heads_of(store)
    rows = [row async for row in audit_rows(store)]
    return check(rows, (*logged, *remembered))


async def heads_of(store: ControlStore) -> list[Head]:
    """Heads that the chain must contain by now: those in the log, and the one that is kept. Ask
    before reading the rows: the chain grows meanwhile."""
    logged = logged_heads([leaf async for leaf in log_rows(store)])
    return [*logged, head_of(await store.get(AUDIT_HEAD))]


async def log_rows(store: ControlStore) -> AsyncIterator[bytes]:
    """The leaves of the transparency log, in order."""
    last, more = "", True
    while more:
        page = await store.range(LOG, limit=_PAGE, after=last)
        for kv in page.items:
            yield kv.value
            last = kv.key
        more = page.more


class AuditAnchor:
    """Puts the audit chain's head into the transparency log while it grows: who witnesses the one
    then vouches for the other. The leading process runs it."""

    def __init__(self, store: ControlStore, log: TransparencyLog, clock: Clock) -> None:
        self._store = store
        self._log = log
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._clock.sleep_real(ANCHOR_REAL_S)
            try:
                await self.round()
            except OperationFault as fault:
                _log.warning("the audit head waits to be logged: %s", fault)

    async def round(self) -> None:
        """Log the newest head, unless it is logged."""
        head = head_of(await self._store.get(AUDIT_HEAD))
        if head.sequence:
            self._log.note(head_leaf(head))
            await self._log.settle()


def head_of(kv: KeyValue | None) -> Head:
    """The head in the store's row; the empty chain's for none."""
    return msgspec.msgpack.decode(kv.value, type=Head) if kv else Head()
