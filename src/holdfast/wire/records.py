"""Signed statements of HQ that clients and servers carry for each other.

The body of a slot record is `logic.fleet.model.SlotRecord`, that of a revocation list is
`logic.trust.revocation.Revocations`, that of a witness set `logic.trust.witnesses.WitnessSet`. A
staple is the statement with the proof that its signer is an HQ of this network: the DER of HQ's
intermediate certificate, issued by a pinned root, whose URI names the BLAKE3 of the signing
identity key. Beside them travels, once there is one, the proof that the statement is in the log.
"""

from __future__ import annotations

from holdfast.logic.fleet.model import NetworkId, SlotId, Version
from holdfast.logic.trust.revocation import Revocations, Revoked
from holdfast.logic.trust.witnesses import WitnessKey, WitnessSet
from holdfast.wire.codec import Message
from holdfast.wire.signed import Signed


class Logged(Message):
    """A leaf's place in the log: `index`, the RFC 6962 `path`, and a checkpoint as a signed note
    with cosignatures. `signer` is the identity key of the HQ that signed the note, `proof` its
    intermediate (DER)."""

    index: int
    path: tuple[bytes, ...]
    note: bytes
    signer: bytes
    proof: bytes


class Staple(Message):
    """A signed statement of HQ and the intermediate certificate (DER) that vouches for it.

    `logged` shows that it is in the log; `overrides` are `Type.OVERRIDE` signatures of witnesses'
    owners who want a record followed that the adoption rules would not (D4)."""

    signed: Signed
    proof: bytes
    logged: Logged | None = None
    overrides: tuple[Signed, ...] = ()


class Override(Message):
    """Body of a `Type.OVERRIDE` signature by a witness's identity key: follow exactly this record.
    `record` is the BLAKE3 of the body that HQ signed."""

    network: NetworkId
    slot: SlotId
    version: Version
    record: bytes


__all__ = [
    "Logged",
    "Override",
    "Revocations",
    "Revoked",
    "Staple",
    "WitnessKey",
    "WitnessSet",
]
