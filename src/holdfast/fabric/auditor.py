"""Holding servers to what they signed, once per reading (D15).

A reader asks each server of the slot for an *attestation*: its signed word on which of the blobs
it gave receipts for are there, and how far its sequences go. What it says is laid beside receipts
(our own, and those that other devices of the group show in notes), beside what it listed to us, and
beside what it attested before. Nothing that a busy, slow or fresh server does looks like a lie:
only words that contradict each other do.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

from holdfast.crypto.era import Era
from holdfast.errors import HoldfastError, PeerFault
from holdfast.fabric.findings import Accused, FindingBook
from holdfast.fabric.readings import Readings
from holdfast.fabric.receipts import Kept, ReceiptBook
from holdfast.fabric.roster import Roster
from holdfast.fabric.session import Session
from holdfast.limits import RELAY_TTL_DAYS
from holdfast.limits.evidence import AUDIT_BODIES, AUDIT_BODY_BYTES_MAX
from holdfast.logic.pool.cursors import Spot
from holdfast.logic.pool.lies import BY_CODE, Lie
from holdfast.wire.evidence import (
    VERSION,
    Evidence,
    HeldReceipt,
    Kind,
    ReceiptNote,
    check_evidence,
    check_receipt,
)
from holdfast.wire.pool import Attestation
from holdfast.wire.signed import Signed

_log = logging.getLogger(__name__)
_DAY_S = 86_400
_NOT_A_REFUSAL_TO_SIGN = frozenset({"session", "slot", "certificate", *BY_CODE})


class Auditor:
    """The audits of one era of one group."""

    def __init__(
        self,
        roster: Roster,
        era: Era,
        readings: Readings,
        receipts: ReceiptBook,
        findings: FindingBook,
    ) -> None:
        self._roster = roster
        self._era = era
        self._readings = readings
        self._receipts = receipts
        self._findings = findings
        self._clock = roster.network.clock
        self.caught: set[str] = set()
        """Servers that were caught since this was last emptied."""

    # --- notes of other devices ------------------------------------------------------------------
    def hear(self, note: ReceiptNote) -> None:
        """Take receipts that another device shows. What does not verify is passed over: it
        accuses nobody, for a member could have made it up."""
        for held in note.receipts:
            try:
                batch = check_receipt(held)
            except PeerFault as fault:
                _log.info("a receipt in a note is no good: %s", fault)
                continue
            if held.tag == self._era.tag:
                self.conflicts(self._receipts.keep(batch, [held], log=True), batch.node)

    def conflicts(self, found: Iterable[Evidence], node: bytes) -> None:
        """Contradicting receipts of `node` came to light."""
        for evidence in found:
            one, other = (held.receipt for held in evidence.receipts)
            detail = f"sequence {one.sequence}: {one.blob.hex()[:16]}, {other.blob.hex()[:16]}"
            self._accuse(self._name(node), node, Lie.CONFLICT, detail, evidence)

    def _name(self, node: bytes) -> str:
        record = self._roster.record
        seat = record.seat_of(node) if record else None
        return seat.name if seat else f"a former server ({node.hex()[:16]})"

    # --- one server ------------------------------------------------------------------------------
    async def audit(
        self,
        name: str,
        session: Session,
        claimed: int,
        read_on: Callable[[], Awaitable[None]] | None,
    ) -> None:
        """Audit the server behind `session`, whose log was read to the end; `claimed` is the
        highest head it named. `read_on` reads what came after, None when its log is not read.

        Raises what `Session` raises.
        """
        spot = Spot(session.node, session.incarnation, self._era.tag)
        pivot = self._roster.network.entropy.bytes(32)
        kept = self._receipts.to_audit(spot.node, spot.tag, self._born_from(), pivot)
        cursor = self._readings.cursors.at(spot)
        here = [k for k in kept if k.incarnation == spot.incarnation]
        if read_on and cursor is not None and any(k.log and k.sequence > cursor for k in here):
            await read_on()
        signed, said = await self._attest(name, session, kept)
        self._judge_presence(name, said, signed, kept)
        self._judge_head(name, said, signed, here, max(claimed, session.head))
        if read_on:
            self._judge_shown(name, spot, said, here)
        await self._look(name, session, said, here)
        await self._look_at_head(name, session, said)

    async def _attest(
        self, name: str, session: Session, kept: Sequence[Kept]
    ) -> tuple[Signed, Attestation]:
        try:
            return await session.attest(list(dict.fromkeys(k.blob for k in kept)))
        except PeerFault as fault:
            if fault.code not in _NOT_A_REFUSAL_TO_SIGN:
                self._accuse(name, session.node, Lie.WILL_NOT_SIGN, str(fault))
            raise

    def _judge_presence(
        self, name: str, said: Attestation, signed: Signed, kept: Sequence[Kept]
    ) -> None:
        """It lacks what it gave us a receipt for."""
        present = {b for b, flag in zip(said.blobs, said.present, strict=True) if flag == 1}
        for one in kept:
            if one.blob in present:
                continue
            same = one.incarnation == said.incarnation
            evidence = self._evidence(
                Kind.DENIAL if same else Kind.LOST, (one.held,), (signed,), said.node
            )
            lie = Lie.DENIES if same else Lie.LOST
            self._accuse(name, said.node, lie, f"blob {one.blob.hex()[:16]}", evidence)

    def _judge_head(
        self, name: str, said: Attestation, signed: Signed, here: Sequence[Kept], claimed: int
    ) -> None:
        """Its sequences go less far than it said, or showed, or gave out."""
        spot = Spot(said.node, said.incarnation, said.tag)
        earlier = self._receipts.attested(said.node, said.incarnation, said.tag)
        if earlier is not None and earlier[1].head > said.head:
            evidence = self._evidence(Kind.REGRESS, (), (earlier[0], signed), said.node)
            detail = f"knew sequence {earlier[1].head}, now {said.head}"
            self._accuse(name, said.node, Lie.ROLLS_BACK, detail, evidence)
        else:
            self._receipts.keep_attestation(signed, said)
        ahead = [k for k in here if k.sequence > said.head]
        if ahead:
            evidence = self._evidence(Kind.ROLLBACK, (ahead[0].held,), (signed,), said.node)
            detail = f"gave out sequence {ahead[0].sequence}, now knows {said.head}"
            self._accuse(name, said.node, Lie.ROLLS_BACK, detail, evidence)
        elif (cursor := self._readings.cursors.at(spot)) is not None and cursor > said.head:
            detail = f"showed sequence {cursor}, now knows {said.head}"
            self._accuse(name, said.node, Lie.ROLLS_BACK, detail)
        if claimed > said.head:
            detail = f"said {claimed}, signed {said.head}"
            self._accuse(name, said.node, Lie.FALSE_HEAD, detail)

    def _judge_shown(self, name: str, spot: Spot, said: Attestation, here: Sequence[Kept]) -> None:
        """It has what it gave a receipt for, and does not list it."""
        present = {b for b, flag in zip(said.blobs, said.present, strict=True) if flag == 1}
        for one in here:
            listed = not one.log or one.sequence > said.head or self._readings.shown(spot, one.blob)
            if one.blob in present and not listed:
                detail = f"blob {one.blob.hex()[:16]}, sequence {one.sequence}, is not in its log"
                self._accuse(name, spot.node, Lie.WITHHOLDS, detail)

    async def _look(
        self, name: str, session: Session, said: Attestation, here: Sequence[Kept]
    ) -> None:
        """Fetch a few of those that it says are there."""
        present = {b for b, flag in zip(said.blobs, said.present, strict=True) if flag == 1}
        small = [k.blob for k in here if k.blob in present and k.held.size <= AUDIT_BODY_BYTES_MAX]
        wanted = list(dict.fromkeys((*small[:1], *small[-(AUDIT_BODIES - 1) :])))
        found = await session.get(wanted) if wanted else {}
        for blob in wanted:
            if blob not in found:
                detail = f"blob {blob.hex()[:16]} is there, it says, and not served"
                self._accuse(name, session.node, Lie.WITHHOLDS, detail)

    async def _look_at_head(self, name: str, session: Session, said: Attestation) -> None:
        """Its newest sequence belongs to some blob, unless that blob may have expired."""
        cursor = self._readings.cursors.at(Spot(said.node, said.incarnation, said.tag))
        oldest = self._readings.oldest_born(said.tag)
        if cursor is None or said.head <= cursor or oldest is None or oldest < self._born_from():
            return
        try:
            reply, _ = await session.pull(said.head - 1, 1)
            there = bool(reply.items)
        except PeerFault as fault:
            if fault.code != "incarnation":
                raise
            there = False  # "past my head", of the head it has just signed
        if not there:
            self._accuse(name, said.node, Lie.FALSE_HEAD, f"nothing is at sequence {said.head}")

    # --- blobs of others -------------------------------------------------------------------------
    async def strangers(self, shown: dict[bytes, set[str]]) -> None:
        """Blobs that did not open, and who showed them. A member could have pushed rubbish, but
        then to all servers; what nobody else has, the shower put there."""
        for blob, names in shown.items():
            for name in sorted(names):
                seat = self._roster.seats().named(name)
                if seat is not None and await self._is_alone(name, blob):
                    detail = f"blob {blob.hex()[:16]} does not open, and nobody else has it"
                    self._accuse(name, seat.node, Lie.SWAPS_GROUPS, detail)

    async def _is_alone(self, name: str, blob: bytes) -> bool:
        """Whether others answer, and none of them has the blob."""
        asked = 0
        for other in self._roster.ready():
            if other == name:
                continue
            try:
                if await self._roster.call(other, self._era.access, partial(_has, blob)):
                    return False
            except HoldfastError:
                continue
            asked += 1
        return asked > 0

    # --- naming ----------------------------------------------------------------------------------
    def _born_from(self) -> int:
        """The first born day that every server must still have, with a day to spare."""
        return int(self._clock.wall() // _DAY_S) - RELAY_TTL_DAYS + 2

    def _evidence(
        self,
        kind: Kind,
        receipts: tuple[HeldReceipt, ...],
        attestations: tuple[Signed, ...],
        node: bytes,
    ) -> Evidence | None:
        """A proof, when the statements amount to one: a liar may have signed a wrong time."""
        evidence = Evidence(VERSION, kind, receipts, attestations, self._roster.staple)
        try:
            verdict = check_evidence(evidence)
        except PeerFault as fault:
            _log.info("no proof of it: %s", fault)
            return None
        assert verdict.node == node
        return evidence

    def _accuse(
        self, name: str, node: bytes, lie: Lie, detail: str, evidence: Evidence | None = None
    ) -> None:
        self.caught.add(name)
        accused = Accused(name, node, self._roster.slot, self._era.tag)
        self._findings.note(accused, lie, detail, self._clock.wall(), evidence)


async def _has(blob: bytes, session: Session) -> bool:
    return (await session.have([blob]))[0]
