"""The slots this server sits in: records signed by HQ, carried by anybody (D1, D23).

Only a record that verifies against the pinned roots and names this node seats it. For each slot
the newest is kept and stapled to the sessions that open; an older one never replaces it.

A slot is *left* when another node has our seat in it and HQ does not let us go yet (seed 004 §6.2:
sessions are not interrupted): who is here still reads, and learns from the newer record where to
go, but nothing new is taken in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.errors import PeerFault
from holdfast.logic.fleet.model import NodeId, Role, Seat, SlotId, SlotRecord
from holdfast.logic.trust.revocation import RevocationList
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type
from holdfast.wire.staple import verify_staple


class Seated(msgspec.Struct, frozen=True):
    """A slot that is served here: its record, the same as HQ signed it, our own seat in it, which
    in a slot that is left is the one we had."""

    record: SlotRecord
    staple: Staple
    seat: Seat
    left: bool = False

    def peers(self) -> tuple[Seat, ...]:
        """The other seats of the slot."""
        return tuple(seat for seat in self.record.seats() if seat.node != self.seat.node)

    def role_of(self, node: NodeId) -> Role:
        """Whether a seated node is a relay or a replica of this slot."""
        return Role.RELAY if any(s.node == node for s in self.record.relays) else Role.REPLICA


class Seats:
    """All slots of this server."""

    def __init__(self, node: NodeId, roots: Sequence[bytes]) -> None:
        self._node = node
        self._roots = tuple(roots)
        self._slots: dict[SlotId, Seated] = {}
        self._left: dict[SlotId, Seated] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def all(self) -> list[Seated]:
        """Every slot we have a seat in."""
        return list(self._slots.values())

    def get(self, slot: SlotId) -> Seated | None:
        """None when the slot is neither served here nor left."""
        return self._slots.get(slot) or self._left.get(slot)

    def find(self, slot: SlotId) -> Seated:
        """Raises PeerFault (`slot`) when it is neither served here nor left."""
        seated = self.get(slot)
        if seated is None:
            raise PeerFault("this server does not serve the slot", code="slot")
        return seated

    def apply(
        self,
        staples: Iterable[Staple],
        revocations: RevocationList,
        now: float,
        left: Iterable[Staple] = (),
    ) -> tuple[set[SlotId], list[str]]:
        """Take over what HQ wants: the slots that changed (also those lost), and what was wrong
        with staples that were passed over. Of `left` only slots that were served here until now
        count. `now` is Unix seconds."""
        wanted: dict[SlotId, Seated] = {}
        leaving: dict[SlotId, Seated] = {}
        faults = []
        for staple in staples:
            try:
                seated = self._check(staple, revocations, now)
            except PeerFault as fault:
                faults.append(str(fault))
                continue
            slot = seated.record.slot
            held = wanted.get(slot) or self.get(slot)
            if held is None or _better(seated, held):
                wanted[slot] = seated
            elif held.left:
                leaving[slot] = held
            else:
                wanted[slot] = held
        for staple in left:
            try:
                record = self._verify(staple, revocations, now)
            except PeerFault as fault:
                faults.append(str(fault))
                continue
            had = self.get(record.slot)
            if had is not None and record.slot not in wanted:
                seated = Seated(record, staple, had.seat, left=True)
                newest = seated if _better(seated, had) else had
                leaving[record.slot] = msgspec.structs.replace(newest, left=True)
        before, after = self._left | self._slots, leaving | wanted
        changed = {
            slot for slot in before.keys() | after.keys() if before.get(slot) != after.get(slot)
        }
        self._slots, self._left = wanted, leaving
        return changed, faults

    def _verify(self, staple: Staple, revocations: RevocationList, now: float) -> SlotRecord:
        record = verify_staple(
            self._roots, staple, Type.SLOT_RECORD, SlotRecord, now, revocations=revocations
        )
        if not record.is_sound():
            raise PeerFault(f"slot {record.slot.hex()}: the record has extra seats", code="slot")
        return record

    def _check(self, staple: Staple, revocations: RevocationList, now: float) -> Seated:
        record = self._verify(staple, revocations, now)
        seat = record.seat_of(self._node)
        if seat is None:
            raise PeerFault(
                f"slot {record.slot.hex()}: the record names other servers", code="slot"
            )
        return Seated(record, staple, seat)


def _better(news: Seated, held: Seated) -> bool:
    """A newer record, or the same with more cosignatures or overrides to show."""
    if news.record.version != held.record.version or news.record != held.record:
        return news.record.version > held.record.version
    return _shown(news.staple) > _shown(held.staple)


def _shown(staple: Staple) -> tuple[int, int]:
    lines = staple.logged.note.count(b"\n") if staple.logged is not None else 0
    return len(staple.overrides), lines
