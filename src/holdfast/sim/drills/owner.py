"""`holdfast drill owner`: others saturate a core, and its owner does not notice (seed 000).

1. The owner's throughput alone and while others pull as hard as they can, in turn, several times.
2. Others pull more than the owner lends: what passes is the quota, to the byte, by the core's own
   counter and by headquarters' books.
3. The owner switches the core off: how long until the others' requests are answered elsewhere?
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from holdfast.errors import OperationFault
from holdfast.limits import MIB
from holdfast.logic.access.model import ExitPolicy, Member
from holdfast.logic.access.xray_json import xray_json
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.internet import Internet, fetch
from holdfast.sim.access.ground import SERVER_NET, AccessGround, GroundNode
from holdfast.sim.percentile import percentile

WEB: Final = (f"{SERVER_NET}.1", 80)
OWNER_SOCKS: Final = 16_000
GUEST_SOCKS: Final = 16_001
RATIO_MIN: Final = 0.9
FELT_S_MAX: Final = 2.0
QUOTA: Final = 20 * MIB + 4_321
LENT: Final = 500_000 * MIB
START: Final = 100 * MIB
"""The first part of a download: what others had under way by then is in its way."""


class OwnerReport(msgspec.Struct):
    """What the drill found. Rates are MB/s, medians of the rounds."""

    rounds: int = 0
    alone_mb_s: float = 0.0
    loaded_mb_s: float = 0.0
    guests_mb_s: float = 0.0
    """What the others got while the owner rested: that they did saturate it."""
    ratio: float = 0.0
    """Over whole downloads."""
    ratio_start: float = 0.0
    """Over the first 100 MiB of each."""
    quota: int = 0
    passed: int = 0
    """By the books of headquarters."""
    received: int = 0
    """Bytes of bodies that reached the others; what passed and was under way may be lost."""
    quota_exact: bool = False
    switch_off_felt_s: float = 0.0
    held: bool = False


class OwnerDrill:
    """One run, in a namespace of its own."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._ground = AccessGround(home, clock=clock, entropy=entropy)
        self._web = Internet(WEB[0])
        self._pulling = False
        self._pulled = 0
        self.report = OwnerReport()

    async def run(self, rounds: int, megabytes: int, guests: int) -> OwnerReport:
        """The three parts."""
        report, ground = self.report, self._ground
        self._web.start()
        try:
            await ground.start()
            await ground.cell("c1")
            core = await ground.node(Role.CORE, "c1", "ada")
            await ground.policy(core.name, ExitPolicy(reserve_bytes=LENT))
            await ground.node(Role.ENTRY, "c1", "ada")
            await self._client(await ground.member("ada"), OWNER_SOCKS)
            await self._client(await ground.member(), GUEST_SOCKS)
            await self._throughput(rounds, megabytes * MIB, guests)
            await self._quota(core, guests)
            await ground.policy(core.name, ExitPolicy(reserve_bytes=LENT))
            report.switch_off_felt_s = await self._switch_off(core)
        finally:
            self._pulling = False
            self._web.stop()
            await ground.stop()
        report.held = (
            report.ratio >= RATIO_MIN
            and report.quota_exact
            and report.switch_off_felt_s <= FELT_S_MAX
        )
        return report

    async def _client(self, member: Member, port: int) -> None:
        token = (await self._ground.device(member, "c1")).token
        view = await self._ground.subscription(token)
        await self._ground.client(xray_json(view, socks_port=port), f"client-{port}")

        async def works() -> bool:
            await asyncio.to_thread(fetch, ("127.0.0.1", port), WEB, 1_000, 5.0)
            return True

        await self._ground.until("the way through", works)

    # --- 1 ---------------------------------------------------------------------------------------
    async def _throughput(self, rounds: int, size: int, guests: int) -> None:
        report = self.report
        report.rounds = rounds
        alone: list[_Rates] = []
        loaded: list[_Rates] = []
        others = []
        for _ in range(rounds):
            alone.append(await self._rates(size))
            pullers = self._pull(guests)
            await self._clock.sleep_real(1.5)
            before, at = self._pulled, self._clock.elapsed()
            await self._clock.sleep_real(1.5)
            others.append((self._pulled - before) / (self._clock.elapsed() - at) / 1e6)
            loaded.append(await self._rates(size))
            self._pulling = False
            await asyncio.gather(*pullers)
        report.alone_mb_s = percentile([one.whole for one in alone], 0.5, 1)
        report.loaded_mb_s = percentile([one.whole for one in loaded], 0.5, 1)
        report.guests_mb_s = percentile(others, 0.5, 1)
        report.ratio = round(report.loaded_mb_s / report.alone_mb_s, 3)
        starts = [percentile([one.start for one in some], 0.5) for some in (loaded, alone)]
        report.ratio_start = round(starts[0] / starts[1], 3)

    async def _rates(self, size: int) -> _Rates:
        began, received, start_s = self._clock.elapsed(), 0, 0.0

        def note(count: int) -> None:
            nonlocal received, start_s
            received += count
            if not start_s and received >= min(START, size):
                start_s = self._clock.elapsed() - began

        got = await asyncio.to_thread(fetch, ("127.0.0.1", OWNER_SOCKS), WEB, size, 30.0, note)
        if got.received != size:
            raise OperationFault("the owner's download was cut")
        return _Rates(size / got.total_s / 1e6, min(START, size) / start_s / 1e6)

    def _pull(self, guests: int) -> list[asyncio.Task[None]]:
        self._pulling = True
        return [asyncio.create_task(asyncio.to_thread(self._pull_one)) for _ in range(guests)]

    def _pull_one(self) -> None:
        while self._pulling:
            try:
                fetch(("127.0.0.1", GUEST_SOCKS), WEB, 1_000 * MIB, 5.0, self._note)
            except (OperationFault, _Enough):
                continue

    def _note(self, count: int) -> None:
        self._pulled += count
        if not self._pulling:
            raise _Enough

    # --- 2 ---------------------------------------------------------------------------------------
    async def _quota(self, core: GroundNode, guests: int) -> None:
        """Lend exactly `QUOTA` more than what was used, and pull until nothing comes."""
        report, ground = self.report, self._ground
        await self._clock.sleep_real(6.0)  # usage is told every few seconds
        used = await self._reserve_used()
        await ground.policy(core.name, ExitPolicy(reserve_bytes=used + QUOTA))
        await self._clock.sleep_real(1.0)
        self._pulled, self._pulling = 0, True
        pulls = [asyncio.create_task(asyncio.to_thread(self._pull_once)) for _ in range(guests)]
        await asyncio.gather(*pulls)
        for _ in range(3):
            await asyncio.to_thread(self._pull_once)
        self._pulling = False
        await self._clock.sleep_real(6.0)
        report.quota = QUOTA
        report.passed = await self._reserve_used() - used
        report.received = self._pulled
        report.quota_exact = report.passed == QUOTA and 0 < report.received <= QUOTA

    def _pull_once(self) -> None:
        try:
            fetch(("127.0.0.1", GUEST_SOCKS), WEB, 100 * MIB, 5.0, self._note)
        except OperationFault:
            return

    async def _reserve_used(self) -> int:
        return (await self._ground.state()).cores[0].reserve_used

    # --- 3 ---------------------------------------------------------------------------------------
    async def _switch_off(self, core: GroundNode) -> float:
        """The owner pulls the plug; others go on through another core."""
        other = await self._ground.node(Role.CORE, "c1", "bob")
        await self._ground.policy(other.name, ExitPolicy(reserve_bytes=LENT))
        await self._clock.sleep_real(3.0)
        core.kill()
        at = self._clock.elapsed()
        while True:
            try:
                got = await asyncio.to_thread(fetch, ("127.0.0.1", GUEST_SOCKS), WEB, 1_000, 5.0)
            except OperationFault:
                got = None
            felt = self._clock.elapsed() - at
            if got is not None and got.received == 1_000:
                return round(felt, 3)
            if felt > 30.0:
                return round(felt, 3)
            await self._clock.sleep_real(0.05)


class _Rates(NamedTuple):
    """MB/s of one download, and of its first part."""

    whole: float
    start: float


class _Enough(Exception):
    """Ends a pull from inside."""
