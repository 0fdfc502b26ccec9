"""How often this headquarters was restored from a snapshot: the epoch of all it writes (D3)."""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.rim.control.store import ControlStore, KeyValue

RESTORED: Final = "/hq/restored"
REVOKED_SINCE: Final = "/hq/revoked-since"
"""Entries of revocation lists newer than the snapshot, until they are on a list of ours."""


class Restored(msgspec.Struct, frozen=True):
    """The row a restored headquarters begins with. Times are Unix seconds."""

    epoch: int
    at: float
    made_at: int
    """When the snapshot was taken."""


NEVER: Final = Restored(0, 0.0, 0)


def restored_row(kv: KeyValue | None) -> Restored:
    """The row as stored; `NEVER` for none."""
    return msgspec.msgpack.decode(kv.value, type=Restored) if kv else NEVER


async def last_restore(store: ControlStore) -> Restored:
    """Raises OperationFault."""
    return restored_row(await store.get(RESTORED))
