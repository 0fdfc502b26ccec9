"""A device that answers others: it carries ciphertext and halves, and levels its vault with theirs.

Whose things it carries: those of its own person and of friends. Its own groups' blobs come from the
pool and from other devices; what friends gave it, it keeps for them without a key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

import msgspec

from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.device.eras import device_wrap
from holdfast.device.friends import friends
from holdfast.device.group import Group
from holdfast.device.peering.letters import Courier, Desk, Peer
from holdfast.device.peering.peers import announce, peers, sender, writer
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.vault.halves import Done, Halves, Statement
from holdfast.device.vault.holding import Holder, Holding
from holdfast.device.vault.mirror import Levelled, level
from holdfast.device.vault.store import VaultStore
from holdfast.errors import HoldfastError, OperationFault
from holdfast.fabric import downloader
from holdfast.fabric.session import Session
from holdfast.limits import PULL_ITEMS_MAX
from holdfast.logic.placement import Copies, check_drop, count
from holdfast.rim.addresses import own_addresses
from holdfast.wire.address import split_address
from holdfast.wire.pool import BlobClass

_log = logging.getLogger(__name__)
ROUND_S: Final = 60.0
"""Elapsed seconds between rounds of levelling."""


class Swept(msgspec.Struct):
    """What a round brought into this device's vault."""

    from_pool: int = 0
    from_devices: int = 0
    sent: int = 0
    silent: list[str] = []


class GroupCopies(msgspec.Struct, frozen=True):
    """Where the blobs of one group are."""

    name: str
    copies: Copies
    unknown: tuple[str, ...]
    """Devices that did not answer: what they hold is not counted."""


