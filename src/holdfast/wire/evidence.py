"""Proofs of misbehaviour: statements of one server that cannot all be true or kept (D15).

A proof is portable: it needs nothing but itself to be checked. Every statement in it was signed by
the accused with its identity key; five kinds of contradiction are known:

| kind       | statements                | what they say together                                |
|------------|---------------------------|-------------------------------------------------------|
| `conflict` | two receipts              | one sequence of one tag was given to two blobs        |
| `denial`   | receipt, attestation      | what it signed for as durable it later says it lacks  |
| `lost`     | receipt, attestation      | as denial, by a store that began anew in between      |
| `rollback` | receipt, attestation      | it later knows fewer sequences than it had given out  |
| `regress`  | two attestations          | the later one knows fewer sequences than the earlier  |

A denial counts only within the time for which even a relay must keep a blob: what was born more
than `RELAY_TTL_DAYS` before the denial may be gone lawfully. A `lost` and a `denial` can be the
work of a broken disk; the promise is broken all the same. The enclosed slot record, when there is
one, tells the accused's name and network; it proves nothing by itself.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from holdfast.crypto.pure import hash_bytes, node_id
from holdfast.errors import PeerFault
from holdfast.limits import RELAY_TTL_DAYS
from holdfast.limits.evidence import ATTEST_IDS_MAX, EVIDENCE_BYTES_MAX, RECEIPT_NOTE_BYTES_MAX
from holdfast.logic.fleet.model import NodeId
from holdfast.logic.trust import merkle
from holdfast.wire.codec import Message, pack, unpack
from holdfast.wire.envelope import verify
from holdfast.wire.pool import Attestation, Receipt, ReceiptBatch
from holdfast.wire.receipts import receipt_leaf
from holdfast.wire.records import Staple
from holdfast.wire.signed import Signed, Type

VERSION: Final = 1
_DAY_S: Final = 86_400
_NOTE_BEGINS: Final = b"\x81\xa8receipts"
"""A MessagePack map of one field, and its name."""


class Kind(StrEnum):
    """What the statements amount to."""

    CONFLICT = "conflict"
    DENIAL = "denial"
    LOST = "lost"
    ROLLBACK = "rollback"
    REGRESS = "regress"


class HeldReceipt(Message):
    """A receipt that stands alone: all that its leaf and path need."""

    batch: Signed
    receipt: Receipt
    tag: bytes
    size: int
    born: int


class ReceiptNote(Message):
    """Receipts that one device shows the others of its group, as a log payload. Sealed, not
    signed: each receipt proves itself."""

    receipts: tuple[HeldReceipt, ...]


class Evidence(Message):
    """A proof. `record` is a slot record that names the accused, as far as the accuser had one."""

    version: int
    kind: Kind
    receipts: tuple[HeldReceipt, ...]
    attestations: tuple[Signed, ...]
    record: Staple | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What a proof that holds says. `at` is the accused's own clock at the later statement."""

    node: NodeId
    kind: Kind
    tag: bytes
    at: float
    text: str


def evidence_id(data: bytes) -> bytes:
    """A proof's name: the hash of its bytes."""
    return hash_bytes(data)


def pack_evidence(evidence: Evidence) -> bytes:
    """The bytes of a proof, as it is mailed and kept."""
    return pack(evidence)


def unpack_evidence(data: bytes) -> Evidence:
    """Decode a proof, nothing verified. Raises PeerFault."""
    evidence: Evidence = unpack(Evidence, data, bytes_max=EVIDENCE_BYTES_MAX)
    if evidence.version != VERSION:
        raise PeerFault(f"a proof of version {evidence.version}; update to read it", code="version")
    return evidence


def unpack_note(payload: bytes) -> ReceiptNote:
    """Decode a note, nothing verified. Raises PeerFault."""
    return unpack(ReceiptNote, payload, bytes_max=RECEIPT_NOTE_BYTES_MAX)


def is_note(payload: bytes) -> bool:
    """Whether a log payload is a note. Nothing else in a log begins like one: operations are
    arrays, the slot records of a keyring maps of two fields."""
    return payload.startswith(_NOTE_BEGINS)


def check_receipt(held: HeldReceipt) -> ReceiptBatch:
    """Verify a receipt by itself. Raises PeerFault (`receipt`) when it does not prove its blob."""
    batch = verify(Type.RECEIPT_BATCH, ReceiptBatch, held.batch)
    if batch.node != node_id(held.batch.signer):
        raise PeerFault("a receipt signed by another node", code="receipt")
    receipt = held.receipt
    if not (len(receipt.blob) == len(held.tag) == 32 and _fits(receipt.sequence, held)):
        raise PeerFault("a receipt with fields out of range", code="receipt")
    leaf = receipt_leaf(receipt.blob, held.tag, receipt.sequence, held.size, held.born)
    if not merkle.verify_path(batch.root, batch.size, receipt.index, leaf, receipt.path):
        raise PeerFault("a receipt does not prove its blob", code="receipt")
    return batch


