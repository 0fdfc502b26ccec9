"""Signed statements of HQ that clients and servers carry for each other.

The body of a slot record is `logic.fleet.model.SlotRecord`. A staple is the record with the proof
that its signer is an HQ of this network: the DER of HQ's intermediate certificate, issued by a
pinned root, whose URI names the BLAKE3 of the signing identity key.
"""

from __future__ import annotations

from holdfast.logic.fleet.model import NetworkId, NodeId, Version
from holdfast.wire.codec import Message
from holdfast.wire.signed import Signed


class Staple(Message):
    """A signed statement of HQ and the intermediate certificate (DER) that vouches for it."""

    signed: Signed
    proof: bytes


class Revoked(Message):
    """One entry of the revocation list: by node, by serial and by key, whichever matches (D6)."""

    node: NodeId
    serial: str
    """Serial number, decimal digits; empty when every certificate of the node is out."""
    key_hash: bytes
    """SHA-256 of the certificate's SPKI; empty when the serial alone is meant."""
    reason: str
    at: int


class Revocations(Message):
    """Signed, versioned, grow-only (D6)."""

    network: NetworkId
    version: Version
    issued_at: int
    entries: tuple[Revoked, ...]
