"""Blind RSA signatures: RSABSSA-SHA384-PSS-Randomized (RFC 9474).

A signer signs what it cannot see; whoever blinded it takes the blinding off and holds a plain
RSASSA-PSS signature (SHA-384, MGF1 with SHA-384, salt of 48 bytes) that anybody verifies with an
ordinary library. The signer's transcript says nothing about which signature came of which request.

`cryptography` has no raw RSA operation, so blinding and signing are here, on Python integers. Their
time depends on their values: the client's runs on values that are its own and fresh, the signer's
is blinded once more with a fresh factor, so that its time says nothing about the key.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from holdfast.crypto.pure import sha256
from holdfast.crypto.tlskey import PARSE_ERRORS
from holdfast.errors import PeerFault, UsageError

PREFIX_BYTES: Final = 32
SALT_BYTES: Final = 48
KEY_BITS: Final = 2048
KEY_BITS_MAX: Final = 4096
_HASH_BYTES: Final = 48
_EXPONENT: Final = 65_537
_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=SALT_BYTES)


class BlindPublicKey:
    """A key that verifies, and for which messages are blinded."""

    __slots__ = ("_bytes", "_e", "_key", "_n", "spki")

    def __init__(self, spki: bytes) -> None:
        """From SubjectPublicKeyInfo, DER. Raises PeerFault for any other kind of key."""
        try:
            key = serialization.load_der_public_key(spki)
        except PARSE_ERRORS as error:
            raise PeerFault(f"not a public key: {error}") from error
        if not isinstance(key, rsa.RSAPublicKey):
            raise PeerFault("not an RSA key")
        numbers = key.public_numbers()
        bits = numbers.n.bit_length()
        if not KEY_BITS <= bits <= KEY_BITS_MAX or bits % 8 or numbers.e != _EXPONENT:
            raise PeerFault("an RSA key of a size or exponent that is not used here")
        self.spki = spki
        self._key = key
        self._n, self._e = numbers.n, numbers.e
        self._bytes = bits // 8

    @property
    def id(self) -> bytes:
        """SHA-256 of the SPKI."""
        return sha256(self.spki)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether this is a plain RSASSA-PSS signature of the prepared message."""
        try:
            self._key.verify(signature, message, _PSS, hashes.SHA384())
        except (InvalidSignature, ValueError):
            return False
        return True

    def blind(self, message: bytes, salt: bytes, factor: bytes) -> tuple[bytes, int]:
        """(blinded message, inverse of the blinding factor) for a prepared message.

        `salt` is `SALT_BYTES` of fresh randomness, or nothing for the PSSZERO variants of the
        RFC; `factor` is fresh randomness, 16 bytes longer than the modulus, so that the factor is
        uniform to 2^-128. Raises UsageError in the case, which never comes, that it has no inverse.
        """
        assert len(factor) >= self._bytes + 16
        encoded = int.from_bytes(_encode(message, self._n.bit_length() - 1, salt), "big")
        r = int.from_bytes(factor, "big") % self._n
        if math.gcd(encoded, self._n) != 1 or math.gcd(r, self._n) != 1 or r < 2:
            raise UsageError("this randomness has no inverse; draw again")
        return self._blinded(encoded, r)

    def _blinded(self, encoded: int, r: int) -> tuple[bytes, int]:
        blinded = encoded * pow(r, self._e, self._n) % self._n
        return blinded.to_bytes(self._bytes, "big"), pow(r, -1, self._n)

    @property
    def factor_bytes(self) -> int:
        """How many random bytes `blind` wants as its factor."""
        return self._bytes + 16

    def finalize(self, message: bytes, blind_signature: bytes, inverse: int) -> bytes:
        """The signature of the prepared message. Raises PeerFault when the signer cheated."""
        if len(blind_signature) != self._bytes:
            raise PeerFault("a blind signature of the wrong size", code="signature")
        value = int.from_bytes(blind_signature, "big") * inverse % self._n
        signature = value.to_bytes(self._bytes, "big")
        if not self.verify(message, signature):
            raise PeerFault("the signer's answer is no signature", code="signature")
        return signature


