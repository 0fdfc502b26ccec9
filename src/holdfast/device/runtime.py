"""A device at work: its slots, its keyring, its groups and folders.

`open` needs no server that it has met before; what cannot be reached is tried again later. A slot
is found by its locator, or by a record that lies in the keyring, or by asking HQ, in this order.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from holdfast.crypto.era import Era
from holdfast.device.eras import Readers, device_wrap, person_wrap
from holdfast.device.folders import FolderSync
from holdfast.device.group import KEYRING, Group
from holdfast.device.headquarters import Headquarters, RealHeadquarters
from holdfast.device.keyring import KeyringLog
from holdfast.device.log import GroupLog
from holdfast.device.membership import refresh
from holdfast.device.state import DeviceState, GroupKey
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.fabric.network import Network
from holdfast.fabric.slot import Slot
from holdfast.logic.fleet.model import SlotRecord
from holdfast.logic.pool.fanout import Stage
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.resolver import Names, Resolver
from holdfast.wire.locator import Locator
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type, decode_body

_log = logging.getLogger(__name__)


class DeviceRuntime:
    """An open device. `names` (DNS) and `headquarters` are seams for tests."""

    def __init__(
        self,
        state: DeviceState,
        clock: Clock,
        entropy: Entropy,
        *,
        names: Names | None = None,
        headquarters: Headquarters | None = None,
    ) -> None:
        self.state = state
        self.clock = clock
        self.entropy = entropy
        self.headquarters = headquarters or RealHeadquarters(
            clock, state.store.records.trust.revocations
        )
        self.slots: dict[bytes, Slot] = {}
        self.groups: dict[bytes, Group] = {}
        self.folders: dict[bytes, FolderSync] = {}
        self.recovery: Readers = ()
        """The root's reader name and wrap key, while the words are at hand."""
        self._names = names
        self._keyring: Group | None = None
        self._opening = asyncio.Lock()

    # --- opening -------------------------------------------------------------------------------
    async def open(self) -> None:
        """Open the keyring, then every group and folder that can be opened now.

        Raises OperationFault when the home slot has no record and no server shows one.
        """
        await self.open_keyring()
        await self.open_waiting()

    async def open_waiting(self) -> None:
        """Open every group that could not be opened before."""
        for key in self.state.groups():
            if key.id not in self.groups:
                try:
                    await self.open_group(key)
                except (OperationFault, PeerFault) as fault:
                    _log.warning("group %s waits: %s", key.name, fault)

    async def open_keyring(self) -> Group:
        """Open the person's keyring on the home slot."""
        if self._keyring is None:
            home = self.state.home_locator()
            era = Era(self.state.keyring_secret, home.network)
            slot = await self.slot(home.slot, era)
            log = KeyringLog(self.state.database, self.state.person, self.state.at_rest)
            self._keyring = self._group(KEYRING, KEYRING, era, slot, log)
        return self._keyring

    async def open_group(self, key: GroupKey) -> Group:
        """Open one group, and its folder if it is checked out here. Raises OperationFault."""
        group = self.groups.get(key.id)
        if group is None:
            locator = await self.locate(key.slot)
            era = Era(key.secret, locator.network, key.era)
            slot = await self.slot(key.slot, era)
            log = GroupLog(self.state.database, key.id, self.state.at_rest)
            group = self._group(key.name, key.kind, era, slot, log)
            self.groups[key.id] = group
        path = self.state.folders().get(key.id)
        if path is not None and key.id not in self.folders:
            index, device = self.state.index_path(key.id), self.state.key.public
            self.folders[key.id] = FolderSync(group, path, index, device, self.clock)
        return group

    def _group(self, name: str, kind: str, era: Era, slot: Slot, log: GroupLog) -> Group:
        known = [Era(s, era.network, n) for n, s in self.state.eras(log.group)]
        for one in known:
            slot.know(one)
        group = Group(
            name,
            kind,
            era,
            slot,
            log,
            self.state.key,
            more=tuple(one for one in known if one.tag != era.tag),
            readers=self._keyring_readers if kind == KEYRING else self._readers,
            on_era=lambda one: self.state.keep_era(log.group, one),
        )
        group.refresher = partial(refresh, self)
        group.follow_eras()
        return group

    def _keyring_readers(self) -> Readers:
        """New eras of the keyring are sealed to devices, and to the root for recovery."""
        own = (self.state.key.public, device_wrap(self.state.key.seed))
        return (own, *self.recovery)

    def _readers(self) -> Readers:
        """New eras of other groups are sealed to the person, by whichever keyring era it had."""
        eras = self.keyring.eras
        return tuple((self.state.person, person_wrap(era.secret)) for era in reversed(eras))

    async def close(self) -> None:
        """Stop everything; what is in the outbox stays there."""
        for folder in self.folders.values():
            folder.close()
        for slot in self.slots.values():
            await slot.close()
        self.folders.clear()
        self.groups.clear()
        self.slots.clear()
        self._keyring = None

    # --- slots ---------------------------------------------------------------------------------
    async def slot(self, slot_id: bytes, era: Era) -> Slot:
        """The open slot, which knows `era`. Raises OperationFault."""
        async with self._opening:
            slot = self.slots.get(slot_id)
            if slot is None:
                locator = await self.locate(slot_id)
                slot = Slot(self.network(locator), locator, self.state.store)
                try:
                    await slot.open([era])
                except BaseException:
                    await slot.close()
                    raise
                self.slots[slot_id] = slot
            slot.know(era)
            return slot

    def network(self, locator: Locator) -> Network:
        """The network of a locator, as the fabric wants it."""
        return Network(
            id=locator.network,
            domain=locator.domain,
            roots=locator.roots,
            clock=self.clock,
            entropy=self.entropy,
            resolver=self._names or Resolver(locator.resolvers),
            region=(self.state.get("region") or b"").decode(),
        )

    async def locate(self, slot_id: bytes) -> Locator:
        """Where a slot is. Raises OperationFault when neither keyring nor HQ knows."""
        locator = self.state.locator(slot_id)
        if locator is not None:
            return locator
        home = self.state.home_locator()
        for staple in self._staples(slot_id):
            try:
                return self._follow(home, slot_id, staple)
            except PeerFault as fault:
                _log.warning("a record in the keyring is no good: %s", fault)
        return self._follow(home, slot_id, await self.headquarters.record(home, slot_id))

    def _staples(self, slot_id: bytes) -> list[Staple]:
        """Records of a slot that lie in the keyring, newest first."""
        if self._keyring is None:
            return []
        assert isinstance(self._keyring.log, KeyringLog)
        found = []
        for staple in self._keyring.log.staples():
            try:
                record = decode_body(Type.SLOT_RECORD, SlotRecord, staple.signed)
            except PeerFault:
                continue
            if record.slot == slot_id:
                found.append((record.version, staple))
        return [staple for _, staple in sorted(found, key=lambda pair: pair[0], reverse=True)]

    def _follow(self, home: Locator, slot_id: bytes, staple: Staple) -> Locator:
        """Follow a first record of a slot of the home network, and remember where it is."""
        known = self.state.store.records.offer(slot_id, home.roots, staple).known
        if known is None:
            raise PeerFault("a record of another slot")
        locator = home.with_record(known.record)
        self.state.keep_locator(locator)
        return locator

    # --- what there is -------------------------------------------------------------------------
    @property
    def keyring(self) -> Group:
        """The person's keyring; after `open`."""
        assert self._keyring is not None, "open first"
        return self._keyring

    @property
    def keyring_log(self) -> KeyringLog:
        """Its log."""
        assert isinstance(self.keyring.log, KeyringLog)
        return self.keyring.log

    def key_named(self, name: str) -> GroupKey:
        """The folder group of that name, or the only one for an empty name. Raises UsageError."""
        keys = [key for key in self.state.groups() if key.kind == "folder"]
        found = [key for key in keys if name in ("", key.name)]
        if len(found) == 1:
            return found[0]
        names = ", ".join(sorted(key.name for key in keys)) or "none yet"
        if not found:
            raise UsageError(f"no folder called {name!r}; there is: {names}")
        raise UsageError(f"which folder? name one of: {names}")

    def reached(self, stage: Stage) -> bool:
        """Whether everything put here has reached `stage`."""
        return all(slot.uploader.reached(stage) for slot in self.slots.values())

    def bytes_below(self, stage: Stage) -> int:
        """Bytes put here that are below `stage`."""
        return sum(slot.uploader.bytes_below(stage) for slot in self.slots.values())

    async def reach(self, stage: Stage, real_s: float | None = None) -> bool:
        """Wait until everything put here has reached `stage`, at most `real_s` real seconds."""
        try:
            async with self.clock.real_timeout(real_s or 10.0**9):
                for slot in self.slots.values():
                    await slot.uploader.reach(stage)
        except TimeoutError:
            return False
        return True
