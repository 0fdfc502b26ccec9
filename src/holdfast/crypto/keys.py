"""Ed25519 keys of nodes, persons, devices and groups, and the signed envelope they make."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from holdfast.crypto.pure import node_id, verify_ed25519


class SigningKey:
    """An Ed25519 private key from its 32-byte seed. Never shows the seed in repr or logs."""

    __slots__ = ("_private", "_seed", "public")

    def __init__(self, seed: bytes) -> None:
        assert len(seed) == 32, "an Ed25519 seed is 32 bytes"
        self._seed = seed
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public: bytes = self._private.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()[:16]})"

    @property
    def seed(self) -> bytes:
        """The secret itself, for sealing to disk."""
        return self._seed

    @property
    def node(self) -> bytes:
        """The node id this key names, when it is a node's identity."""
        return node_id(self.public)

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature over `data`."""
        return self._private.sign(data)


__all__ = ["SigningKey", "verify_ed25519"]
