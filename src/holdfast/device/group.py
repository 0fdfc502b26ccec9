"""One group as this device works with it: its log, its eras, its slot, reading and writing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.device.blobs import Packs
from holdfast.device.eras import Readers, Shelf, begin_era
from holdfast.device.log import GroupLog
from holdfast.errors import OperationFault, UsageError
from holdfast.fabric.puller import Puller, Reading
from holdfast.fabric.slot import Slot
from holdfast.logic.group.members import Entry, MemberEntries
from holdfast.logic.group.operation import Kind, encode_entries
from holdfast.wire.pool import BlobClass

KEYRING = "keyring"


class Group:
    """A group this device is in. `device` signs what it writes.

    `readers` says under which names new eras are opened here; `on_era` is called with each era
    learned and with the one that is written in, before anything is.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        era: Era,
        slot: Slot,
        log: GroupLog,
        device: SigningKey,
        *,
        more: tuple[Era, ...] = (),
        readers: Callable[[], Readers] = lambda: (),
        on_era: Callable[[Era], None] = lambda era: None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.era = era
        self.slot = slot
        self.log = log
        self.shelf = Shelf(log.group, era.network, (era, *more))
        self.packs = Packs(slot, self._current_first)
        self.refresher: Callable[[Group], Awaitable[None]] | None = None
        """Begins the new era that must come before the next word."""
        self._device = device
        self._readers = readers
        self._on_era = on_era
        self._pullers: dict[bytes, Puller] = {}
        for known in self.shelf.all():
            self._begin(known)

    @property
    def id(self) -> bytes:
        """Group id."""
        return self.log.group

    @property
    def eras(self) -> tuple[Era, ...]:
        """Every era that can be opened here, oldest first."""
        return self.shelf.all()

    @property
    def caught_up(self) -> bool:
        """Whether two relays agree that there is nothing more in the newest era (D13)."""
        return self._pullers[self.era.tag].caught_up.yes

    @property
    def shut_out(self) -> bool:
        """Whether the group writes in an era that this device cannot open: it was removed, or it
        has not heard of the rekey that lets it in."""
        current = self.log.state.eras.current
        return current is not None and self.shelf.get(current.rekey.tag) is None

    # --- reading -------------------------------------------------------------------------------
    async def read(self, *, everywhere: bool = False) -> Reading:
        """Read what is new: at two relays, or everywhere; old eras too, for stragglers. Raises
        OperationFault."""
        done: set[bytes] = set()
        total: Reading | None = None
        while fresh := [era for era in reversed(self.eras) if era.tag not in done]:
            for era in fresh:
                done.add(era.tag)
                reading = await self._pullers[era.tag].read(everywhere=everywhere)
                total = _sum(total, reading)
            self.follow_eras()
        assert total is not None
        return total

    async def read_one(self, name: str, era: Era | None = None) -> Reading:
        """Read what is new at one server, in the newest era or in `era`. Raises OperationFault and
        PeerFault."""
        puller = self._pullers.get(era.tag if era else self.era.tag)
        assert puller is not None, "eras are learned before they are watched"
        reading = await puller.read_one(name)
        self.follow_eras()
        return reading

    def take_in(self, tag: bytes, bodies: Mapping[bytes, bytes]) -> int:
        """Take log blobs of an era of ours that came from a device; how many were news."""
        puller = self._pullers.get(tag)
        taken = puller.take_in(bodies) if puller is not None else 0
        if taken:
            self.follow_eras()
        return taken

    def knows(self, era: Era) -> bool:
        """Whether `era` is one of this group's."""
        return self.shelf.get(era.tag) is not None

    def follow_eras(self) -> None:
        """Open eras that the log tells of; write in the one that everybody writes in."""
        rekeys = self.log.state.rekeys()
        if not rekeys:
            return
        for era in self.shelf.learn(rekeys, self._readers()):
            self._begin(era)
            self._on_era(era)
        current = self.log.state.eras.current
        written_in = self.shelf.get(current.rekey.tag) if current else None
        if written_in is not None:
            self.era = written_in

    def learn(self, era: Era) -> None:
        """An era that came another way: by an invite, or by the person's keyring."""
        if not self.knows(era):
            self.shelf.add(era)
            self._begin(era)
            self._on_era(era)
        if era.number > self.era.number and self.log.state.eras.current is None:
            self.era = era

    def _begin(self, era: Era) -> None:
        if era.tag not in self._pullers:
            self._pullers[era.tag] = self.slot.puller(era, self.log)

    def _current_first(self) -> tuple[Era, ...]:
        return (self.era, *(era for era in reversed(self.eras) if era is not self.era))

    async def audit(self) -> None:
        """Hold the servers to what they signed."""
        for puller in list(self._pullers.values()):
            await puller.audit()

    # --- writing -------------------------------------------------------------------------------
    async def write(self, kind: str, entries: bytes, *, signer: SigningKey | None = None) -> bytes:
        """Sign, make durable, begin to push, and fold one operation; its id.

        Raises OperationFault while the group has no era that everybody removed is shut out of, and
        none can be begun here.
        """
        if self.log.state.eras.rekey_needed and kind != Kind.MEMBER and self.refresher:
            await self.refresher(self)
        if self.shut_out:
            raise OperationFault(
                f"{self.name} goes on without this device; ask a member to let it in again",
                retryable=False,
            )
        written = self.log.prepare(signer or self._device, kind, entries, counted=signer is None)
        await self.slot.put_many(
            self.era,
            BlobClass.LOG,
            [written.payload],
            also=lambda: self.log.store(written),
            then=lambda: self.log.fold(written),
        )
        return written.id

    async def rekey(
        self,
        secret: bytes,
        wraps: Mapping[bytes, bytes],
        *entries: Entry,
        signer: SigningKey | None = None,
    ) -> Era:
        """Begin a new era of `secret` for the readers in `wraps`, in one operation with what makes
        it necessary. It lies in the old era, where members look, and in the new one, where those
        who come later find the way back.

        Raises UsageError when this device may not.
        """
        if self.shut_out:
            raise UsageError(f"{self.name} goes on without this device")
        before = self.era
        era = Era(secret, before.network, self.log.state.eras.next_number())
        rekey = begin_era(self.id, era, before, wraps)
        self._on_era(era)
        body = encode_entries(MemberEntries((*entries, rekey)))
        written = self.log.prepare(
            signer or self._device, Kind.MEMBER, body, counted=signer is None
        )
        await self.slot.put_many(
            before,
            BlobClass.LOG,
            [written.payload],
            also=lambda: self.log.store(written),
            then=lambda: self.log.fold(written),
        )
        self.shelf.add(era)
        self._begin(era)
        await self.slot.put_many(era, BlobClass.LOG, [written.payload])
        self.follow_eras()
        return era


def _sum(total: Reading | None, reading: Reading) -> Reading:
    if total is None:
        return reading
    return Reading(
        total.taken + reading.taken,
        total.unread + reading.unread,
        tuple(dict.fromkeys((*total.servers, *reading.servers))),
        total.caught_up and reading.caught_up,
        total.gaps + reading.gaps,
    )
