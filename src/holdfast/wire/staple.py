"""Believing a statement of HQ that somebody else carries (D1): a slot record, a revocation list.

The carrier is nobody in particular. What counts is that the signature is by an Ed25519 identity
which the enclosed intermediate certificate names, and that a pinned root issued that certificate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from holdfast.crypto.certificates import verify_hq_proof
from holdfast.crypto.certinfo import cert_info
from holdfast.errors import PeerFault
from holdfast.logic.trust.revocation import Presented, RevocationList
from holdfast.wire.envelope import verify
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type

T = TypeVar("T")


def verify_staple(
    roots: Sequence[bytes],
    staple: Staple,
    kind: Type,
    shape: type[T],
    now: float,
    *,
    revocations: RevocationList | None = None,
) -> T:
    """The statement in `staple`, checked: proof, signature over the received bytes, then decoded.

    A statement that names a network must name the one of its proof. With `revocations`, an HQ whose
    intermediate is on the list is not believed either. `now` is the wall clock. Whether the
    statement is newer than one already held is the caller's question. Raises PeerFault.
    """
    verify_hq_proof(roots, staple.proof, staple.signed.signer, now)
    if revocations is not None and (entry := revocations.find(presented(staple.proof))):
        raise PeerFault(f"a statement of a revoked headquarters: {entry.reason}", code="revoked")
    statement = verify(kind, shape, staple.signed)
    name = cert_info(staple.proof).name
    assert name is not None, "a verified proof names its network"
    if getattr(statement, "network", name.network) != name.network:
        raise PeerFault("a statement about another network", code="certificate")
    return statement


def presented(der: bytes) -> Presented:
    """What the revocation list asks of a certificate. Raises PeerFault when it does not parse."""
    info = cert_info(der)
    return Presented(info.name.node if info.name else b"", info.serial, info.key_hash)
