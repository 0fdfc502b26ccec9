"""`holdfast drill cell`: a compromised cell is isolated and made anew; no other cell feels it.

Cell c1 is given up: its devices move to the reserve cell c2 with new credentials, its nodes are
revoked, c3 with new names, paths, nodes and tokens takes its place, and the devices move on there.
Beside it lives a user of c2, whose every request is watched and whose nodes must stay as they were.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.hq.access_admin import Move, Moved, Regenerate
from holdfast.logic.access.model import Cell
from holdfast.logic.access.xray_json import xray_json
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.internet import Internet
from holdfast.rim.process import descendants
from holdfast.sim.access.ground import DOMAIN, SERVER_NET, AccessGround
from holdfast.sim.access.users import User

WEB: Final = (f"{SERVER_NET}.1", 80)
LOST: Final = "c1"
RESERVE: Final = "c2"
NEW: Final = "c3"


class CellReport(msgspec.Struct):
    """What the drill found."""

    devices: int = 0
    clients_moved: int = 0
    """Devices that are served by the cell that took the lost one's place."""
    clients_back: int = 0
    """Real clients whose next request after their refresh came through, each of both times."""
    clients_expected: int = 0
    other_cells_touched: int = 0
    """Requests of the reserve cell's own user that failed, and its processes that changed."""
    neighbours_requests: int = 0
    old_way_dead: bool = False
    """What a client of the lost cell held before leads nowhere."""
    names_new: bool = False
    seconds: float = 0.0
    held: bool = False


class CellDrill:
    """One run, in a namespace of its own."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._ground = AccessGround(home, clock=clock, entropy=entropy)
        self._web = Internet(WEB[0])
        self._going = True
        self.report = CellReport()

    async def run(self, devices: int) -> CellReport:
        """`devices` in the lost cell, two of them with real clients."""
        report, ground = self.report, self._ground
        report.devices = devices
        self._web.start()
        life: asyncio.Task[None] | None = None
        try:
            await ground.start()
            for cell in (LOST, RESERVE):
                await ground.cell(cell)
                for role in (Role.CORE, Role.ENTRY):
                    await ground.node(role, cell, f"owner-{cell}")
            neighbour = await self._user(RESERVE, 16_100)
            clients = [await self._user(LOST, 16_000 + 2 * number) for number in range(2)]
            for _ in range(devices - len(clients)):
                await ground.device(await ground.member(), LOST)
            before = self._processes(RESERVE)
            life = asyncio.create_task(neighbour.live(5.0, lambda: self._going))
            await self._lose(clients)
            self._going = False
            await life
            report.neighbours_requests = neighbour.requests
            report.other_cells_touched = neighbour.failed + len(before ^ self._processes(RESERVE))
        finally:
            self._going = False
            if life is not None:
                await asyncio.gather(life, return_exceptions=True)
            self._web.stop()
            await ground.stop()
        report.held = (
            report.clients_moved == devices
            and report.clients_back == report.clients_expected
            and report.other_cells_touched == 0
            and report.old_way_dead
            and report.names_new
        )
        return report

    async def _user(self, cell: str, port: int) -> User:
        ground = self._ground
        token = (await ground.device(await ground.member(), cell)).token
        user = User(ground, self._clock, token, port, WEB)
        await user.refresh()
        await ground.until("the way through", user.use)
        user.requests = user.failed = 0
        return user

    async def _lose(self, clients: list[User]) -> None:
        """Isolation, reserve, revocation, regeneration, and home again."""
        report, ground = self.report, self._ground
        began = self._clock.elapsed()
        held: dict[str, Any] = xray_json(
            await ground.subscription(clients[0].token), socks_port=16_200
        )
        old = (await ground.state()).cells[0]
        order = Regenerate(NEW, f"{NEW}.{DOMAIN}", f"{NEW}-core.{DOMAIN}", RESERVE)
        made = await ground.call("POST", f"/access/cells/{LOST}/regenerate", order, Cell)
        report.names_new = not {made.domain, made.core_domain} & {old.domain, old.core_domain}
        report.names_new &= made.newest().secret not in {epoch.secret for epoch in old.epochs}
        await self._back(clients)
        for node in [n for n in ground.nodes.values() if n.cell == LOST]:
            await ground.revoke(node)
        for role in (Role.CORE, Role.ENTRY):
            await ground.node(role, NEW, f"owner-{LOST}")
        away = [d for d in (await ground.state()).devices if d.cell == RESERVE]
        moving = len(away) - 1  # the neighbour stays
        for device in [d for d in away if d.member != self._neighbour(away)]:
            await ground.call("POST", f"/access/devices/{device.id}/move", Move(NEW, 1), Moved)
        await self._back(clients)
        report.seconds = round(self._clock.elapsed() - began, 1)
        devices = (await ground.state()).devices
        report.clients_moved = sum(device.cell == NEW for device in devices)
        assert moving == report.devices, "all devices were in the reserve cell"
        await ground.client(held, "client-old")
        ghost = User(ground, self._clock, "", 16_200, WEB)
        report.old_way_dead = not await ghost.use()

    def _neighbour(self, devices: list[Any]) -> str:
        """The member of the device that was in the reserve cell from the beginning."""
        return str(min(devices, key=lambda device: device.created_at).member)

    async def _back(self, clients: list[User]) -> None:
        """Every client refreshes once; its next request counts."""
        for user in clients:
            self.report.clients_expected += 1
            await user.refresh()
            await self._clock.sleep_real(0.5)
            self.report.clients_back += await user.use()

    def _processes(self, cell: str) -> frozenset[int]:
        """Every process of a cell's nodes."""
        nodes = [n for n in self._ground.nodes.values() if n.cell == cell]
        return frozenset(pid for n in nodes for pid in (n.child.pid, *descendants(n.child.pid)))
