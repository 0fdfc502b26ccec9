"""Whether a peer's sums are those of the items it shows (D11, D23).

Days and buckets are summed up by a count and a sum of hashes, and a peer that lies in them makes us
compare for ever, or hides what it lacks behind a number. Whoever asks for items can add them up.

Items come and go while we ask, so a difference alone proves nothing. It is a suspicion when the
summary is the same before and after the items were shown, and the peer is named when it says the
same again in a later round. It signs none of this: we know it, and can prove it to nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from holdfast.fabric.session import Session
from holdfast.limits import RECONCILE_BOGUS_MAX
from holdfast.logic.fleet.model import NodeId, SlotId
from holdfast.rim.store.summary import item_hash
from holdfast.wire.pool import BucketSummary, DaySummary, ReconcileItem

_MODULUS: Final = 1 << 256
_Where = tuple[NodeId, SlotId, int, int]
_WHOLE_DAY: Final = -1


class Sums:
    """What peers said that does not add up."""

    def __init__(self) -> None:
        self._suspicions: dict[_Where, DaySummary | BucketSummary] = {}
        self.liars: dict[NodeId, int] = {}
        """How often each was caught."""

    async def day(
        self,
        node: NodeId,
        slot: SlotId,
        said: DaySummary,
        buckets: Sequence[BucketSummary],
        session: Session,
    ) -> bool:
        """Whether `node` is caught: its buckets do not add up to the day it named."""
        where = (node, slot, said.born, _WHOLE_DAY)
        if _added(buckets) == (said.count, said.total):
            return self._clear(where)
        return said in await session.days() and self._suspect(where, said)

    async def bucket(
        self,
        node: NodeId,
        slot: SlotId,
        born: int,
        said: BucketSummary,
        items: Sequence[ReconcileItem],
        session: Session,
    ) -> bool:
        """Whether `node` is caught: its items do not add up to the bucket it named."""
        where = (node, slot, born, said.bucket)
        total = sum(item_hash(item.tag, item.blob, item.blob_class) for item in items) % _MODULUS
        if (len(items), total.to_bytes(32, "little")) == (said.count, said.total):
            return self._clear(where)
        return said in await session.buckets(born) and self._suspect(where, said)

    def _clear(self, where: _Where) -> bool:
        self._suspicions.pop(where, None)
        return False

    def _suspect(self, where: _Where, said: DaySummary | BucketSummary) -> bool:
        """True when it said the same before."""
        before = self._suspicions.get(where)
        if len(self._suspicions) >= RECONCILE_BOGUS_MAX:
            self._suspicions.clear()
        self._suspicions[where] = said
        if before != said:
            return False
        self.liars[where[0]] = self.liars.get(where[0], 0) + 1
        return True


def _added(buckets: Iterable[BucketSummary]) -> tuple[int, bytes]:
    """Count and total of a day, from its buckets."""
    count = total = 0
    for bucket in buckets:
        count += bucket.count
        total += int.from_bytes(bucket.total, "little")
    return count, (total % _MODULUS).to_bytes(32, "little")
