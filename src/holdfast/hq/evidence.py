"""Proofs of misbehaviour that somebody handed in (D15): checked, kept, told, never acted upon.

A server that catches a peer in sums that are not those of its items has no proof, for sums are not
signed. What it says is logged under its name, and counts as what it is: one server's word.

Anybody may hand one in, for a proof needs no credit: it is checked before it is kept, and says
nothing of who found it. HQ does not punish: the operator sees the proof on the fleet page and in
the audit log, and it can be exported for a vote.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.crypto.pure import base32
from holdfast.errors import PeerFault
from holdfast.hq.audit import AuditLog
from holdfast.hq.desired import DesiredBook
from holdfast.limits.evidence import ACCUSATION_PERIOD_S, ACCUSATIONS_MAX, EVIDENCE_PER_NODE_MAX
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.model import NodeId
from holdfast.logic.fleet.rows import NodeRow
from holdfast.logic.pool.lies import MEANING, Lie
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import ControlStore, Put, absent
from holdfast.wire.codec import pack, unpack
from holdfast.wire.evidence import (
    Evidence,
    Verdict,
    check_evidence,
    evidence_id,
    pack_evidence,
    unpack_evidence,
)
from holdfast.wire.hq import Accusation, EvidenceReply

EVIDENCE: Final = "/evidence/"
_ROW_BYTES_MAX: Final = 512 * 1024
VERB: Final = "server.misbehaved"
ACCUSED: Final = "server.accused"


class EvidenceRow(msgspec.Struct, frozen=True):
    """A proof as it is kept. `name` is the server that the accused node was seated as."""

    id: bytes
    node: NodeId
    name: str
    kind: str
    text: str
    at: float
    """The accused's own clock at its later statement."""
    received_at: float
    evidence: bytes


def evidence_key(node: NodeId, kind: str, name: bytes) -> str:
    """Where a proof lies: by accused and kind, so that both can be counted."""
    return f"{EVIDENCE}{base32(node)}/{kind}/{name.hex()}"


class EvidenceBook:
    """Takes proofs for one network."""

    def __init__(
        self, store: ControlStore, audit: AuditLog, desired: DesiredBook, clock: Clock
    ) -> None:
        self._store = store
        self._audit = audit
        self._desired = desired
        self._clock = clock
        self._heard: dict[tuple[NodeId, NodeId, str], float] = {}

    async def take(self, data: bytes) -> tuple[EvidenceReply, Verdict, Audit | None]:
        """Check a proof and keep it, if it is new and there are not many like it. The audit line
        when it was kept. Raises PeerFault when it proves nothing about a node of ours."""
        evidence = unpack_evidence(data)
        verdict = check_evidence(evidence)
        row = await self._desired.find(verdict.node)
        if row is None:
            raise PeerFault("that node is not of this network", code="not-found")
        bare = pack_evidence(_without_record(evidence))
        name = evidence_id(bare)
        prefix = evidence_key(verdict.node, verdict.kind, b"")
        page = await self._store.range(prefix, limit=EVIDENCE_PER_NODE_MAX + 1)
        key = evidence_key(verdict.node, verdict.kind, name)
        if any(kv.key == key for kv in page.items) or len(page.items) >= EVIDENCE_PER_NODE_MAX:
            return EvidenceReply(name, False), verdict, None
        kept = EvidenceRow(
            id=name,
            node=verdict.node,
            name=row.name,
            kind=verdict.kind,
            text=verdict.text,
            at=verdict.at,
            received_at=self._clock.wall(),
            evidence=bare,
        )
        reply = await self._store.txn([absent(key)], [Put(key, pack(kept))])
        if not reply.succeeded:
            return EvidenceReply(name, False), verdict, None
        detail = {
            "kind": str(verdict.kind),
            "node": base32(verdict.node),
            "proof": name.hex(),
            "text": verdict.text,
        }
        line = Audit(VERB, row.name, detail)
        await self._audit([line])
        return EvidenceReply(name, True), verdict, line

    async def hear(self, by: NodeRow, said: Accusation) -> Audit | None:
        """Log one server's word against another, once a day: the line, or None when it was heard.
        Raises PeerFault for a lie that has no name, and for a node that is none of ours."""
        if said.lie not in MEANING:
            raise PeerFault("that is no lie we know")
        row = await self._desired.find(said.node)
        if row is None:
            raise PeerFault("that node is not of this network", code="not-found")
        key, now = (by.node, said.node, said.lie), self._clock.elapsed()
        if now - self._heard.get(key, -ACCUSATION_PERIOD_S) < ACCUSATION_PERIOD_S:
            return None
        detail = {"by": by.name, "lie": said.lie, "text": MEANING[Lie(said.lie)]}
        line = Audit(ACCUSED, row.name, detail)
        await self._audit([line])
        if len(self._heard) >= ACCUSATIONS_MAX:
            del self._heard[next(iter(self._heard))]
        self._heard[key] = now
        return line


def _without_record(evidence: Evidence) -> Evidence:
    """The proof without what proves nothing: one lie, one id, whoever hands it in."""
    return msgspec.structs.replace(evidence, record=None)


async def evidence_rows(store: ControlStore) -> list[EvidenceRow]:
    """Every proof kept, oldest first."""
    found: list[EvidenceRow] = []
    last, more = "", True
    while more:
        page = await store.range(EVIDENCE, limit=100, after=last)
        for kv in page.items:
            found.append(unpack(EvidenceRow, kv.value, bytes_max=_ROW_BYTES_MAX))
            last = kv.key
        more = page.more
    return sorted(found, key=lambda row: row.received_at)


async def evidence_counts(store: ControlStore) -> dict[NodeId, int]:
    """How many proofs there are about each node."""
    counts: dict[NodeId, int] = {}
    for row in await evidence_rows(store):
        counts[row.node] = counts.get(row.node, 0) + 1
    return counts