class BlindSigningKey:
    """A key that signs blindly. Never shows its secret in repr or logs."""

    __slots__ = ("_dp", "_dq", "_e", "_n", "_p", "_private", "_q", "_q_inverse", "public")

    def __init__(self, private: rsa.RSAPrivateKey) -> None:
        numbers = private.private_numbers()
        self._private = private
        self._n, self._e = numbers.public_numbers.n, numbers.public_numbers.e
        self._p, self._q, self._q_inverse = numbers.p, numbers.q, numbers.iqmp
        self._dp, self._dq = numbers.dmp1, numbers.dmq1
        der = private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.public = BlindPublicKey(der)

    def __repr__(self) -> str:
        return f"BlindSigningKey({self.public.id.hex()[:16]})"

    @classmethod
    def generate(cls) -> BlindSigningKey:
        """A new key of `KEY_BITS`; takes a tenth of a second."""
        return cls(rsa.generate_private_key(_EXPONENT, KEY_BITS))

    @classmethod
    def from_pem(cls, pem: bytes) -> BlindSigningKey:
        """An unencrypted PKCS#8 RSA key. Raises UsageError."""
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except PARSE_ERRORS as error:
            raise UsageError(f"not a private key in PEM: {error}") from error
        if not isinstance(private, rsa.RSAPrivateKey):
            raise UsageError("not an RSA key")
        return cls(private)

    def pem(self) -> bytes:
        """PKCS#8, unencrypted."""
        return self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def _power(self, value: int) -> int:
        """value ** d mod n, by the Chinese remainder theorem: a third of the time."""
        one, two = pow(value, self._dp, self._p), pow(value, self._dq, self._q)
        return two + self._q_inverse * (one - two) % self._p * self._q

    def sign_blinded(self, blinded: bytes, factor: bytes) -> bytes:
        """The blind signature. `factor` is fresh randomness of `factor_bytes` that hides the time
        the key's use takes; the result does not depend on it. Raises PeerFault."""
        value = int.from_bytes(blinded, "big")
        if len(blinded) != self._n.bit_length() // 8 or not 0 < value < self._n:
            raise PeerFault("a blinded message of the wrong size")
        r = int.from_bytes(factor, "big") % self._n
        hidden = value * pow(r, self._e, self._n) % self._n
        signed = self._power(hidden) * pow(r, -1, self._n) % self._n
        if pow(signed, self._e, self._n) != value:
            # One wrong half of a CRT signature gives the key away: it must not leave.
            raise AssertionError("a fault in the signing of a ticket")
        return signed.to_bytes(len(blinded), "big")


def prepare(prefix: bytes, message: bytes) -> bytes:
    """PrepareRandomize: a fresh random prefix keeps the signer from choosing what is signed."""
    assert len(prefix) == PREFIX_BYTES
    return prefix + message


def _encode(message: bytes, bits: int, salt: bytes) -> bytes:
    """EMSA-PSS-ENCODE (RFC 8017 §9.1.1) with SHA-384."""
    size = (bits + 7) // 8
    digest = hashlib.sha384(bytes(8) + hashlib.sha384(message).digest() + salt).digest()
    block = bytes(size - len(salt) - _HASH_BYTES - 2) + b"\x01" + salt
    mask = _mgf1(digest, len(block))
    masked = bytearray(a ^ b for a, b in zip(block, mask, strict=True))
    masked[0] &= 0xFF >> (8 * size - bits)
    return bytes(masked) + digest + b"\xbc"


def _mgf1(seed: bytes, length: int) -> bytes:
    """MGF1 (RFC 8017 §B.2.1) with SHA-384."""
    blocks = range(-(-length // _HASH_BYTES))
    data = b"".join(hashlib.sha384(seed + n.to_bytes(4, "big")).digest() for n in blocks)
    return data[:length]
