"""Believing that a statement is in the log, and counting who cosigned that (D4)."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.crypto.certificates import verify_hq_proof
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import PeerFault
from holdfast.logic.fleet.model import SlotRecord
from holdfast.logic.trust.checkpoint import Checkpoint, log_origin, parse_checkpoint, witness_name
from holdfast.logic.trust.directory import (
    CERTIFICATE,
    REVOCATIONS,
    SLOT_RECORD,
    TICKET_KEYS,
    WITNESSES,
    Leaf,
)
from holdfast.logic.trust.merkle import leaf_hash, verify_path
from holdfast.logic.trust.note import Note, cosigned_at, parse_note, signed_by
from holdfast.logic.trust.revocation import RevocationList
from holdfast.logic.trust.witnesses import WitnessSet
from holdfast.wire.codec import pack
from holdfast.wire.envelope import verify
from holdfast.wire.records import Logged, Override, Staple
from holdfast.wire.signed import Signed, Type
from holdfast.wire.staple import presented

KINDS = {
    Type.SLOT_RECORD: SLOT_RECORD,
    Type.REVOCATIONS: REVOCATIONS,
    Type.WITNESSES: WITNESSES,
    Type.TICKET_KEYS: TICKET_KEYS,
}
"""What the log calls each statement of HQ."""


def leaf_of(signed: Signed) -> Leaf:
    """The leaf of a statement. Raises PeerFault for one that the log has no name for."""
    try:
        return Leaf(KINDS[Type(signed.body[0])], pack(signed))
    except (IndexError, KeyError, ValueError) as error:
        raise PeerFault("a statement of a kind that is not logged") from error


def certificate_leaf(der: bytes) -> bytes:
    """Leaf hash of a certificate."""
    return leaf_hash(Leaf(CERTIFICATE, der).data())


def verify_checkpoint(
    roots: Sequence[bytes],
    data: bytes,
    signer: bytes,
    proof: bytes,
    *,
    origin: str,
    now: float,
    revocations: RevocationList | None = None,
) -> tuple[Note, Checkpoint]:
    """A note that an HQ of this network signed as its log's checkpoint. Raises PeerFault."""
    verify_hq_proof(roots, proof, signer, now)
    if revocations is not None and revocations.find(presented(proof)):
        raise PeerFault("a checkpoint of a revoked headquarters", code="revoked")
    note = parse_note(data)
    checkpoint = parse_checkpoint(note.text)
    if checkpoint.origin != origin or not signed_by(note, origin, signer):
        raise PeerFault("the log did not sign this checkpoint", code="signature")
    return note, checkpoint


def cosigners(
    roots: Sequence[bytes],
    staple: Staple,
    known: WitnessSet | None,
    *,
    domain: str,
    network: bytes,
    now: float,
    revocations: RevocationList | None = None,
) -> frozenset[str]:
    """Owners of the known set who cosigned a checkpoint that has `staple` in it; nobody when it is
    not logged. Raises PeerFault for a proof that does not hold."""
    if staple.logged is None:
        return frozenset()
    logged, origin = staple.logged, log_origin(domain, network)
    note, checkpoint = verify_checkpoint(
        roots,
        logged.note,
        logged.signer,
        logged.proof,
        origin=origin,
        now=now,
        revocations=revocations,
    )
    if not _in_tree(logged, checkpoint, leaf_of(staple.signed).data()):
        raise PeerFault("the log does not contain this statement", code="signature")
    names = {witness_name(domain, key.node): key for key in known.witnesses} if known else {}
    return frozenset(
        names[line.name].owner
        for line in note.lines
        if line.name in names
        and cosigned_at(note.text, line, line.name, names[line.name].identity) is not None
    )


def approvers(staple: Staple, record: SlotRecord, known: WitnessSet | None) -> frozenset[str]:
    """Owners of the known set who signed an override for exactly this record."""
    owners = {key.identity: key.owner for key in known.witnesses} if known else {}
    wanted = Override(record.network, record.slot, record.version, hash_bytes(staple.signed.body))
    found = set()
    for signed in staple.overrides[: 4 * len(owners)]:
        if signed.signer in owners and verify(Type.OVERRIDE, Override, signed) == wanted:
            found.add(owners[signed.signer])
    return frozenset(found)


def _in_tree(logged: Logged, checkpoint: Checkpoint, leaf: bytes) -> bool:
    return verify_path(checkpoint.root, checkpoint.size, logged.index, leaf, logged.path)
