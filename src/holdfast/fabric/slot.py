"""A slot as a client uses it: put, fetch, read, watch; six servers and a disk behind it.

slot = Slot(network, locator, store)
async with slot.opened(era):
    blob = await slot.put(era, BlobClass.LOG, payload)     durable on this disk
    await slot.uploader.reach(Stage.STORED)                receipts from two relays
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from holdfast.crypto.blob import blob_id, seal
from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.fabric import downloader
from holdfast.fabric.auditor import Auditor
from holdfast.fabric.database import Database
from holdfast.fabric.network import Network
from holdfast.fabric.outbox import Parcel
from holdfast.fabric.puller import LogSink, Puller
from holdfast.fabric.readings import SCHEMA as READINGS
from holdfast.fabric.readings import Readings, Taken
from holdfast.fabric.roster import Roster
from holdfast.fabric.store import Store
from holdfast.fabric.uploader import Uploader
from holdfast.fabric.watcher import News, Watcher
from holdfast.limits.evidence import NOTE_RECEIPTS_MAX
from holdfast.wire.codec import pack
from holdfast.wire.evidence import ReceiptNote
from holdfast.wire.locator import Locator
from holdfast.wire.pool import BlobClass

DAY_S = 86_400


class Nearby(Protocol):
    """Devices that are reached without a server."""

    def wrote(self, parcels: Sequence[Parcel]) -> None:
        """This device made `parcels`; they are durable here."""
        ...

    async def fetch(
        self, tag: bytes, blobs: Sequence[bytes], take: downloader.Taker
    ) -> Sequence[bytes]:
        """Bodies of `blobs` to `take`, checked; those that none of them has."""
        ...


class Slot:
    """One slot of one client. Eras are made known before they are used."""

    def __init__(self, network: Network, locator: Locator, store: Store) -> None:
        self.network = network
        self.store = store
        self.roster = Roster(network, locator, store.records, store.wallet, store.findings)
        self.locator = locator
        self.nearby: Nearby | None = None
        self._eras: dict[bytes, Era] = {}
        self._uploader: Uploader | None = None

    # --- opening -------------------------------------------------------------------------------
    async def open(self, eras: Sequence[Era]) -> None:
        """Have a record and begin to push what the outbox holds.

        Raises OperationFault when there is no record and no server shows one.
        """
        assert eras, "a slot is opened for the sake of some era"
        for era in eras:
            self.know(era)
        await self.roster.start(eras[0].access)
        store = self.store
        self._uploader = Uploader(
            self.roster, store.outbox, store.receipts, store.findings, self._key_of
        )

    async def close(self) -> None:
        """Stop; what was put stays in the outbox."""
        if self._uploader is not None:
            await self._uploader.close()
        await self.roster.close()

    @asynccontextmanager
    async def opened(self, *eras: Era) -> AsyncIterator[Slot]:
        """`open` and `close` around a block."""
        await self.open(eras)
        try:
            yield self
        finally:
            await self.close()

    def know(self, era: Era) -> None:
        """Be able to push for `era`, also what an earlier process left in the outbox."""
        self._eras[era.tag] = era

    @property
    def uploader(self) -> Uploader:
        """The fan-out; after `open`."""
        assert self._uploader is not None, "open the slot first"
        return self._uploader

    def current_locator(self) -> Locator:
        """The locator with the names and addresses of the record now followed."""
        record = self.roster.record
        return self.locator if record is None else self.locator.with_record(record)

    # --- writing -------------------------------------------------------------------------------
    async def put(self, era: Era, blob_class: BlobClass, payload: bytes) -> bytes:
        """Seal `payload`, make it durable here, begin to push it; its blob id."""
        (blob,) = await self.put_many(era, blob_class, [payload])
        return blob

    async def put_many(
        self,
        era: Era,
        blob_class: BlobClass,
        payloads: Sequence[bytes],
        also: Callable[[], None] | None = None,
        then: Callable[[], None] | None = None,
    ) -> list[bytes]:
        """As `put`, with one wait for the disk. Log blobs count as read by this device.

        `also` writes to the store's database, from another thread, in the same transaction. `then`
        is called in the event loop when that is durable, even if the caller is cancelled.
        """
        self.know(era)
        wall_s = self.network.clock.wall()
        born = int(wall_s // DAY_S)
        parcels = await asyncio.to_thread(self._seal, era, blob_class, payloads, born)

        def note() -> None:
            if blob_class is BlobClass.LOG:
                taken = [Taken(parcel.blob, born) for parcel in parcels]
                self.store.readings.record(era.tag, wall_s, taken=taken)
            if also is not None:
                also()

        await self.uploader.put(parcels, note, then)
        if self.nearby is not None:
            self.nearby.wrote(parcels)
        return [parcel.blob for parcel in parcels]

    async def show_receipts(self, era: Era) -> int:
        """Show the other devices the receipts for log blobs that they were not shown yet: with
        them, a server that hides one of these from another device is caught there, at once. The
        number shown; a note is a log blob, of no meaning to the log."""
        receipts = self.store.receipts.to_note(era.tag, NOTE_RECEIPTS_MAX)
        if not receipts:
            return 0
        payload = pack(ReceiptNote(tuple(receipts)))
        self.store.receipts.noted(era.tag)
        born = int(self.network.clock.wall() // DAY_S)
        parcels = await asyncio.to_thread(self._seal, era, BlobClass.LOG, [payload], born)
        self.uploader.note(parcels[0].blob)
        await self.put(era, BlobClass.LOG, payload)
        return len(receipts)

    def _seal(
        self, era: Era, blob_class: BlobClass, payloads: Sequence[bytes], born: int
    ) -> list[Parcel]:
        bodies = [seal(era, blob_class, payload, born) for payload in payloads]
        slot = self.roster.slot
        return [Parcel(slot, era.tag, blob_id(body), body, blob_class) for body in bodies]

    # --- reading -------------------------------------------------------------------------------
    def puller(self, era: Era, sink: LogSink, *, remember: bool = True) -> Puller:
        """A reader of the log of `era`. Without `remember` it begins at the beginning in each
        process, for sinks that keep nothing."""
        self.know(era)
        if not remember:
            return Puller(self.roster, era, Readings(Database(None, READINGS)), sink)
        store = self.store
        auditor = Auditor(self.roster, era, store.readings, store.receipts, store.findings)
        return Puller(self.roster, era, store.readings, sink, auditor)

    def watcher(self, news: News) -> Watcher:
        """A watcher of this slot; run it as a task."""
        return Watcher(self.roster, news)

    async def fetch(
        self, era: Era, blobs: Iterable[bytes], take: downloader.Taker
    ) -> tuple[bytes, ...]:
        """Bodies of `blobs` to `take`, checked; what nobody has. This device's own are at hand,
        and devices nearby are asked before any server.

        Raises OperationFault when no server can be asked.
        """
        elsewhere = []
        for blob in dict.fromkeys(blobs):
            body = await asyncio.to_thread(self.store.outbox.body, blob)
            if body is None:
                elsewhere.append(blob)
            else:
                await take(blob, body)
        if self.nearby is not None and elsewhere:
            elsewhere = list(await self.nearby.fetch(era.tag, elsewhere, take))
            if not elsewhere:
                return ()
        return await downloader.fetch(self.roster, era.access, elsewhere, take)

    def _key_of(self, tag: bytes) -> SigningKey | None:
        era = self._eras.get(tag)
        return era.access if era is not None else None
