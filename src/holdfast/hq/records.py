"""Slot records as HQ signs them: every one that is written is a leaf of the transparency log (D1).

The leaf is written in the transaction of the row. A record that was signed but not written is
thrown away: another of the same version may follow, and the log must not show both.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.hq.authority import Authority
from holdfast.hq.transparency import SLOT_RECORD, Leaf, Prepared, TransparencyLog
from holdfast.logic.fleet.model import SlotRecord
from holdfast.logic.fleet.rows import SLOTS, SlotRow
from holdfast.rim.control.store import ControlStore
from holdfast.wire.codec import pack, unpack
from holdfast.wire.records import Staple
from holdfast.wire.signed import SIGNED_BYTES_MAX, Type

_ROW_BYTES_MAX = 4 * SIGNED_BYTES_MAX


class SlotRecords:
    """The brain's `SignRecord` and `RecordLog`."""

    def __init__(self, store: ControlStore, authority: Authority, log: TransparencyLog) -> None:
        self._store = store
        self._authority = authority
        self._log = log

    def __call__(self, record: SlotRecord) -> Staple:
        return self._authority.sign(Type.SLOT_RECORD, record)

    async def prepare(self, staples: Sequence[bytes]) -> Prepared | None:
        """Conditions and writes that log those of `staples` that are not in the log yet."""
        await self._log.open()
        found = (_leaf(unpack(Staple, item, bytes_max=_ROW_BYTES_MAX)) for item in staples)
        leaves = [leaf for leaf in found if not self._log.contains(leaf)]
        return await self._log.prepare(leaves) if leaves else None

    def took(self, prepared: Prepared) -> None:
        """The transaction with `prepared` in it happened."""
        self._log.took(prepared)

    async def catch_up(self) -> None:
        """Log the records that were written without their leaves."""
        await self._log.open()
        reply = await self._store.range(SLOTS)
        for kv in reply.items:
            row = unpack(SlotRow, kv.value, bytes_max=_ROW_BYTES_MAX)
            if row.staple:
                self._log.note(_leaf(unpack(Staple, row.staple, bytes_max=_ROW_BYTES_MAX)))
        await self._log.settle()


def _leaf(staple: Staple) -> Leaf:
    return Leaf(SLOT_RECORD, pack(staple.signed))