def _fits(sequence: int, held: HeldReceipt) -> bool:
    return 0 <= sequence < 1 << 64 and 0 <= held.size < 1 << 32 and 0 <= held.born < 1 << 32


def check_attestation(signed: Signed) -> Attestation:
    """Verify an attestation by itself. Raises PeerFault (`attestation`)."""
    said = verify(Type.ATTESTATION, Attestation, signed)
    if said.node != node_id(signed.signer):
        raise PeerFault("an attestation signed by another node", code="attestation")
    if len(said.present) != len(said.blobs) or len(said.blobs) > ATTEST_IDS_MAX:
        raise PeerFault("an attestation that does not say of each id", code="attestation")
    return said


def check_evidence(evidence: Evidence) -> Verdict:
    """What a proof proves. Raises PeerFault (`evidence`, or the code of a bad statement)."""
    batches = [check_receipt(held) for held in evidence.receipts]
    said = [check_attestation(signed) for signed in evidence.attestations]
    if evidence.kind is Kind.CONFLICT and (len(batches), len(said)) == (2, 0):
        return _conflict(evidence, batches)
    if evidence.kind is Kind.REGRESS and (len(batches), len(said)) == (0, 2):
        return _regress(said[0], said[1])
    single = (len(batches), len(said)) == (1, 1)
    if single and evidence.kind in (Kind.DENIAL, Kind.LOST):
        return _denial(evidence, batches[0], said[0])
    if single and evidence.kind is Kind.ROLLBACK:
        return _rollback(evidence.receipts[0], batches[0], said[0])
    raise _unproven(f"not the statements that a {evidence.kind} takes")


def _unproven(why: str) -> PeerFault:
    return PeerFault(f"this proves nothing: {why}", code="evidence")


def _conflict(evidence: Evidence, batches: list[ReceiptBatch]) -> Verdict:
    one, other = evidence.receipts
    if _place(batches[0], one) != _place(batches[1], other):
        raise _unproven("the receipts are of different nodes, stores, tags or sequences")
    if one.receipt.blob == other.receipt.blob:
        raise _unproven("both receipts are for one blob")
    at = max(batch.committed_at for batch in batches)
    blobs = f"{one.receipt.blob.hex()[:16]} and {other.receipt.blob.hex()[:16]}"
    text = f"gave sequence {one.receipt.sequence} to blob {blobs}"
    return Verdict(batches[0].node, Kind.CONFLICT, one.tag, at, text)


def _place(batch: ReceiptBatch, held: HeldReceipt) -> tuple[bytes, bytes, bytes, int]:
    return batch.node, batch.incarnation, held.tag, held.receipt.sequence


def _denial(evidence: Evidence, batch: ReceiptBatch, said: Attestation) -> Verdict:
    (held,) = evidence.receipts
    blob = held.receipt.blob
    if (batch.node, held.tag) != (said.node, said.tag):
        raise _unproven("receipt and attestation are of different nodes or tags")
    same = batch.incarnation == said.incarnation
    if same is not (evidence.kind is Kind.DENIAL):
        raise _unproven("the incarnations are not those of this kind")
    if said.at < batch.committed_at:
        raise _unproven("it was denied before it was stored")
    denied = [b for b, flag in zip(said.blobs, said.present, strict=True) if flag != 1]
    if blob not in denied:
        raise _unproven("the attestation does not deny that blob")
    if said.at >= (held.born + RELAY_TTL_DAYS) * _DAY_S:
        raise _unproven("the blob was old enough to be forgotten")
    what = "now says that it lacks it" if same else "came back with a store that lacks it"
    text = f"signed for blob {blob.hex()[:16]} as durable and {what}"
    return Verdict(batch.node, evidence.kind, held.tag, said.at, text)


def _rollback(held: HeldReceipt, batch: ReceiptBatch, said: Attestation) -> Verdict:
    here = (batch.node, batch.incarnation, held.tag)
    if here != (said.node, said.incarnation, said.tag):
        raise _unproven("receipt and attestation are of different nodes, stores or tags")
    if said.at < batch.committed_at or said.head >= held.receipt.sequence:
        raise _unproven("the attestation is older than the receipt, or knows its sequence")
    text = f"gave out sequence {held.receipt.sequence} and later knew only {said.head}"
    return Verdict(batch.node, Kind.ROLLBACK, held.tag, said.at, text)


def _regress(one: Attestation, other: Attestation) -> Verdict:
    early, late = sorted((one, other), key=lambda said: said.at)
    here = (early.node, early.incarnation, early.tag)
    if here != (late.node, late.incarnation, late.tag) or early.at == late.at:
        raise _unproven("the attestations are of different nodes, stores or tags, or of one moment")
    if late.head >= early.head:
        raise _unproven("the later attestation knows as much")
    text = f"knew sequence {early.head} and later only {late.head}"
    return Verdict(late.node, Kind.REGRESS, late.tag, late.at, text)
