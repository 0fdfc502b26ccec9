"""The folder engine's packs, over the pool: `BlobSink` and `BlobSource` for one group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from holdfast.crypto.blob import unseal
from holdfast.crypto.era import Era
from holdfast.errors import PeerFault
from holdfast.fabric.slot import Slot
from holdfast.wire.pool import BlobClass

FETCH_AHEAD: Final = 4
"""Payloads that wait for the engine; with the requests under way this bounds the memory."""


class Packs:
    """Where a group's packs go and come from."""

    def __init__(self, slot: Slot, eras: Callable[[], Sequence[Era]]) -> None:
        """`eras`: what can be opened, the one to write in first."""
        self._slot = slot
        self._eras = eras
        self.local: Callable[[bytes], bytes | None] | None = None
        """Bodies that lie on this disk already; asked before any server."""

    async def put_bulk(self, payload: bytes) -> bytes:
        """Seal, make durable in the outbox, begin to push. Waits while the outbox is full."""
        return await self._slot.put(self._eras()[0], BlobClass.BULK, payload)

    async def get_bulk(self, blobs: Sequence[bytes]) -> AsyncIterator[tuple[bytes, bytes]]:
        """(id, payload) of `blobs` as they come; what nobody has or does not open is left out."""
        left = dict.fromkeys(blobs)
        if self.local is not None:
            for blob in blobs:
                kept = await asyncio.to_thread(self._kept, blob)
                if kept is not None:
                    left.pop(blob, None)
                    yield blob, kept
        for era in self._eras():
            if not left:
                return
            async for blob, payload in self._get(era, list(left)):
                left.pop(blob, None)
                yield blob, payload

    def _kept(self, blob: bytes) -> bytes | None:
        """The payload of a body on this disk, if one of the eras opens it."""
        assert self.local is not None
        body = self.local(blob)
        if body is None:
            return None
        for era in self._eras():
            try:
                return unseal(era, BlobClass.BULK, body).payload
            except PeerFault:
                continue
        return None

    async def _get(self, era: Era, blobs: Sequence[bytes]) -> AsyncIterator[tuple[bytes, bytes]]:
        """What of `blobs` is in one era."""
        queue: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue(FETCH_AHEAD)

        async def take(blob: bytes, body: bytes) -> None:
            try:
                opened = await asyncio.to_thread(unseal, era, BlobClass.BULK, body)
            except PeerFault:
                return
            await queue.put((blob, opened.payload))

        task = asyncio.create_task(self._slot.fetch(era, blobs, take))
        try:
            while True:
                getter = asyncio.create_task(queue.get())
                await asyncio.wait({getter, task}, return_when=asyncio.FIRST_COMPLETED)
                if not getter.done():
                    getter.cancel()
                    break
                yield getter.result()
            while not queue.empty():
                yield queue.get_nowait()
            task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
