"""`holdfast drill accounting`: every byte counted once, whatever is off or restarted meanwhile.

A client downloads while headquarters is there, while it is gone, and before and after the entry and
the core are restarted. What headquarters books in the end is compared with what went over the wire,
to the byte. Control: with the entry's spool thrown away while headquarters is gone, bytes are
missing.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Final

import msgspec

from holdfast.access.spool import FILE
from holdfast.errors import OperationFault
from holdfast.limits import MIB
from holdfast.logic.access.xray_json import xray_json
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.internet import Internet, fetch, on_the_wire
from holdfast.sim.access.ground import SERVER_NET, AccessGround, GroundNode

WEB: Final = (f"{SERVER_NET}.1", 80)
SOCKS: Final = 16_000
SETTLE_S: Final = 20.0


class AccountingReport(msgspec.Struct):
    """Bytes of one member, both ways together."""

    downloads: int = 0
    sent: int = 0
    """Over the wire between client and web server."""
    booked: int = 0
    equal: bool = False
    core_booked: int = 0
    """By the core, of its owner: the same and the tunnel's own few bytes."""
    hq_restarts: int = 0
    node_restarts: int = 0
    control: bool = False
    """Without its spool the same loses bytes."""
    held: bool = False


class AccountingDrill:
    """One run, in a namespace of its own."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._ground = AccessGround(home, clock=clock, entropy=entropy)
        self._web = Internet(WEB[0])
        self._sent = 0
        self.report = AccountingReport()

    async def run(self, megabytes: int) -> AccountingReport:
        """`megabytes` in each download."""
        report, ground, size = self.report, self._ground, megabytes * MIB
        self._web.start()
        try:
            await ground.start()
            await ground.cell("c1")
            member = await ground.member("ada")
            token = (await ground.device(member, "c1")).token
            core = await ground.node(Role.CORE, "c1", "ada")
            entry = await ground.node(Role.ENTRY, "c1", "ada")
            view = await ground.subscription(token)
            await ground.client(xray_json(view, socks_port=SOCKS), "client")
            await ground.until("the way through", lambda: self._download(1_000))
            await self._download(size)
            ground.kill_hq()
            await self._download(size)
            await self._restart(entry)
            await self._download(size)
            await self._restart(core)
            await self._download(size)
            await ground.start_hq()
            report.hq_restarts += 1
            await self._download(size)
            await self._settle(member.id)
            report.sent, report.booked = self._sent, await self._booked(member.id)
            report.equal = report.sent == report.booked
            report.core_booked = (await ground.state()).cores[0].total_used
            report.control = await self._control(entry, member.id, size)
        finally:
            self._web.stop()
            await ground.stop()
        report.held = report.equal and report.control and report.core_booked >= report.sent
        return report

    async def _download(self, size: int) -> bool:
        """One whole download, again until it comes through; what went over the wire is noted."""
        got = await asyncio.to_thread(fetch, ("127.0.0.1", SOCKS), WEB, size, 10.0)
        if got.received != size:
            raise OperationFault("a download was cut")
        self._sent += sum(on_the_wire(size))
        self.report.downloads += 1
        return True

    async def _restart(self, node: GroundNode) -> None:
        """Stop a node as an operator does, and start it again."""
        await self._clock.sleep_real(0.5)
        await node.child.stop(self._clock, 15.0)
        self.report.node_restarts += 1
        await self._ground.restart(node)
        await self._ground.serves(node)
        await self._clock.sleep_real(2.5)  # health checks and Xray's own redial

    async def _settle(self, member: str) -> None:
        """Wait until headquarters has booked everything, or will not."""

        async def booked() -> bool:
            return await self._booked(member) >= self._sent

        with contextlib.suppress(OperationFault):
            await self._ground.until("the books", booked, SETTLE_S)
        await self._clock.sleep_real(3.0)  # more would come now, if anything came twice

    async def _booked(self, member: str) -> int:
        usage = (await self._ground.state()).usage.get(member)
        return usage.total if usage is not None else 0

    async def _control(self, entry: GroundNode, member: str, size: int) -> bool:
        """The same with a spool that is thrown away before headquarters is back."""
        ground = self._ground
        ground.kill_hq()
        await self._download(size)
        await self._clock.sleep_real(0.5)
        await entry.child.stop(self._clock, 15.0)
        (entry.home / "role" / FILE).unlink()
        await ground.restart(entry)
        await ground.serves(entry)
        await ground.start_hq()
        await self._settle(member)
        return await self._booked(member) < self._sent
