"""`holdfast drill access`: a real client behind a subscription, while everything behind it turns.

1. A client that knows nothing but its subscription downloads through entry and core; the web server
   counts. Datagrams go the same way. Downloads that somebody else does not read are not in its way.
2. Cores and entries are killed, one after the other, each brought back: how long until the client's
   next request is answered, and does any fail after that?
3. Paths turn, many times, at a scale at which hours are fractions of a second, while the client
   uses what it fetched up to 24 of those hours ago. No request may fail. Control: what it fetched
   long before the overlap, once everybody has newer paths, must be dead.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.errors import OperationFault
from holdfast.limits import MIB
from holdfast.limits.access import EPOCH_OVERLAP_S
from holdfast.logic.access.model import Cell, Member, Transport
from holdfast.logic.access.xray_json import xray_json
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.internet import ANSWER, Internet, ask, expected, fetch, outlives, unread
from holdfast.rim.process import Child
from holdfast.sim.access.ground import SERVER_NET, AccessGround, GroundNode
from holdfast.sim.percentile import percentile

WEB: Final = (f"{SERVER_NET}.1", 80)
DNS: Final = (f"{SERVER_NET}.1", 53)
SOCKS: Final = 16_000
OLD_SOCKS: Final = 16_001
XHTTP_SOCKS: Final = 16_009
UNREAD_SOCKS: Final = 16_010
BESIDE_SOCKS: Final = 16_011
SCALE: Final = 7_200.0
"""Two hours a second: paths turn about once a second."""
STALE_S: Final = 24 * 3_600.0
SHORT: Final = 3_000
UNREAD: Final = 32
RECONNECT_S: Final = 2.0
GIVE_UP_S: Final = 20.0
DROPPED_MAX: Final = 20
_TRY_S: Final = 0.05


class AccessReport(msgspec.Struct):
    """What the drill found. `held` unless something is missing."""

    bytes: int = 0
    counted_by_server: int = 0
    bytes_equal: bool = False
    mb_s: float = 0.0
    udp_ok: bool = False
    beside_unread_ok: bool = False
    """Downloads that another device began and does not read stop nobody else's."""
    outlived: bool = False
    """A connection worked on after `SHORT` others of its client that were cut."""
    xhttp_ok: bool = False
    """The same by the other transport."""
    core_kills: int = 0
    entry_kills: int = 0
    failed_after_reconnect: int = 0
    reconnect_p50_s: float = 0.0
    reconnect_p99_s: float = 0.0
    rotations: int = 0
    requests_while_rotating: int = 0
    refreshes: int = 0
    dropped: int = 0
    dropped_how: tuple[str, ...] = ()
    """Of the first of them: epoch, seconds since the refresh, seconds it took, and why."""
    stale_paths_dead: bool = False
    """Control: paths from before the overlap, that no live device holds, lead nowhere."""
    epochs_served: int = 0
    held: bool = False


