"""Certificates of devices: self-signed, Ed25519, the key is the device key (D7; ADR 0039).

Nothing in them counts but the key: no name, no time. They exist because TLS wants them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from holdfast.crypto.certinfo import read
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.crypto.tlskey import PARSE_ERRORS
from holdfast.errors import PeerFault

_BEGIN: Final = datetime(2020, 1, 1, tzinfo=UTC)
_END: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""RFC 5280, 4.1.2.5: no well-defined end."""


def device_private(key: SigningKey) -> Ed25519PrivateKey:
    """The key as the TLS library wants it."""
    return Ed25519PrivateKey.from_private_bytes(key.seed)


def device_certificate(key: SigningKey) -> bytes:
    """DER; the same key gives the same bytes."""
    private = device_private(key)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "holdfast device")])
    serial = int.from_bytes(hash_bytes(b"holdfast v1 device serial" + key.public)[:16], "big") | 1
    builder = x509.CertificateBuilder(
        name, name, private.public_key(), serial, _BEGIN, _END
    )  # fmt: skip
    return builder.sign(private, None).public_bytes(Encoding.DER)


def device_of(der: bytes) -> bytes:
    """The device key a certificate is of. Raises PeerFault when it is none, or not self-signed."""
    certificate = read(der)
    try:
        public = certificate.public_key()
        if not isinstance(public, Ed25519PublicKey):
            raise PeerFault("a device shows an Ed25519 certificate", code="certificate")
        public.verify(certificate.signature, certificate.tbs_certificate_bytes)
    except (InvalidSignature, *PARSE_ERRORS) as error:
        raise PeerFault("device certificate by somebody else", code="certificate") from error
    return public.public_bytes_raw()
