"""Reading one certificate: what it says of itself, in our terms, nothing verified (D6).

Everything that `cryptography` may raise on hostile bytes becomes `PeerFault` here. Results are
remembered by the exact bytes: a relay sees the same intermediate ten thousand times.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import SignatureAlgorithmOID

from holdfast.crypto.pure import base32, base32_decode, sha256
from holdfast.crypto.tlskey import PARSE_ERRORS, p256_spki, refused
from holdfast.errors import PeerFault

CERTIFICATE_BYTES_MAX: Final = 8 * 1024
"""Ours are below 1 KiB; a parser is fed no more than this."""
_LABEL = "[a-z][a-z0-9-]{0,31}"
_URI = re.compile(
    rf"holdfast://([0-9a-f]{{32}})/(?:(root)|({_LABEL})/(?:({_LABEL})/)?([a-z2-7]{{52}}))"
)


class NodeName(msgspec.Struct, frozen=True):
    """Who a certificate speaks for. `node` is the 32-byte node id, empty for a root; `cell` is
    where an entry or a core belongs, empty for everybody else."""

    network: bytes
    role: str
    node: bytes
    cell: str = ""

    def uri(self) -> str:
        """The SPIFFE-style SAN URI: holdfast://<network>/<role>[/<cell>]/<node id>."""
        parts = (self.network.hex(), self.role, self.cell, base32(self.node) if self.node else "")
        return "holdfast://" + "/".join(part for part in parts if part)


class CertInfo(msgspec.Struct, frozen=True):
    """What a certificate says of itself; nothing verified. `serial` is decimal digits."""

    serial: str
    not_before: int
    not_after: int
    spki: bytes
    name: NodeName | None
    dns: str
    authority: bool
    domain: str
    """The DNS name constraint of an authority, else empty."""

    @property
    def key_hash(self) -> bytes:
        """SHA-256 of the SPKI: how a key is named in the revocation list."""
        return sha256(self.spki)


def cert_info(der: bytes) -> CertInfo:
    """What a certificate says of itself, unverified. Raises PeerFault when it does not parse."""
    return _info(der)


def fingerprint(der: bytes) -> bytes:
    """SHA-256 of a *root* certificate, for pins, tokens and people. Never used to revoke."""
    return sha256(der)


def to_pem(chain: Iterable[bytes]) -> bytes:
    """DER certificates as one PEM file, in order."""
    return b"".join(read(der).public_bytes(serialization.Encoding.PEM) for der in chain)


def from_pem(pem: bytes) -> tuple[bytes, ...]:
    """DER of every certificate in a PEM file, in order. Raises PeerFault."""
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except PARSE_ERRORS as error:
        raise PeerFault(f"not certificates in PEM: {first_line(error)}") from error
    return tuple(item.public_bytes(serialization.Encoding.DER) for item in certificates)


@lru_cache(maxsize=1024)
def read(der: bytes) -> x509.Certificate:
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise PeerFault(f"certificate of {len(der)} bytes", code="too-large")
    try:
        return x509.load_der_x509_certificate(der)
    except PARSE_ERRORS as error:
        raise PeerFault(f"not a certificate: {first_line(error)}", code="certificate") from error


@lru_cache(maxsize=1024)
def _info(der: bytes) -> CertInfo:
    certificate = read(der)
    try:
        if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
            raise refused("certificates are signed with ECDSA and SHA-256")
        authority, domain = _authority_of(certificate)
        name, dns = _names_of(certificate)
        return CertInfo(
            serial=str(certificate.serial_number),
            not_before=int(certificate.not_valid_before_utc.timestamp()),
            not_after=int(certificate.not_valid_after_utc.timestamp()),
            spki=p256_spki(certificate.public_key()),
            name=name,
            dns=dns,
            authority=authority,
            domain=domain,
        )
    except PARSE_ERRORS as error:
        raise PeerFault(f"not our certificate: {first_line(error)}", code="certificate") from error


def _authority_of(certificate: x509.Certificate) -> tuple[bool, str]:
    """CA flag and DNS name constraint; an authority must be able to sign certificates."""
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    if not basic.value.ca:
        return False, ""
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    if not usage.value.key_cert_sign or not basic.critical or basic.value.path_length is None:
        raise refused("an authority without certificate signing or path length")
    limits = certificate.extensions.get_extension_for_class(x509.NameConstraints)
    permitted = limits.value.permitted_subtrees or []
    if len(permitted) != 1 or not isinstance(permitted[0], x509.DNSName):
        raise refused("an authority is constrained to one domain")
    return True, permitted[0].value


def _names_of(certificate: x509.Certificate) -> tuple[NodeName | None, str]:
    """The one URI and the DNS name, if they are ours; (None, "") for anything else."""
    names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    uris = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    hosts = [name.value for name in names if isinstance(name, x509.DNSName)]
    if len(uris) != 1 or len(hosts) > 1 or len(names) != len(uris) + len(hosts):
        return None, ""
    return parse_uri(uris[0]), hosts[0] if hosts else ""


def parse_uri(uri: str) -> NodeName | None:
    """The name in a SAN URI of ours, in its one canonical spelling; else None."""
    match = _URI.fullmatch(uri)
    if match is None:
        return None
    network, root, role, cell, node = match.groups()
    id = base32_decode(node) if node else b""
    name = NodeName(bytes.fromhex(network), root or role, id, cell or "")
    return name if name.uri() == uri else None


@lru_cache(maxsize=256)
def issued(issuer: bytes, subject: bytes) -> bool:
    """Whether `issuer`'s key signed `subject` and the names link. Pure, hence remembered."""
    try:
        read(subject).verify_directly_issued_by(read(issuer))
    except (*PARSE_ERRORS, InvalidSignature):
        return False
    return True


def is_self_signed(der: bytes) -> bool:
    """Whether a certificate is signed by the key it holds: a root, as opposed to a link."""
    return issued(der, der)


def first_line(error: Exception) -> str:
    """An error of `cryptography` without its pages of context."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
