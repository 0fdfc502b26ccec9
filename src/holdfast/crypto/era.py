"""One era of a group: everything it needs from one 32-byte secret (D16).

content key  - encrypts blobs         derive("holdfast v1 era content")
salt key     - makes blob salts       derive("holdfast v1 era salt")
access key   - opens sessions         Ed25519 seed = derive("holdfast v1 era access")
tag          - names the group to servers: BLAKE3(access public key)

Servers see the tag and the access public key, never the secret, and learn no membership.
"""

from __future__ import annotations

from functools import cached_property

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import derive_key, hash_bytes


class Era:
    """The keys of era `number` of a group on `network`."""

    def __init__(self, secret: bytes, network: bytes, number: int = 0) -> None:
        assert len(secret) == 32
        assert len(network) == 16
        assert 0 <= number < 2**32
        self.secret = secret
        self.network = network
        self.number = number

    def __repr__(self) -> str:
        return f"Era(number={self.number}, tag={self.tag.hex()[:16]})"

    @cached_property
    def content_key(self) -> bytes:
        return derive_key("holdfast v1 era content", self.secret)

    @cached_property
    def salt_key(self) -> bytes:
        return derive_key("holdfast v1 era salt", self.secret)

    @cached_property
    def access(self) -> SigningKey:
        return SigningKey(derive_key("holdfast v1 era access", self.secret))

    @cached_property
    def tag(self) -> bytes:
        return hash_bytes(self.access.public)
