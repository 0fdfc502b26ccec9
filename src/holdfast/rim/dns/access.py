"""How a primary name server is reached, as it is configured; light, for every command reads it."""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.errors import UsageError

ALGORITHMS: Final = frozenset({"hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"})
"""RFC 8945 §6, without those it advises against."""


class Access(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which server takes our updates, and the key it knows us by."""

    server: str
    """`host:port`, the host an IP literal."""
    key_name: str
    key_file: str
    """Holds the secret in base64 and nothing else."""
    algorithm: str = "hmac-sha256"

    def check(self) -> None:
        """Raises UsageError."""
        labels = self.key_name.rstrip(".").split(".")
        if not all(0 < len(label) < 64 and label.isascii() for label in labels):
            raise UsageError(f"dns_primary.key_name: {self.key_name!r} is no name of a key")
        if self.algorithm.rstrip(".") not in ALGORITHMS:
            raise UsageError(f"dns_primary.algorithm: no {self.algorithm}; hmac-sha256 is usual")
