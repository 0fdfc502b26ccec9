"""What a server asks of its store (D11-D15)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from holdfast.errors import OperationFault
from holdfast.limits import (
    DISK_RESERVE_BYTES,
    GROUP_BYTES_MAX,
    GROUPS_MAX,
    STORE_BYTES_MAX,
)
from holdfast.wire.pool import BlobClass, BucketSummary, DaySummary, PushReply


class WriteRefused(OperationFault):
    """The store takes no writes now. `code` is `full` (room may return), `busy` (too much is
    queued) or `read-only` (the disk broke a promise: nothing is written until a restart)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, retryable=code != "read-only")
        self.code = code


class Incoming(NamedTuple):
    """A blob to store. `blob` is its id, already checked against `body`."""

    blob: bytes
    born: int
    body: bytes | memoryview


class Entry(NamedTuple):
    """A stored blob as listings show it."""

    sequence: int
    blob: bytes
    size: int
    blob_class: BlobClass
    born: int


class DayItem(NamedTuple):
    """A stored blob as a server of the same slot sees it."""

    tag: bytes
    blob: bytes
    size: int
    blob_class: BlobClass


class StorePolicy(msgspec.Struct, frozen=True):
    """How much may be stored. Defaults are those of `limits`."""

    group_bytes_max: int = GROUP_BYTES_MAX
    groups_max: int = GROUPS_MAX
    store_bytes_max: int = STORE_BYTES_MAX
    reserve_bytes: int = DISK_RESERVE_BYTES


class StoreFigures(msgspec.Struct, frozen=True):
    """What the store says of itself. `trouble` is why it takes no writes or what it
    could not read just now, empty when all is well."""

    groups: int
    blobs: int
    stored_bytes: int
    free_bytes: int
    commit_p99_ms: float
    trouble: str
    rotten: int
    """Blobs found damaged on disk since the start."""


Listener = Callable[[bytes, bytes, int], None]
"""`listener(slot, tag, head)`: called in the event loop after a commit moved a head."""


class BlobStore(Protocol):
    """Blobs by (slot, tag), each with a sequence of its own. Reads may come from any thread."""

    @property
    def incarnation(self) -> bytes:
        """16 random bytes minted with the store (D14)."""
        ...

    async def push(
        self, slot: bytes, tag: bytes, blob_class: BlobClass, blobs: Sequence[Incoming]
    ) -> PushReply:
        """Store all of them or none; receipts once durable. Idempotent by id. Raises PeerFault
        (`quota`) and WriteRefused."""
        ...

    def allow(self, group_bytes_max: int) -> None:
        """From now on a group may store that much."""
        ...

    def head(self, slot: bytes, tag: bytes) -> int:
        """The highest sequence ever given out; 0 for a tag never seen."""
        ...

    def used_bytes(self, slot: bytes, tag: bytes) -> int: ...

    def first_at(self, slot: bytes, tag: bytes) -> int | None:
        """Unix seconds of the tag's first commit here; None when nothing of it is here."""
        ...

    def after(
        self, slot: bytes, tag: bytes, sequence: int, count: int, blob_class: BlobClass | None
    ) -> list[Entry]:
        """Up to `count` entries past `sequence`, in order."""
        ...

    def listing(self, slot: bytes, tag: bytes, born: int, blob: bytes, count: int) -> list[Entry]:
        """Up to `count` entries past (born day, id), in that order."""
        ...

    def sizes(self, slot: bytes, tag: bytes, blobs: Sequence[bytes]) -> dict[bytes, int]:
        """Sizes of those that are here."""
        ...

    def read(self, slot: bytes, tag: bytes, blobs: Sequence[bytes]) -> dict[bytes, bytes]:
        """Bodies of those that are here and intact; a damaged one is missing from now on."""
        ...

    def days(self, slot: bytes) -> tuple[DaySummary, ...]: ...

    def buckets(self, slot: bytes, born: int) -> tuple[BucketSummary, ...]: ...

    def day_items(self, slot: bytes, born: int, bucket: int) -> list[DayItem]: ...

    def slots_of(self, born: int) -> tuple[bytes, ...]:
        """The slots with anything born that day."""
        ...

    def born_days(self) -> list[int]:
        """The born days on disk, oldest first."""
        ...

    async def drop_day(self, born: int) -> int:
        """Forget a born day; the number of blobs that went with it."""
        ...

    def figures(self) -> StoreFigures: ...
