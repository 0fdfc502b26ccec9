"""Usage as HQ counts it: each byte once, whatever is repeated, late or restarted.

A report holds a spool's totals; the row of its incarnation holds the highest seen, and only what
is above counts. Row, members' usage and the core's month change in one transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import msgspec

from holdfast.errors import OperationFault, PeerFault
from holdfast.hq.access_book import AccessBook, month_of
from holdfast.limits.access import USAGE_ROWS_MAX
from holdfast.logic.access.accounting import Total, credit
from holdfast.logic.access.rows import CORES, USAGE, CoreUsage, CounterRow, counters_key
from holdfast.logic.access.subscription import Usage
from holdfast.logic.fleet.model import Role
from holdfast.logic.fleet.rows import NodeRow
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import Compare, ControlStore, Operation, Put, unchanged
from holdfast.wire.access import OWN, RESERVE, UsageReceipt, UsageReport

INCARNATION_BYTES: Final = 16
MEMBERS_PER_TXN: Final = 100
"""Of the store's 128 operations; a report of more members is told to come in parts."""
TRIES: Final = 20


class UsageLedger:
    """Takes reports of entries (by device) and cores (own and reserve)."""

    def __init__(self, store: ControlStore, book: AccessBook, clock: Clock) -> None:
        self._store = store
        self._book = book
        self._clock = clock

    async def take(self, node: NodeRow, report: UsageReport) -> UsageReceipt:
        """Count what is new in a report; durable when it returns. Raises PeerFault for nonsense."""
        if len(report.incarnation) != INCARNATION_BYTES or len(report.counters) > USAGE_ROWS_MAX:
            raise PeerFault("a usage report of the wrong size")
        told = {}
        for item in report.counters:
            if item.upload < 0 or item.download < 0 or item.subject in told:
                raise PeerFault("counters do not fall below zero or come twice")
            told[item.subject] = Total(item.upload, item.download)
        for _ in range(TRIES):
            if await self._try(node, report.incarnation, told):
                return UsageReceipt(report.sequence)
        raise OperationFault("too many reports at once; send it again")

    async def _try(self, node: NodeRow, incarnation: bytes, told: Mapping[str, Total]) -> bool:
        key = counters_key(node.node, incarnation)
        kv = await self._store.get(key)
        known = msgspec.msgpack.decode(kv.value, type=CounterRow).totals if kv else {}
        highest, gains = credit(known, told.items())
        if not gains:
            return True
        compares: list[Compare] = [unchanged(key, kv)]
        operations: list[Operation] = [_put(key, CounterRow(highest))]
        if node.role is Role.ENTRY:
            await self._members(gains, compares, operations)
        else:
            await self._core(node.name, incarnation, highest, gains, compares, operations)
        return (await self._store.txn(compares, operations)).succeeded

    async def _members(
        self, gains: Mapping[str, Total], compares: list[Compare], operations: list[Operation]
    ) -> None:
        up: defaultdict[str, int] = defaultdict(int)
        down: defaultdict[str, int] = defaultdict(int)
        for device, gain in gains.items():
            row = self._book.devices.get(device)
            if row is not None:  # else of a device long forgotten
                up[row.member] += gain.upload
                down[row.member] += gain.download
        if len(up) > MEMBERS_PER_TXN:
            raise PeerFault(f"report at most {MEMBERS_PER_TXN} members at once", code="too-large")
        for member in sorted(up):
            key = USAGE + member
            kv = await self._store.get(key)
            held = msgspec.msgpack.decode(kv.value, type=Usage) if kv else Usage()
            now = Usage(held.upload + up[member], held.download + down[member])
            compares.append(unchanged(key, kv))
            operations.append(_put(key, now))

    async def _core(
        self,
        name: str,
        incarnation: bytes,
        highest: Mapping[str, Total],
        gains: Mapping[str, Total],
        compares: list[Compare],
        operations: list[Operation],
    ) -> None:
        key = CORES + name
        kv = await self._store.get(key)
        held = msgspec.msgpack.decode(kv.value, type=CoreUsage) if kv else CoreUsage()
        month = month_of(self._clock.wall())
        if held.month != month:
            held = msgspec.structs.replace(held, month=month, reserve=0, own=0)
        now = msgspec.structs.replace(
            held,
            reserve=held.reserve + _sum(gains.get(RESERVE)),
            own=held.own + _sum(gains.get(OWN)),
            incarnation=incarnation,
            reserve_counted=_sum(highest.get(RESERVE)),
            own_counted=_sum(highest.get(OWN)),
        )
        compares.append(unchanged(key, kv))
        operations.append(_put(key, now))


def _sum(total: Total | None) -> int:
    return total.upload + total.download if total is not None else 0


def _put(key: str, row: object) -> Put:
    return Put(key, msgspec.msgpack.encode(row))