class Agent:
    """The carrying side of an open device."""

    def __init__(self, runtime: DeviceRuntime, courier: Courier | None = None) -> None:
        self._runtime = runtime
        state = runtime.state
        self.vault = VaultStore(state.home / "vault")
        self.desk = Desk(sender(state), runtime.clock)
        self.desk.register(Holding(self.vault, self.carries_for, state.keep_carried).verbs())
        wrap_key = device_wrap(state.key.seed)
        self.halves = Halves(state.database, wrap_key, self.carries_for)
        self.desk.register(self.halves.verbs())
        self.writer = writer(state, runtime.clock, runtime.entropy, courier)

    def carries_for(self, person: bytes) -> bool:
        """Whether this device keeps things of `person`."""
        known = {friend.person for friend in friends(self._runtime)}
        return person == self._runtime.state.person or person in known

    async def start(self, host: str = "0.0.0.0", port: int = 0) -> tuple[str, ...]:
        """Answer letters; the addresses, which other devices of the person learn."""
        where, bound = split_address(await self.desk.start(host, port))
        hosts = own_addresses() if where in ("0.0.0.0", "::") else (where,)
        addresses = tuple(f"[{h}]:{bound}" if ":" in h else f"{h}:{bound}" for h in hosts)
        await announce(self._runtime, addresses)
        return addresses

    async def stop(self) -> None:
        """Answer nobody any more."""
        await self.desk.stop()
        self.vault.close()

    async def run(self) -> None:
        """Level for ever."""
        while True:
            try:
                await self.sweep()
            except HoldfastError as error:
                _log.info("levelling waits: %s", error)
            await self._runtime.clock.sleep(ROUND_S)

    # --- copies --------------------------------------------------------------------------------
    def _groups(self) -> tuple[Group, ...]:
        return (self._runtime.keyring, *self._runtime.groups.values())

    async def sweep(self) -> Swept:
        """Have everything of the person's groups here, and on every device that answers."""
        done = Swept()
        for group in self._groups():
            for era in group.eras:
                try:
                    done.from_pool += await self._from_pool(group, era)
                except OperationFault as fault:
                    _log.info("the pool is silent: %s", fault)
                for peer in peers(self._runtime):
                    await self._level(done, peer, era.access, own=True)
        await self._tell()
        for _, access in self._runtime.state.carried():
            for peer in peers(self._runtime):
                await self._level(done, peer, access, own=False)
        return done

    async def _tell(self) -> None:
        """Let carriers know which of the person's devices are out: they give them nothing then."""
        log = self._runtime.keyring_log
        out = [s.device for s in log.statements() if not s.roles]
        for peer in peers(self._runtime):
            for device in out:
                try:
                    word = Statement(log.signed_statement(device))
                    await self.writer.ask(peer, "vouched", word, Done)
                except HoldfastError:
                    break

    async def _level(self, done: Swept, peer: Peer, access: SigningKey, *, own: bool) -> None:
        holder = self.holder(peer, access)
        try:
            if own and peer.person != self._runtime.state.person:
                await holder.carry()
            got: Levelled = await level(self.vault, holder, hash_bytes(access.public))
        except HoldfastError as fault:
            _log.info("%s: %s", peer.name, fault)
            if peer.name not in done.silent:
                done.silent.append(peer.name)
            return
        done.from_devices += got.fetched
        done.sent += got.sent

    def holder(self, peer: Peer, access: SigningKey) -> Holder:
        """Another device's vault, for one tag."""
        return Holder(self.writer, peer, access)

    async def _from_pool(self, group: Group, era: Era) -> int:
        """Fetch what this slot's servers have of an era and the vault has not."""
        taken = 0
        for name in group.slot.roster.ready():
            try:
                classes = await group.slot.roster.call(name, era.access, listed)
            except HoldfastError:
                continue
            present = self.vault.has(era.tag, list(classes))
            wanted = [b for b, here in zip(classes, present, strict=True) if not here]

            async def take(blob: bytes, body: bytes, classes: dict[bytes, int] = classes) -> None:
                await asyncio.to_thread(self.vault.put, era.tag, classes[blob], [body])

            missing = await downloader.fetch(group.slot.roster, era.access, wanted, take)
            taken += len(wanted) - len(missing)
        return taken

    async def copies(self) -> list[GroupCopies]:
        """How many copies there are of each group's blobs, on devices that answer now."""
        found = []
        for group in self._groups():
            held, unknown = await self._held(group)
            wanted: frozenset[bytes] = frozenset().union(*held.values())
            found.append(GroupCopies(group.name, count(wanted, held), unknown))
        return found

    async def check_drop(self, names: Sequence[str]) -> None:
        """Raises UsageError when without these holders anything would have fewer than two copies
        on devices that answer now."""
        for group in self._groups():
            held, _ = await self._held(group)
            wanted: frozenset[bytes] = frozenset().union(*held.values())
            rest = {name: blobs for name, blobs in held.items() if name not in names[1:]}
            check_drop(names[0], wanted, rest)

    async def _held(self, group: Group) -> tuple[dict[str, frozenset[bytes]], tuple[str, ...]]:
        """(blobs by holder, holders that do not answer)."""
        here = f"{self._runtime.state.name} (here)"
        held: dict[str, set[bytes]] = {here: set()}
        unknown: dict[str, None] = {}
        for era in group.eras:
            items = await asyncio.to_thread(self.vault.items, era.tag)
            held[here] |= {item.blob for item in items}
            for peer in peers(self._runtime):
                try:
                    theirs = await self.holder(peer, era.access).items()
                except HoldfastError:
                    unknown[peer.name] = None
                    continue
                held.setdefault(peer.name, set()).update(item.blob for item in theirs)
        return {name: frozenset(blobs) for name, blobs in held.items()}, tuple(unknown)


async def listed(session: Session) -> dict[bytes, int]:
    """Every blob of the session's tag that is for keeping, with its class."""
    found: dict[bytes, int] = {}
    after: tuple[int, bytes] | None = None
    while True:
        reply = await session.list(0, PULL_ITEMS_MAX, after)
        for item in reply.items:
            if item.blob_class in (BlobClass.LOG, BlobClass.BULK):
                found[item.blob] = int(item.blob_class)
        if not reply.more or not reply.items:
            return found
        after = (reply.born[-1], reply.items[-1].blob)