class AccessDrill:
    """One run, in a namespace of its own (`sim.access.ground.enter`)."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._ground = AccessGround(home, clock=clock, entropy=entropy)
        self._web = Internet(WEB[0])
        self._token = ""
        self._clients = 0
        self._why = ""
        self.report = AccessReport()

    async def run(self, megabytes: int, kills: int, rotations: int) -> AccessReport:
        """The three parts. Raises OperationFault when the network does not come up."""
        report, ground = self.report, self._ground
        self._web.start()
        try:
            await ground.start()
            await ground.cell("c1")
            member = await ground.member("ada")
            self._token = (await ground.device(member, "c1")).token
            cores = [await ground.node(Role.CORE, "c1", "ada")]
            entries = [await ground.node(Role.ENTRY, "c1", "ada")]
            await self._beside_unread(member)
            cores.append(await ground.node(Role.CORE, "c1", "bob"))
            entries.append(await ground.node(Role.ENTRY, "c1", "bob"))
            client = await self._client(SOCKS)
            await self._download(megabytes)
            delays = await self._kill(cores, kills)
            report.core_kills = kills
            delays += await self._kill(entries, kills)
            report.entry_kills = kills
            report.reconnect_p50_s = percentile(delays, 0.5, 3)
            report.reconnect_p99_s = percentile(delays, 0.99, 3)
            await self._rotate(client, rotations)
        finally:
            self._web.stop()
            await ground.stop()
        report.held = (
            report.bytes_equal
            and report.udp_ok
            and report.beside_unread_ok
            and report.outlived
            and report.xhttp_ok
            and report.failed_after_reconnect == 0
            and report.reconnect_p99_s <= RECONNECT_S
            and report.rotations >= rotations
            and report.dropped == 0
            and (report.stale_paths_dead or not rotations)
        )
        return report

    async def _client(self, port: int) -> Child[Any]:
        """A client made from what the subscription says now."""
        view = await self._ground.subscription(self._token)
        self._clients += 1
        config = xray_json(view, socks_port=port, transport=Transport.GRPC)
        return await self._ground.client(config, f"client-{self._clients}")

    # --- 1 ---------------------------------------------------------------------------------------
    async def _beside_unread(self, member: Member) -> None:
        """Two devices of one lane at one entry: all connections behind it are shared."""
        other = await self._ground.device(member, "c1")
        config = xray_json(await self._ground.subscription(other.token), socks_port=UNREAD_SOCKS)
        await self._ground.client(config, "client-unread")
        await self._client(BESIDE_SOCKS)
        way = ("127.0.0.1", UNREAD_SOCKS)
        with suppress(OperationFault), unread(way, WEB, UNREAD):
            await self._clock.sleep_real(2.0)  # all that fits on the way is on the way
            self.report.beside_unread_ok = await self._works(BESIDE_SOCKS, 20 * MIB)
        # A device that never fetches again would keep its paths open, and all that came after.
        await self._ground.revoke_device(other.device)

    async def _download(self, megabytes: int) -> None:
        size, report = megabytes * MIB, self.report
        before = self._web.sent
        got = await asyncio.to_thread(fetch, ("127.0.0.1", SOCKS), WEB, size)
        report.bytes = got.received
        report.counted_by_server = self._web.sent - before
        report.bytes_equal = report.counted_by_server == size and got.digest == expected(size)
        report.mb_s = round(size / got.total_s / 1e6, 1)
        report.udp_ok = await self._datagrams(20) == 20
        try:
            way = ("127.0.0.1", SOCKS)
            report.outlived = await asyncio.to_thread(outlives, way, WEB, SHORT)
        except OperationFault:
            report.outlived = False
        view = await self._ground.subscription(self._token)
        config = xray_json(view, socks_port=XHTTP_SOCKS, transport=Transport.XHTTP)
        await self._ground.client(config, "client-xhttp")
        report.xhttp_ok = await self._works(XHTTP_SOCKS, 20 * MIB)

    async def _datagrams(self, count: int) -> int:
        answered = 0
        for number in range(count):
            question = b"question %d" % number
            try:
                reply = await asyncio.to_thread(ask, ("127.0.0.1", SOCKS), DNS, question)
            except OperationFault:
                continue
            answered += reply == ANSWER + question
        return answered

    # --- 2 ---------------------------------------------------------------------------------------
    async def _kill(self, nodes: list[GroundNode], kills: int) -> list[float]:
        """Kill in turn; seconds until a request is answered again, each time."""
        delays = []
        for number in range(kills):
            victim = nodes[number % len(nodes)]
            victim.kill()
            began = self._clock.elapsed()
            while not await self._works():
                if self._clock.elapsed() - began > GIVE_UP_S:
                    raise OperationFault(f"no way through after {victim.name} was killed")
                await self._clock.sleep_real(_TRY_S)
            delays.append(self._clock.elapsed() - began)
            for _ in range(3):
                self.report.failed_after_reconnect += not await self._works()
            await self._ground.restart(victim)
            await self._ground.serves(victim)
            await self._clock.sleep_real(1.2)  # its neighbours see it within a health check
        return delays

    async def _works(self, port: int = SOCKS, size: int = 1_000) -> bool:
        """Whether one small download comes through whole."""
        try:
            got = await asyncio.to_thread(fetch, ("127.0.0.1", port), WEB, size, 5.0)
        except OperationFault as error:
            self._why = str(error)
            return False
        self._why = f"{got.received} of {size} bytes"
        return got.digest == expected(size)

    # --- 3 ---------------------------------------------------------------------------------------
    async def _rotate(self, client: Child[Any], rotations: int) -> None:
        """Paths turn by themselves at `SCALE`; the client refreshes once in 24 of those hours."""
        if not rotations:
            return
        report, ground = self.report, self._ground
        await ground.restart_hq(SCALE)
        await ground.call("POST", "/access/cells/c1/turn", None, Cell)  # from now on by itself
        old = await ground.subscription(self._token)
        first = await self._epoch()
        refreshed_at = self._clock.elapsed()
        while (turned := await self._epoch() - first) < rotations:
            report.rotations = turned
            report.requests_while_rotating += 1
            await self._use(turned, refreshed_at)
            if (self._clock.elapsed() - refreshed_at) * SCALE >= STALE_S:
                await client.stop(self._clock, 2.0)
                client = await self._client(SOCKS)
                refreshed_at = self._clock.elapsed()
                report.refreshes += 1
        report.rotations = turned
        await self._clock.sleep_real(EPOCH_OVERLAP_S / SCALE)
        await self._client(OLD_SOCKS + 1)  # everybody fetched: what is older may close
        await self._clock.sleep_real(EPOCH_OVERLAP_S / SCALE + 2.0)
        config = xray_json(old, socks_port=OLD_SOCKS, transport=Transport.GRPC)
        await ground.client(config, "client-old")
        report.stale_paths_dead = not await self._works(OLD_SOCKS)
        report.epochs_served = len((await ground.state()).cells[0].epochs)

    async def _use(self, turned: int, refreshed_at: float) -> None:
        """One request of a client whose paths are as old as its last refresh."""
        report, began = self.report, self._clock.elapsed()
        if await self._works():
            return
        report.dropped += 1
        if len(report.dropped_how) < DROPPED_MAX:
            age_s, took_s = began - refreshed_at, self._clock.elapsed() - began
            how = f"turn {turned}, {age_s:.2f} s after a refresh, {took_s:.2f} s: {self._why}"
            report.dropped_how += (how,)

    async def _epoch(self) -> int:
        return (await self._ground.state()).cells[0].epochs[-1].number
