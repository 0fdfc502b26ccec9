"""World-free primitives: hash, derive, verify, text forms. All that `logic` may use of crypto."""

from __future__ import annotations

import base64
import hashlib

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HASH_BYTES = 32


def hash_bytes(data: bytes | memoryview) -> bytes:
    """BLAKE3, 32 bytes."""
    return blake3(data).digest()


def keyed_hash(key: bytes, *parts: bytes | memoryview) -> bytes:
    """BLAKE3 keyed with 32 bytes, over the parts back to back."""
    hasher = blake3(key=key)
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def derive_key(context: str, material: bytes, length: int = 32) -> bytes:
    """BLAKE3 derive-key mode. Contexts start with `holdfast v1` and are listed in PROTOCOL.md."""
    assert context.startswith("holdfast v1 "), context
    return blake3(material, derive_key_context=context).digest(length=length)


def sha256(*parts: bytes | memoryview) -> bytes:
    """SHA-256 over the parts back to back; only where an outside format asks for it."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def verify_ed25519(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether `signature` over `data` is by `public`. False for a key that is no point."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def node_id(identity: bytes) -> bytes:
    """A node's id from its Ed25519 identity key (D6)."""
    return hash_bytes(identity)


def base32(data: bytes) -> str:
    """Lower-case base32 without padding: node ids and tokens as people see them."""
    return base64.b32encode(data).decode().rstrip("=").lower()


def base32_decode(text: str) -> bytes:
    """Inverse of `base32`. Raises ValueError."""
    return base64.b32decode(text.upper() + "=" * (-len(text) % 8))
