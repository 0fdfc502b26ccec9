"""Three devices of two people, no server anywhere: any one of them is destroyed (seed 003).

"We define the base case as being three devices in a cluster, such as two friends with only a mobile
phone, where all of each participant's data will be mirrored" - "loss of any machine will not result
in losing any data".

Each history writes blobs of both people on whichever device is at hand, while devices come and go;
a write counts as safe when a second disk has it. At a random moment one device is destroyed, disk
and all. The two that are left level with each other, and then the files on their disks are read by
somebody who does not ask them. Writes that never became safe may be lost: that they sometimes are
shows that the count can see a loss.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import msgspec

from holdfast.crypto.blob import blob_id, seal
from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.device.eras import device_wrap
from holdfast.device.keyring import state_device
from holdfast.device.peering.letters import Desk, Direct, Peer, Sender, Writer
from holdfast.device.vault.holding import Holder, Holding
from holdfast.device.vault.mirror import level, put_safely
from holdfast.device.vault.store import VaultStore
from holdfast.errors import HoldfastError
from holdfast.limits.people import COPIES_MIN
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Dice, Entropy
from holdfast.wire.pool import BlobClass

LOOPBACK: Final = "127.0.0.1"
DAY_S: Final = 86_400
SIZE_BYTES_MAX: Final = 20_000


class LostDevices(msgspec.Struct):
    """What was destroyed, and what was left. Times are real seconds."""

    seed: int
    histories: int = 0
    destroyed: dict[str, int] = {}
    """How often each of the three was."""
    writes: int = 0
    safe: int = 0
    """Writes that two disks had before anything was destroyed."""
    lost: int = 0
    """Safe writes that no disk has afterwards."""
    copies_after: int = 0
    """Copies of the safe write that has fewest, on the disks that are left."""
    repaired: int = 0
    """Safe writes that the loss had left on one disk, and that are on two again."""
    unsafe: int = 0
    unsafe_lost: int = 0
    """Control: writes that were on the destroyed disk alone, and are gone."""
    foreign_bytes: int = 0
    """Bytes on a disk that its owner cannot open, carried for the other person."""
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Nothing safe is lost, two copies are back, and the control lost something."""
        return not self.lost and self.copies_after >= COPIES_MIN and self.unsafe_lost > 0


class Person:
    """Somebody with words and data."""

    def __init__(self, name: str, entropy: Entropy, network: bytes) -> None:
        self.name = name
        self.root = SigningKey(entropy.bytes(32))
        self.era = Era(entropy.bytes(32), network)


class Phone:
    """One device: a vault on a disk of its own and a port."""

    def __init__(
        self, name: str, owner: Person, home: Path, clock: Clock, entropy: Entropy
    ) -> None:
        self.name = name
        self.owner = owner
        self.home = home
        self.on = True
        self.carried: dict[bytes, SigningKey] = {}
        key = SigningKey(entropy.bytes(32))
        at = int(clock.wall())
        statement = state_device(owner.root, key.public, name, 1, at, ("carrier", "reader"))
        self._me = Sender(key, device_wrap(key.seed), statement)
        self._clock = clock
        self.vault = VaultStore(home)
        self.writer = Writer(self._me, Direct(clock), clock, entropy)
        self._desk = Desk(self._me, clock)
        holding = Holding(self.vault, lambda person: True, self._keep)
        self._desk.register(holding.verbs())
        self.address = ""

    def _keep(self, person: bytes, access: SigningKey) -> None:
        self.carried[hash_bytes(access.public)] = access

    @property
    def peer(self) -> Peer:
        """How others write to it: nowhere, while it is off."""
        addresses = (self.address,) if self.on else ()
        return Peer(self._me.key.public, self._me.wrap.public, addresses, self.name)

    async def start(self) -> None:
        """Answer letters."""
        self.address = await self._desk.start(LOOPBACK, 0)

    async def stop(self) -> None:
        """Close everything."""
        await self._desk.stop()
        self.vault.close()

    def holders(self, others: list[Phone], access: SigningKey) -> list[Holder]:
        """The others' vaults."""
        return [Holder(self.writer, other.peer, access) for other in others if other is not self]


