"""Signed statements of HQ that clients and servers carry for each other.

The body of a slot record is `logic.fleet.model.SlotRecord`, that of a revocation list is
`logic.trust.revocation.Revocations`. A staple is the statement with the proof that its signer is
an HQ of this network: the DER of HQ's intermediate certificate, issued by a pinned root, whose URI
names the BLAKE3 of the signing identity key.
"""

from __future__ import annotations

from holdfast.logic.trust.revocation import Revocations, Revoked
from holdfast.wire.codec import Message
from holdfast.wire.signed import Signed


class Staple(Message):
    """A signed statement of HQ and the intermediate certificate (DER) that vouches for it."""

    signed: Signed
    proof: bytes


__all__ = ["Revocations", "Revoked", "Staple"]
