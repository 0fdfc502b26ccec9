"""`holdfast drill revoke`: a core is excluded while clients of every entry download through it.

What counts is when the last byte of a download that went through the excluded core reached a
client. The servers send slowly, so nothing but what is in flight is buffered on the way. Control:
the same with the push held back (the entries' agents are stopped): the bytes must go on. The
excluded core is hostile: its own agent is stopped, so that it does not obey.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import OperationFault
from holdfast.limits import GIB
from holdfast.logic.access.xray_json import xray_json
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.internet import Internet, fetch
from holdfast.sim.access.ground import SERVER_NET, AccessGround, GroundNode

WEB: Final = (f"{SERVER_NET}.1", 80)
PACE: Final = 1_000_000.0
SOCKS: Final = 16_000
LIMIT_S: Final = 5.0
WATCH_S: Final = 8.0


class RevokeReport(msgspec.Struct):
    """`last_byte_s` is the worst of all entries' downloads."""

    entries: int = 0
    downloads: int = 0
    last_byte_s: float = 0.0
    control: bool = False
    """Without the push, bytes went on for longer than the limit."""
    control_last_byte_s: float = 0.0
    served_after: bool = False
    """Clients went on through another core."""
    held: bool = False


class _Download:
    """One endless download, and when its last byte came."""

    def __init__(self, port: int, clock: Clock) -> None:
        self._clock = clock
        self._port = port
        self.last_at = 0.0
        self.ended = False
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(asyncio.to_thread(self._run))

    def _run(self) -> None:
        try:
            fetch(("127.0.0.1", self._port), WEB, 100 * GIB, 15.0, self._note)
        except OperationFault:
            pass
        self.ended = True

    def _note(self, _count: int) -> None:
        self.last_at = self._clock.elapsed()


class RevokeDrill:
    """One run, in a namespace of its own."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._ground = AccessGround(home, clock=clock, entropy=entropy)
        self._web = Internet(WEB[0], pace=PACE)
        self.report = RevokeReport()

    async def run(self, entries: int, each: int) -> RevokeReport:
        """`each` downloads through each of `entries` entries."""
        report, ground = self.report, self._ground
        report.entries, report.downloads = entries, entries * each
        self._web.start()
        try:
            await ground.start()
            await ground.cell("c1")
            member = await ground.member("ada")
            token = (await ground.device(member, "c1")).token
            first = await ground.node(Role.CORE, "c1", "ada")
            nodes = [await ground.node(Role.ENTRY, "c1") for _ in range(entries)]
            ports = await self._clients(token, nodes)
            # the control, with the first of ada's cores
            downloads = await self._begin(ports, each)
            second = await ground.node(Role.CORE, "c1", "ada")
            spare = await ground.node(Role.CORE, "c1", "bob")
            self._signal(nodes, signal.SIGSTOP)
            report.control_last_byte_s = await self._revoke(first, downloads)
            report.control = report.control_last_byte_s > LIMIT_S
            self._signal(nodes, signal.SIGCONT)
            await self._ended(downloads)
            # the real thing, with the second
            downloads = await self._begin(ports, each)
            report.last_byte_s = await self._revoke(second, downloads)
            await self._ended(downloads)
            report.served_after = spare.report() is not None and await self._all_serve(ports)
        finally:
            self._web.stop()
            await ground.stop()
        report.held = report.control and report.last_byte_s <= LIMIT_S and report.served_after
        return report

    async def _clients(self, token: str, nodes: list[GroundNode]) -> list[int]:
        """A client for each entry, which knows that entry alone."""
        ports = []
        for number, node in enumerate(nodes):
            view = await self._ground.subscription(token)
            host = node.address.partition(":")[0]
            lines = tuple(line for line in view.endpoints if line.host == host)
            config = xray_json(
                msgspec.structs.replace(view, endpoints=lines), socks_port=SOCKS + number
            )
            await self._ground.client(config, f"client-{number}")
            ports.append(SOCKS + number)
        return ports

    async def _begin(self, ports: list[int], each: int) -> list[_Download]:
        """Start all downloads and wait until bytes flow in each."""
        downloads = [_Download(port, self._clock) for port in ports for _ in range(each)]
        for item in downloads:
            item.start()

        async def flow() -> bool:
            return all(item.last_at > 0 for item in downloads)

        await self._ground.until("the downloads", flow, 20.0)
        return downloads

    async def _revoke(self, core: GroundNode, downloads: list[_Download]) -> float:
        """Exclude a core and watch; seconds until the last byte of any download."""
        self._signal([core], signal.SIGSTOP)  # a hostile core hears no and serves on
        at = self._clock.elapsed()
        await self._ground.revoke(core)
        while self._clock.elapsed() - at < WATCH_S and not all(item.ended for item in downloads):
            await self._clock.sleep_real(0.05)
        return round(max(item.last_at for item in downloads) - at, 3)

    async def _ended(self, downloads: list[_Download]) -> None:
        async def over() -> bool:
            return all(item.ended for item in downloads)

        await self._ground.until("the end of the downloads", over, 30.0)

    async def _all_serve(self, ports: list[int]) -> bool:
        for port in ports:
            try:
                await asyncio.to_thread(fetch, ("127.0.0.1", port), WEB, 1_000, 10.0)
            except OperationFault:
                return False
        return True

    def _signal(self, nodes: list[GroundNode], number: int) -> None:
        """Stop or continue agents, and nothing below them."""
        for node in nodes:
            os.kill(node.child.pid, number)
