"""One group as this device works with it: its log, its slot, reading and writing."""

from __future__ import annotations

from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.device.blobs import Packs
from holdfast.device.log import GroupLog
from holdfast.fabric.puller import Reading
from holdfast.fabric.slot import Slot
from holdfast.wire.pool import BlobClass


class Group:
    """A group this device is in. `device` signs what it writes."""

    def __init__(
        self, name: str, kind: str, era: Era, slot: Slot, log: GroupLog, device: SigningKey
    ) -> None:
        self.name = name
        self.kind = kind
        self.era = era
        self.slot = slot
        self.log = log
        self.packs = Packs(slot, era)
        self._device = device
        self._puller = slot.puller(era, log)

    @property
    def id(self) -> bytes:
        """Group id."""
        return self.log.group

    @property
    def caught_up(self) -> bool:
        """Whether two relays agree that there is nothing more (D13)."""
        return self._puller.caught_up.yes

    async def read(self, *, everywhere: bool = False) -> Reading:
        """Read what is new: at two relays, or everywhere. Raises OperationFault."""
        return await self._puller.read(everywhere=everywhere)

    async def read_one(self, name: str) -> Reading:
        """Read what is new at one server. Raises OperationFault and PeerFault."""
        return await self._puller.read_one(name)

    async def write(self, kind: str, entries: bytes, *, signer: SigningKey | None = None) -> bytes:
        """Sign, make durable, begin to push, and fold one operation; its id."""
        written = self.log.prepare(signer or self._device, kind, entries)
        await self.slot.put_many(
            self.era,
            BlobClass.LOG,
            [written.payload],
            also=lambda: self.log.store(written),
            then=lambda: self.log.fold(written),
        )
        return written.id
