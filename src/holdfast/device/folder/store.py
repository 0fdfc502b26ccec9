"""Chunks on their way out: packed, handed to the sink a few packs at a time, and remembered.

At any moment a chunk of this snapshot is in `_places` (known, perhaps not yet sealed) or in the
index (sealed), or still with the thread that claimed it. All of this runs in the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from holdfast.device.folder.index import FolderIndex
from holdfast.device.folder.pack import Pack, Packer, Place
from holdfast.device.folder.ports import BlobSink
from holdfast.device.folder.read import Claims, RawChunk

PUTS_MAX = 3
"""Packs handed to the sink at once: enough to keep two cores sealing. Sealing copies a pack four
times over."""


class PackWriter:
    """Packs chunks and hands full packs to the sink."""

    def __init__(self, sink: BlobSink, index: FolderIndex, claims: Claims) -> None:
        self._sink = sink
        self._index = index
        self._claims = claims
        self._packer = Packer()
        self._places: dict[bytes, Place] = {}
        self._slots = asyncio.Semaphore(PUTS_MAX)
        self._puts: set[asyncio.Task[None]] = set()
        self._tick = asyncio.Event()
        self._error: BaseException | None = None
        self.packs = 0
        self.payload_bytes = 0

    async def put(self, raw: RawChunk) -> Place:
        """The place of a chunk, which may be sealed later. Waits while the sink is behind; raises
        what the sink raised."""
        self._check()
        if raw.piece is not None:
            return Place.known(raw.piece)
        place = self._places.get(raw.hash)
        if place is None:
            if not raw.stored and (piece := self._index.chunks([raw.hash]).get(raw.hash)):
                return Place.known(piece)
            place = self._places[raw.hash] = Place(raw.hash, raw.plain)
        if raw.stored and not place.stored:
            full = self._packer.add(place, raw.codec, raw.stored)
            self._wake()
            for pack in full:
                await self._seal(pack)
        return place

    async def settle(self, places: Iterable[Place]) -> None:
        """Return when all of `places` are sealed."""
        places = [place for place in places if not place.pack]
        while True:
            self._check()
            for pack in self._packer.close_all():
                await self._seal(pack)
            places = [place for place in places if not place.pack]
            if not places:
                return
            await self._tick.wait()

    async def close(self) -> None:
        """Seal what is open and wait for the sink."""
        for pack in self._packer.close_all():
            await self._seal(pack)
        while self._puts:
            await asyncio.wait(self._puts)
        self._check()

    async def abort(self) -> None:
        """Stop handing packs over."""
        puts = list(self._puts)
        for task in puts:
            task.cancel()
        await asyncio.gather(*puts, return_exceptions=True)

    async def _seal(self, pack: Pack) -> None:
        await self._slots.acquire()
        task = asyncio.create_task(self._write(pack))
        self._puts.add(task)
        task.add_done_callback(self._done)

    async def _write(self, pack: Pack) -> None:
        blob = await self._sink.put_bulk(pack.payload())
        assert len(blob) == 32, "a sink returns a blob id"
        pack.sealed(blob)
        self._index.add_chunks(place.piece() for place in pack.places)
        hashes = [place.hash for place in pack.places]
        for digest in hashes:
            self._places.pop(digest, None)
        self._claims.settle(hashes)
        self.packs += 1
        self.payload_bytes += pack.size

    def _done(self, task: asyncio.Task[None]) -> None:
        self._puts.discard(task)
        self._slots.release()
        if not task.cancelled() and task.exception() is not None:
            self._error = self._error or task.exception()
        self._wake()

    def _wake(self) -> None:
        self._tick.set()
        self._tick = asyncio.Event()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
