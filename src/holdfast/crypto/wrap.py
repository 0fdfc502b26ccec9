"""Sealing a secret to one key: HPKE base mode, X-Wing (ML-KEM-768 and X25519), RFC 9180.

Suite: MLKEM768_X25519 (KEM 0x647A), HKDF-SHA256, ChaCha20-Poly1305. A wrap key is 32 bytes of
seed; `shake_256(seed).digest(96)` gives the 64-byte ML-KEM seed and the X25519 key, as X-Wing
does. The public key is 1,184 | 32 bytes. What the secret is for goes into `info` (D9): a secret
wrapped for one purpose does not unwrap for another.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from holdfast.errors import PeerFault

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_MLKEM_PUBLIC_BYTES = 1_184
WRAP_PUBLIC_BYTES = _MLKEM_PUBLIC_BYTES + 32
WRAP_OVERHEAD_BYTES = 1_120 + 16


class WrapKey:
    """The private half, from 32 random bytes. Never shows the seed in repr or logs."""

    __slots__ = ("_private", "public")

    def __init__(self, seed: bytes) -> None:
        assert len(seed) == 32
        spread = hashlib.shake_256(seed).digest(96)
        lattice = MLKEM768PrivateKey.from_seed_bytes(spread[:64])
        curve = X25519PrivateKey.from_private_bytes(spread[64:])
        self._private = MLKEM768X25519PrivateKey(lattice, curve)
        self.public: bytes = (
            lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        )

    def __repr__(self) -> str:
        return f"WrapKey(public={self.public.hex()[:16]})"

    def unwrap(self, sealed: bytes, info: bytes) -> bytes:
        """What was wrapped to this key for `info`. Raises PeerFault."""
        try:
            return _SUITE.decrypt(sealed, self._private, info=info)
        except InvalidTag as error:
            raise PeerFault("wrapped secret does not open", code="unopenable") from error


def wrap(public: bytes, secret: bytes, info: bytes) -> bytes:
    """`secret` sealed to the wrap key `public` for `info`. Raises PeerFault for no such key."""
    if len(public) != WRAP_PUBLIC_BYTES:
        raise PeerFault(f"wrap key of {len(public)} bytes")
    try:
        lattice = MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC_BYTES])
        curve = X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC_BYTES:])
        return _SUITE.encrypt(secret, MLKEM768X25519PublicKey(lattice, curve), info=info)
    except ValueError as error:
        raise PeerFault("wrap key is no valid point") from error
