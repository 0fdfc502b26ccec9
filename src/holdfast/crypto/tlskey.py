"""P-256 keys of the TLS layer and their public form (D6, D32).

Keys come from 32 seed bytes that the caller draws, signatures are deterministic (RFC 6979): the
same inputs give the same bytes, in vectors and in the simulator.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast.crypto.pure import derive_key, sha256
from holdfast.errors import PeerFault, UsageError

PARSE_ERRORS: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)
"""All that `cryptography` raises on bytes that are no key, certificate or request."""
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class TlsKey:
    """A P-256 private key. Never shows its secret in repr or logs."""

    __slots__ = ("_private",)

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        assert isinstance(private.curve, ec.SECP256R1)
        self._private = private

    def __repr__(self) -> str:
        return f"TlsKey(spki={sha256(self.spki()).hex()[:16]})"

    @classmethod
    def from_bytes(cls, seed: bytes) -> TlsKey:
        """The key that 32 seed bytes stand for (FIPS 186-5 A.2.1: 384 bits modulo n - 1)."""
        assert len(seed) == 32, "a key seed is 32 bytes"
        wide = int.from_bytes(derive_key("holdfast v1 tls key", seed, 48), "big")
        return cls(ec.derive_private_key(wide % (_P256_ORDER - 1) + 1, ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes) -> TlsKey:
        """An unencrypted PKCS#8 or SEC1 key. Raises UsageError when it is not a P-256 one."""
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except PARSE_ERRORS as error:
            raise UsageError(f"not a private key in PEM: {error}") from error
        if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(
            private.curve, ec.SECP256R1
        ):
            raise UsageError("not a P-256 private key; make one with `holdfast`")
        return cls(private)

    def pem(self) -> bytes:
        """PKCS#8 PEM, unencrypted."""
        return self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def spki(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        return spki_of(self._private.public_key())

    @property
    def private(self) -> ec.EllipticCurvePrivateKey:
        """The key itself, for the TLS library."""
        return self._private

    def sign_certificate(self, builder: x509.CertificateBuilder) -> bytes:
        """Sign and serialize to DER."""
        certificate = builder.sign(self._private, hashes.SHA256(), ecdsa_deterministic=True)
        return certificate.public_bytes(serialization.Encoding.DER)

    def sign_crl(self, builder: x509.CertificateRevocationListBuilder) -> bytes:
        """Sign and serialize to DER."""
        crl = builder.sign(self._private, hashes.SHA256(), ecdsa_deterministic=True)
        return crl.public_bytes(serialization.Encoding.DER)

    def sign_request(self, builder: x509.CertificateSigningRequestBuilder) -> bytes:
        """Sign and serialize to DER."""
        request = builder.sign(self._private, hashes.SHA256(), ecdsa_deterministic=True)
        return request.public_bytes(serialization.Encoding.DER)


def spki_of(public: ec.EllipticCurvePublicKey) -> bytes:
    return public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def p256_spki(public: object) -> bytes:
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(
        public.curve, ec.SECP256R1
    ):
        raise refused("keys of this network are P-256")
    return spki_of(public)


def load_spki(spki: bytes) -> ec.EllipticCurvePublicKey:
    try:
        public = serialization.load_der_public_key(spki)
    except PARSE_ERRORS as error:
        raise PeerFault("not a public key") from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or p256_spki(public) != spki:
        raise refused("keys of this network are P-256, uncompressed")
    return public


def refused(message: str) -> PeerFault:
    return PeerFault(message, code="certificate")
