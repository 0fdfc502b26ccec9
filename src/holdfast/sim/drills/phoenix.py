"""`holdfast drill phoenix`: a whole cluster lost with headquarters, and rebuilt from the words.

Seed 000: "the ability to exit through someone else's node and rebuild everything from scratch, like
a phoenix from the ashes. That's exactly what the shared storage is for".

Cell c1 is ada's cluster, c2 somebody else's. Every headquarters, every member of etcd and every
machine of c1 are killed and their directories removed before anything else happens: what is left is
the nodes of c2, with copies that they cannot open, and an envelope with the words, the line of the
fronts and an operator's key. Then a person types: `hq phoenix` at a new address, `hq serve`,
`hq rise --yes`, and starts a machine from each token. The clients of c1 fetch their subscription
through the nodes of c2, and must get through; the client of c2 works all the while.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Final

import msgspec

from holdfast.crypto.phrase import Phrase
from holdfast.crypto.sealedfile import recipient_of
from holdfast.errors import HoldfastError
from holdfast.hq.access_admin import AccessState
from holdfast.hq.operators import OperatorMade, OperatorOrder
from holdfast.hq.verbs import OperatorRole
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.front_client import Where
from holdfast.rim.internet import Internet
from holdfast.sim.access.ground import SERVER_NET, GroundNode
from holdfast.sim.access.shared import HOST, SharedGround
from holdfast.sim.access.users import User
from holdfast.sim.drills.ashes import Ashes, Replacements
from holdfast.wire.snapshot import identity_of

SCALE: Final = 30.0
LOST: Final = "c1"
OTHER: Final = "c2"
WEB: Final = (f"{SERVER_NET}.1", 80)
NEW_HQ: Final = f"{HOST}:7500"
COPY_S: Final = 90.0
BACK_S: Final = 120.0


class PhoenixReport(msgspec.Struct):
    """What was lost and what came back. Times are real seconds, from the loss on."""

    clients: int = 0
    clients_back: int = 0
    """Clients of the lost cluster whose downloads come through again, whole."""
    disks_gone: int = 0
    """Directories of headquarters, etcd and nodes that were removed before anything was done."""
    machines_lost: int = 0
    machines_again: int = 0
    found_gone: int = 0
    """Nodes that `hq rise` found dead, all of which must be those."""
    nodes_told: int = 0
    """Nodes of the other cluster that follow the new headquarters at its new address."""
    devices_lost: int = 0
    """Devices of the registry that the new headquarters does not know."""
    old_way_dead: bool = False
    """Control: before anything was rebuilt, no client of the lost cluster got through."""
    others_requests: int = 0
    others_failed: int = 0
    """Requests of the other cluster's client that failed meanwhile."""
    hq_s: float = 0.0
    """Until the new headquarters served."""
    seconds: float = 0.0
    held: bool = False


