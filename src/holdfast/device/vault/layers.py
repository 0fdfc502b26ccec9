"""Where history comes from, nearest first, and where it goes back to (seed 004 §9-10).

    vault      the person's other devices: full history
    friends    devices of friends, which carry it without reading it
    relays     days of it
    replicas   all of it
    cold       the archive below the replicas: not built yet, and named as such

Recovering walks them in this order and takes from each only what no nearer one had. Repushing goes
the other way: what a server of the slot lacks it is given again from this device's vault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from holdfast.crypto.blob import unseal
from holdfast.crypto.era import Era
from holdfast.crypto.pure import hash_bytes
from holdfast.device.agent import Agent, listed
from holdfast.device.group import Group
from holdfast.device.peering.letters import Peer
from holdfast.device.peering.peers import peers
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.vault.mirror import level
from holdfast.errors import HoldfastError, OperationFault, PeerFault
from holdfast.fabric.session import Session
from holdfast.logic.fleet.model import Role
from holdfast.wire.pool import BlobClass

IDS_PER_GET = 64


class Layer(msgspec.Struct):
    """What one layer gave."""

    layer: str
    blobs: int = 0
    bytes: int = 0
    answered: list[str] = []
    silent: list[str] = []
    why: str = ""
    """Why it was not asked, if so."""


OnLayer = Callable[[Layer], None]


class Recovery:
    """Brings everything of the person's groups into this device's vault."""

    def __init__(self, runtime: DeviceRuntime, agent: Agent, on_layer: OnLayer) -> None:
        self._runtime = runtime
        self._agent = agent
        self._on_layer = on_layer
        self.layers = [Layer(n) for n in ("vault", "friends", "relays", "replicas", "cold")]

    async def run(self) -> list[Layer]:
        """Walk the layers; what each served."""
        vault, friends, relays, replicas, cold = self.layers
        own = self._runtime.state.person
        known = peers(self._runtime)
        await self._devices(vault, [peer for peer in known if peer.person == own])
        await self._devices(friends, [peer for peer in known if peer.person != own])
        await self._servers(relays, Role.RELAY)
        await self._servers(replicas, Role.REPLICA)
        cold.why = "a stub: no cold archive is built yet"
        self._on_layer(cold)
        for group in self._runtime.groups.values():
            group.packs.local = self._agent.vault.get
            await self.read_log(group)
        return self.layers

    async def read_log(self, group: Group) -> int:
        """Fold what the vault has of a group's log; how much was taken."""
        taken = 0
        for era in group.eras:
            for item in await asyncio.to_thread(self._agent.vault.items, era.tag):
                if item.blob_class == BlobClass.LOG:
                    body = await asyncio.to_thread(self._agent.vault.get, item.blob)
                    taken += body is not None and _take(group, era, body)
        group.follow_eras()
        return taken

    async def _devices(self, layer: Layer, known: Sequence[Peer]) -> None:
        for peer in known:
            for group in self._groups():
                for era in group.eras:
                    holder = self._agent.holder(peer, era.access)
                    try:
                        got = await level(self._agent.vault, holder, era.tag)
                    except HoldfastError:
                        _note(layer.silent, peer.name)
                        continue
                    _note(layer.answered, peer.name)
                    layer.blobs += got.fetched
                    layer.bytes += got.fetched_bytes
        if not known:
            layer.why = "none is known to the keyring"
        self._on_layer(layer)

    async def _servers(self, layer: Layer, role: Role) -> None:
        for group in self._groups():
            for era in group.eras:
                for name in group.slot.roster.ready(role):
                    try:
                        await self._server(layer, group, era, name)
                    except HoldfastError:
                        _note(layer.silent, name)
                        continue
                    _note(layer.answered, name)
        self._on_layer(layer)

    async def _server(self, layer: Layer, group: Group, era: Era, name: str) -> None:
        roster, vault = group.slot.roster, self._agent.vault
        classes = await roster.call(name, era.access, listed)
        present = await asyncio.to_thread(vault.has, era.tag, list(classes))
        wanted = [blob for blob, here in zip(classes, present, strict=True) if not here]
        for start in range(0, len(wanted), IDS_PER_GET):
            batch = wanted[start : start + IDS_PER_GET]

            async def fetch(s: Session, batch: list[bytes] = batch) -> dict[bytes, bytes]:
                return await s.get(batch)

            for blob, body in (await roster.call(name, era.access, fetch)).items():
                if hash_bytes(body) != blob:
                    raise PeerFault(f"{name} sent something else", code="tampered")
                await asyncio.to_thread(vault.put, era.tag, classes[blob], [body])
                layer.blobs += 1
                layer.bytes += len(body)
            self._on_layer(layer)

    def _groups(self) -> tuple[Group, ...]:
        return (self._runtime.keyring, *self._runtime.groups.values())


class Repushed(msgspec.Struct):
    """What servers were given back."""

    blobs: int = 0
    bytes: int = 0
    servers: dict[str, int] = {}
    silent: list[str] = []


async def repush(runtime: DeviceRuntime, agent: Agent) -> Repushed:
    """Give every replica what it lacks of this device's vault, and relays what is young enough."""
    done = Repushed()
    for group in (runtime.keyring, *runtime.groups.values()):
        for era in group.eras:
            for role in (Role.REPLICA, Role.RELAY):
                for name in group.slot.roster.ready(role):
                    try:
                        await _repush_to(agent, group, era, name, done)
                    except HoldfastError:
                        _note(done.silent, name)
    return done


async def _repush_to(agent: Agent, group: Group, era: Era, name: str, done: Repushed) -> None:
    roster, vault = group.slot.roster, agent.vault
    there = await roster.call(name, era.access, listed)
    lacking = [i for i in await asyncio.to_thread(vault.items, era.tag) if i.blob not in there]
    for item in lacking:
        body = await asyncio.to_thread(vault.get, item.blob)
        if body is None:
            continue

        async def push(s: Session, body: bytes = body, kind: int = item.blob_class) -> None:
            await s.push(BlobClass(kind), [body])

        try:
            await roster.call(name, era.access, push)
        except PeerFault as fault:
            if fault.code in ("born", "expired"):
                continue
            raise
        done.blobs += 1
        done.bytes += len(body)
        done.servers[name] = done.servers.get(name, 0) + 1


def _take(group: Group, era: Era, body: bytes) -> bool:
    try:
        group.log.take(b"", unseal(era, BlobClass.LOG, body).payload)
    except (PeerFault, OperationFault):
        return False
    return True


def _note(names: list[str], name: str) -> None:
    if name not in names:
        names.append(name)
