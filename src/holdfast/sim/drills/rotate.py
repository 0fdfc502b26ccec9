"""`holdfast drill rotate`: every entry address is turned over while users go on (seed 000).

For each old entry a new one joins at an address that was never used; the old one drains, serves on
until every live device has a subscription without it, and is retired. Users refresh as apps do.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from holdfast.hq.access_admin import Acknowledged, Reason
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.internet import Internet
from holdfast.sim.access.ground import SERVER_NET, AccessGround, GroundNode
from holdfast.sim.access.users import User

WEB: Final = (f"{SERVER_NET}.1", 80)
SCALE: Final = 120.0
"""Ten minutes of draining are five seconds."""
REFRESH_S: Final = 3.0


class RotateReport(msgspec.Struct):
    """What the drill found."""

    entries: int = 0
    turned: int = 0
    reused: int = 0
    """Old addresses that are in use again."""
    lingering: int = 0
    """Old entries that a subscription still names."""
    users: int = 0
    requests: int = 0
    refreshes: int = 0
    dropped: int = 0
    seconds: float = 0.0
    held: bool = False


class RotateDrill:
    """One run, in a namespace of its own."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._ground = AccessGround(home, clock=clock, entropy=entropy, scale=SCALE)
        self._web = Internet(WEB[0])
        self._going = True
        self.report = RotateReport()

    async def run(self, entries: int, users: int) -> RotateReport:
        """Turn over `entries` entries under `users` users."""
        report, ground = self.report, self._ground
        report.entries, report.users = entries, users
        self._web.start()
        lives: list[asyncio.Task[None]] = []
        try:
            await ground.start()
            await ground.cell("c1")
            await ground.node(Role.CORE, "c1", "ada")
            old = [await ground.node(Role.ENTRY, "c1") for _ in range(entries)]
            people = [await self._user(number) for number in range(users)]
            began = self._clock.elapsed()
            lives = [
                asyncio.create_task(user.live(REFRESH_S, lambda: self._going)) for user in people
            ]
            for node in old:
                await self._turn(node)
                report.turned += 1
            self._going = False
            await asyncio.gather(*lives)
            report.seconds = round(self._clock.elapsed() - began, 1)
            await self._judge(old, people)
        finally:
            self._going = False
            await asyncio.gather(*lives, return_exceptions=True)
            self._web.stop()
            await ground.stop()
        report.held = (
            report.turned == entries
            and report.reused == report.lingering == report.dropped == 0
            and report.requests > 0
        )
        return report

    async def _user(self, number: int) -> User:
        ground = self._ground
        token = (await ground.device(await ground.member("ada"), "c1")).token
        user = User(ground, self._clock, token, 16_000 + 2 * number, WEB)
        await user.refresh()
        await ground.until("the way through", user.use)
        user.requests = user.failed = 0
        return user

    async def _turn(self, node: GroundNode) -> None:
        """A new entry in, the old one drained, retired, switched off."""
        ground = self._ground
        await ground.node(Role.ENTRY, "c1")
        path = f"/access/nodes/{node.name}/drain"
        await ground.call("POST", path, Reason("planned rotation"), Acknowledged)

        async def retired() -> bool:
            return all(entry.name != node.name for entry in (await ground.state()).entries)

        await ground.until(f"the end of {node.name}", retired, 120.0)

    async def _judge(self, old: list[GroundNode], people: list[User]) -> None:
        report = self.report
        state = await self._ground.state()
        addresses = [address for entry in state.entries for address in entry.addresses]
        before = {node.address for node in old}
        report.reused = len(before & set(addresses)) + len(addresses) - len(set(addresses))
        report.lingering = sum(entry.name in {n.name for n in old} for entry in state.entries)
        report.requests = sum(user.requests for user in people)
        report.refreshes = sum(user.refreshes for user in people)
        report.dropped = sum(user.failed for user in people)
