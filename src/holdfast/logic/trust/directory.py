"""Leaves of the transparency log: every certificate and statement HQ ever signed (D1, D15).

A leaf is the MessagePack of `[kind, body]`: a certificate's DER, or the MessagePack of a `Signed`.
One larger than an entry may be is logged by its hash: `[kind + " by hash", BLAKE3(body)]`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.limits.trust import LOG_ENTRY_BYTES_MAX

CERTIFICATE: Final = "certificate"
SLOT_RECORD: Final = "slot record"
REVOCATIONS: Final = "revocations"
WITNESSES: Final = "witnesses"
TICKET_KEYS: Final = "ticket keys"
AUDIT_HEAD: Final = "audit head"
BY_HASH: Final = " by hash"


class Leaf(msgspec.Struct, frozen=True, array_like=True):
    """`[kind, body]`."""

    kind: str
    body: bytes

    def data(self) -> bytes:
        """The bytes under the leaf hash."""
        if len(self.body) > LOG_ENTRY_BYTES_MAX:
            return msgspec.msgpack.encode((self.kind + BY_HASH, hash_bytes(self.body)))
        return msgspec.msgpack.encode(self)
