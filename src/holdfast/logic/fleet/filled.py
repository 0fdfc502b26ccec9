"""Which records a server speaks of when it says that it is filled.

A word that outlives what it was said of is worse than none: a server that was filled yesterday and
took a slot today may not have heard of it yet. So it says what it is filled *of*, and headquarters
believes it when that is what its own rows say (seed 004 §6.2, §7.3).
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.crypto.pure import hash_bytes
from holdfast.logic.fleet.model import SlotId, Version


def digest_of(records: Iterable[tuple[SlotId, Version]]) -> bytes:
    """32 bytes for a set of slot records: H of each slot (16 bytes), epoch and n (u64), by slot."""
    return hash_bytes(
        b"".join(
            slot + version.epoch.to_bytes(8, "big") + version.n.to_bytes(8, "big")
            for slot, version in sorted(records)
        )
    )
