"""Whom a certificate names, and whether a pinned root vouches for it (sections 2 and 3)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from .wire import SLOT_RECORD, H, base32, verify


class Distrust(Exception):
    """A certificate or staple that no pinned root vouches for, or that names somebody else."""


def _issued(child: x509.Certificate, issuer: x509.Certificate, length: int) -> bool:
    """Whether a CA that may have `length` more CAs below it issued this certificate."""
    try:
        child.verify_directly_issued_by(issuer)
        limits = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return limits.ca and (limits.path_length is None or limits.path_length >= length)


def _valid(certificate: x509.Certificate) -> bool:
    now = datetime.now(UTC)
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def uri(network: bytes, role: str, node: str) -> str:
    """A node's name in certificates."""
    return f"holdfast://{network.hex()}/{role}/{node}"


def check_intermediate(der: bytes, roots: Sequence[x509.Certificate]) -> x509.Certificate:
    """An intermediate that is valid now and issued by a pinned root that is valid now."""
    intermediate = x509.load_der_x509_certificate(der)
    if not any(_issued(intermediate, root, 1) and _valid(root) for root in roots):
        raise Distrust("no pinned root issued the intermediate")
    if not _valid(intermediate):
        raise Distrust("the intermediate is not valid now")
    return intermediate


def check_chain(chain: Sequence[bytes], roots: Sequence[x509.Certificate], name: str) -> None:
    """Leaf and intermediate, DER, lead to a pinned root, and the leaf has this URI."""
    if len(chain) != 2:
        raise Distrust("a server presents a leaf and an intermediate")
    leaf = x509.load_der_x509_certificate(chain[0])
    if not _issued(leaf, check_intermediate(chain[1], roots), 0) or not _valid(leaf):
        raise Distrust("the intermediate did not issue the leaf, or it is not valid now")
    if name not in _uris(leaf):
        raise Distrust(f"the leaf does not name {name}")


def check_record(
    staple: dict, roots: Sequence[x509.Certificate], network: bytes, slot: bytes
) -> dict:
    """The slot record in a staple that HQ signed."""
    intermediate = check_intermediate(staple["proof"], roots)
    if uri(network, "hq", base32(H(staple["signed"][1]))) not in _uris(intermediate):
        raise Distrust("the intermediate does not name the signer")
    record = verify(SLOT_RECORD, staple["signed"])
    if (record["network"], record["slot"]) != (network, slot):
        raise Distrust("the record is of another network or slot")
    return record
