"""What the folder engine asks of the world beyond the disk: somewhere to put packs, and back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import msgspec


class BlobSink(Protocol):
    """Where packs go. Implemented over the outbox of the fabric; in memory by tests."""

    async def put_bulk(self, payload: bytes) -> bytes:
        """Seal `payload` (at most `crypto.blob.PAYLOAD_BYTES_MAX` bytes) as one bulk blob, make it
        durable on this device's outbox, and return its id.

        May wait: that is the backpressure. Several calls may be under way at once. Raises
        OperationFault when the outbox cannot take it.
        """
        ...


class BlobSource(Protocol):
    """Where packs come from."""

    def get_bulk(self, blobs: Sequence[bytes]) -> AsyncIterator[tuple[bytes, bytes]]:
        """Yield (blob id, payload) for each of `blobs`, in any order, each at most once, fetching
        ahead by a bounded amount.

        A blob that every server was asked for in vain, or that does not open, is left out: the
        caller names what is incomplete. Whole blobs only: a part of one cannot be authenticated.
        Raises OperationFault when no server can be reached.
        """
        ...


class Progress(msgspec.Struct, frozen=True):
    """How far a phase is. Totals are known when the phase starts; 0 when there is nothing."""

    phase: str
    """scan, read, fetch, place, sync or done."""
    files: int = 0
    files_total: int = 0
    bytes: int = 0
    bytes_total: int = 0


OnProgress = Callable[[Progress], None]


def no_progress(_progress: Progress) -> None:
    """Nobody is watching."""