class LoseDevice:
    """The drill, in one empty directory."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy, seed: int) -> None:
        self._home = home
        self._clock = clock
        self._entropy = entropy
        self._dice = Dice(seed)
        self._seed = seed

    async def run(self, histories: int, writes: int = 24) -> LostDevices:
        """`histories` random ones, each with three new devices."""
        report = LostDevices(self._seed, copies_after=1 << 30)
        began = self._clock.elapsed()
        for number in range(histories):
            await self._history(report, self._home / f"{number:04d}", writes)
            report.histories += 1
            shutil.rmtree(self._home / f"{number:04d}", ignore_errors=True)
        report.seconds = round(self._clock.elapsed() - began, 1)
        return report

    async def _history(self, report: LostDevices, home: Path, writes: int) -> None:
        network = self._entropy.bytes(16)
        ada, bob = (Person(name, self._entropy, network) for name in ("ada", "bob"))
        phones = [
            Phone(name, owner, home / name, self._clock, self._entropy)
            for name, owner in (("ada's phone", ada), ("ada's laptop", ada), ("bob's phone", bob))
        ]
        try:
            for phone in phones:
                await phone.start()
            for phone in phones:
                for holder in phone.holders(phones, phone.owner.era.access):
                    await holder.carry()
            safe, unsafe = await self._live(report, phones, writes)
            victim = self._dice.choice(phones)
            report.destroyed[victim.name] = report.destroyed.get(victim.name, 0) + 1
            await victim.stop()
            shutil.rmtree(victim.home)
            phones.remove(victim)
            before = _on_disks(phones)
            await _repair(phones)
            self._judge(report, _on_disks(phones), before, safe, unsafe)
            for phone in phones:
                foreign = next(p for p in (ada, bob) if p is not phone.owner)
                report.foreign_bytes += phone.vault.sum(foreign.era.tag).size
        finally:
            for phone in phones:
                await phone.stop()

    async def _live(
        self, report: LostDevices, phones: list[Phone], writes: int
    ) -> tuple[set[bytes], set[bytes]]:
        """Write, come and go, level now and then; ids of safe writes and of others."""
        safe, unsafe = set(), set()
        for _ in range(writes):
            for phone in phones:
                phone.on = self._dice.random() < 0.6
            phone = self._dice.choice(phones)
            phone.on = True
            if self._dice.random() < 0.15:
                await _level_own(phone, phones)
                continue
            era = phone.owner.era
            payload = self._dice.randbytes(self._dice.randrange(1, SIZE_BYTES_MAX))
            body = seal(era, BlobClass.BULK, payload, int(self._clock.wall() // DAY_S))
            report.writes += 1
            others = phone.holders(phones, era.access)
            self._dice.shuffle(others)
            try:
                wanted = others[: self._dice.choice((1, 2))]
                await put_safely(phone.vault, wanted, era.tag, BlobClass.BULK, body)
                safe.add(blob_id(body))
            except HoldfastError:
                unsafe.add(blob_id(body))
        return safe, unsafe

    def _judge(
        self,
        report: LostDevices,
        after: dict[bytes, int],
        before: dict[bytes, int],
        safe: set[bytes],
        unsafe: set[bytes],
    ) -> None:
        report.safe += len(safe)
        report.unsafe += len(unsafe)
        for blob in safe:
            copies = after.get(blob, 0)
            report.lost += copies == 0
            report.copies_after = min(report.copies_after, copies)
            report.repaired += before.get(blob, 0) < COPIES_MIN <= copies
        report.unsafe_lost += sum(after.get(blob, 0) == 0 for blob in unsafe)


async def _repair(phones: list[Phone]) -> None:
    """What devices do when they have not heard of one for long: level with those that are left."""
    for phone in phones:
        phone.on = True
    for phone in phones:
        await _level_own(phone, phones)
        for tag, access in phone.carried.items():
            for holder in phone.holders(phones, access):
                await level(phone.vault, holder, tag)


async def _level_own(phone: Phone, phones: list[Phone]) -> None:
    era = phone.owner.era
    for holder in phone.holders(phones, era.access):
        try:
            await level(phone.vault, holder, era.tag)
        except HoldfastError:
            continue


def _on_disks(phones: list[Phone]) -> dict[bytes, int]:
    """Copies of every blob, by reading files whose content has the hash that they are named by."""
    found: dict[bytes, int] = {}
    for phone in phones:
        for path in phone.home.rglob("*"):
            if path.is_file() and len(path.name) == 64:
                blob = hash_bytes(path.read_bytes())
                if blob.hex() == path.name:
                    found[blob] = found.get(blob, 0) + 1
    return found
