"""Slot records as HQ signs them: every one becomes a leaf of the transparency log (D1)."""

from __future__ import annotations

from holdfast.hq.authority import Authority
from holdfast.hq.transparency import SLOT_RECORD, Leaf, TransparencyLog
from holdfast.logic.fleet.model import SlotRecord
from holdfast.logic.fleet.rows import SLOTS, SlotRow
from holdfast.rim.control.store import ControlStore
from holdfast.wire.codec import pack, unpack
from holdfast.wire.records import Staple
from holdfast.wire.signed import SIGNED_BYTES_MAX, Type

_ROW_BYTES_MAX = 4 * SIGNED_BYTES_MAX


class SlotRecords:
    """The brain's `SignRecord`. Whoever hands a record out settles the log first."""

    def __init__(self, store: ControlStore, authority: Authority, log: TransparencyLog) -> None:
        self._store = store
        self._authority = authority
        self._log = log

    def __call__(self, record: SlotRecord) -> Staple:
        staple = self._authority.sign(Type.SLOT_RECORD, record)
        self._log.note(_leaf(staple))
        return staple

    async def catch_up(self) -> None:
        """Log the records that were written but not logged when HQ stopped."""
        reply = await self._store.range(SLOTS)
        for kv in reply.items:
            row = unpack(SlotRow, kv.value, bytes_max=_ROW_BYTES_MAX)
            if row.staple:
                self._log.note(_leaf(unpack(Staple, row.staple, bytes_max=_ROW_BYTES_MAX)))
        await self._log.settle()


def _leaf(staple: Staple) -> Leaf:
    return Leaf(SLOT_RECORD, pack(staple.signed))