class PhoenixDrill:
    """One run, in a namespace of its own."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy) -> None:
        self._home = home
        self._clock = clock
        self._phrase = Phrase.from_entropy(entropy.bytes(32))
        self._ground = SharedGround(
            home / "network",
            clock=clock,
            entropy=entropy,
            recipient=recipient_of(identity_of(self._phrase)),
            scale=SCALE,
        )
        self._web = Internet(WEB[0])
        self._going = True
        self.report = PhoenixReport()

    async def run(self, clients: int, cores: int) -> PhoenixReport:
        """`clients` of the lost cluster, which has `cores` and an entry."""
        report, ground = self.report, self._ground
        report.clients = clients
        ground.directory.mkdir(parents=True)
        self._web.start()
        ashes: Ashes | None = None
        life: asyncio.Task[None] | None = None
        try:
            await ground.start()
            ashes = await self._populate(cores)
            users = [await self._user(LOST, 16_000 + 2 * number) for number in range(clients)]
            neighbour = await self._user(OTHER, 16_500)
            known = await self._copied()
            life = asyncio.create_task(neighbour.live(5.0, lambda: self._going))
            began = self._clock.elapsed()
            await self._lose(users)
            await self._rebuild(ashes, began)
            await self._back(users, began)
            self._going = False
            await life
            report.others_requests, report.others_failed = neighbour.requests, neighbour.failed
            await ground.until("a decision", ground.leader)
            state = await ground.state()
            report.devices_lost = len(known - {device.id for device in state.devices})
        finally:
            self._going = False
            if life is not None:
                await asyncio.gather(life, return_exceptions=True)
            self._web.stop()
            if ashes is not None:
                await ashes.stop()
            await ground.stop()
        report.held = (
            report.clients_back == clients
            and report.machines_lost == report.machines_again == report.found_gone
            and report.nodes_told == len(self._others())
            and report.old_way_dead
            and report.devices_lost == report.others_failed == 0
        )
        return report

    def _since(self, began: float) -> float:
        return round((self._clock.elapsed() - began) / self._clock.scale, 1)

    def _others(self) -> list[GroundNode]:
        return [node for node in self._ground.nodes.values() if node.cell == OTHER]

    # --- Before ----------------------------------------------------------------------------------
    async def _populate(self, cores: int) -> Ashes:
        """Two clusters; what goes into the envelope."""
        ground = self._ground
        order = OperatorOrder("olga", OperatorRole.OWNER)
        made: OperatorMade = await ground.call("POST", "/operators", order, OperatorMade)
        for cell, owner, count in ((LOST, "ada", cores), (OTHER, "bob", 1)):
            await ground.cell(cell)
            for _ in range(count):
                await ground.node(Role.CORE, cell, owner)
            await ground.node(Role.ENTRY, cell, owner)
        where = Where(tuple(node.address for node in self._others()), ground.where.fingerprint)
        ground.fronts = where
        return Ashes(self._home, where, self._phrase, made.key, self._clock)

    async def _user(self, cell: str, port: int) -> User:
        ground = self._ground
        token = (await ground.device(await ground.member(), cell)).token
        user = User(ground, self._clock, token, port, WEB)
        await user.refresh()
        await ground.until("the way through", user.use)
        user.requests = user.failed = 0
        return user

    async def _copied(self) -> set[str]:
        """Wait until the other cluster keeps a copy of all this; the devices there are."""
        ground = self._ground
        state: AccessState = await ground.state()
        revision = (await ground.status()).revision
        await ground.member("last")  # a change that a copy follows at once

        async def copied() -> bool:
            return (await ground.newest_copy()).revision >= revision

        await ground.until("a copy of all this", copied, COPY_S)
        return {device.id for device in state.devices}

    # --- The loss --------------------------------------------------------------------------------
    async def _lose(self, users: list[User]) -> None:
        """Everything but the other cluster, disks and all."""
        report, ground = self.report, self._ground
        ground.kill_all()
        lost = [node for node in ground.nodes.values() if node.cell == LOST]
        for node in lost:
            node.kill()
        await asyncio.gather(*(node.child.wait() for node in lost))
        report.machines_lost = len(lost)
        places = [home.directory for home in ground.homes.values()]
        places += [ground.directory / "etcd", *(node.home for node in lost)]
        for place in places:
            await self._remove(place)
            report.disks_gone += not place.exists()
        for node in lost:
            del ground.nodes[node.name]
        through = [await user.use() for user in users]
        report.old_way_dead = not any(through)

    async def _remove(self, place: Path) -> None:
        """A process that dies may write once more."""
        while not await asyncio.to_thread(_removed, place):
            await self._clock.sleep_real(0.1)

    # --- From the ashes --------------------------------------------------------------------------
    async def _rebuild(self, ashes: Ashes, began: float) -> None:
        """What a person types, and a machine for each token."""
        report, ground = self.report, self._ground
        await ashes.rise(f"--address={NEW_HQ}")
        ground.adopt(ashes.home, await ashes.serve())
        await ground.until("the new headquarters", self._serves)
        report.hq_s = self._since(began)
        found = await ashes.replace()
        report.nodes_told = found.told
        report.found_gone = len(found.items)
        await asyncio.gather(*(self._machine(found, index) for index in range(len(found.items))))

    async def _serves(self) -> bool:
        return (self._ground.home.directory / "admin.json").exists()

    async def _machine(self, found: Replacements, index: int) -> None:
        item = found.items[index]
        await self._ground.start_node(item.name, item.role, item.cell, item.token)
        self.report.machines_again += 1

    async def _back(self, users: list[User], began: float) -> None:
        """Every client refreshes, as apps do by themselves, until it gets through."""

        async def back(user: User) -> bool:
            try:
                await user.refresh()
            except HoldfastError:
                return False
            return await user.use()

        async def settle(user: User) -> None:
            async with self._clock.real_timeout(BACK_S):
                while not await back(user):
                    await self._clock.sleep_real(0.5)
            self.report.clients_back += 1

        await asyncio.gather(*map(settle, users), return_exceptions=True)
        self.report.seconds = self._since(began)


def _removed(place: Path) -> bool:
    """Whether nothing is left of a directory."""
    shutil.rmtree(place, ignore_errors=True)
    return not place.exists()
