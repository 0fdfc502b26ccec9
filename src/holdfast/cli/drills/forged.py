"""Forged death reports about healthy servers, and one real death among them (seed 004 §4, §9.1).

Liars are groups like any others: each has a blob in the pool and an open session, and says through
the relays' own port, again and again, that servers which are well cannot be reached. Meanwhile
one relay's machine is destroyed for real. Reports alone must cost probes and nothing else; the
real death must be found and replaced.

Counted from the providers' own logs: machines ordered for any server but the dead one are
`spawns`, those for the dead one `control_spawns`. From the audit log: `false_red` servers that were
held for dead, and `yellow` ones, which shows that the reports were heard.

The control shows that verification is what stops them. No setting of a relay makes its probes say
what reports say, so it is played in this process, in simulated time, with the production observers
and the production fleet logic of 18 servers (`sim.drills.rumour`): with probes that ask, the same
rumours order no machine; with probes that believe the reports, they do.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from holdfast.cli.drills.play import Keep, play
from holdfast.cli.local import LocalNetwork
from holdfast.cli.service import clock_of
from holdfast.cli.tour import ground
from holdfast.crypto.blob import seal
from holdfast.crypto.era import Era
from holdfast.errors import HoldfastError, OperationFault, UsageError
from holdfast.fabric.session import Session
from holdfast.hq.admin import AuditPage
from holdfast.limits import RED_FAILURE_S
from holdfast.logic.audit import export_line
from holdfast.logic.fleet.model import SlotId
from holdfast.rim.clock import Clock
from holdfast.rim.cloud.machines import GONE
from holdfast.rim.entropy import Dice, Entropy, SystemEntropy
from holdfast.rim.pool_client import PoolClient
from holdfast.sim.drills.rumour import rumours_alone
from holdfast.wire.cloud import Server
from holdfast.wire.faults import Refusal
from holdfast.wire.hq import Terms
from holdfast.wire.pool import BlobClass

REGION: Final = "eu"
TERMS: Final = Terms(group_bytes_max=1 << 30, requests_per_s=10_000.0, requests_burst=100_000.0)
"""The liars are not slowed down: the rate limits are another defence, and not the one on trial."""
FLOOD_S: Final = 1_800.0
HEAL_ELAPSED_S: Final = 1_500.0
"""Elapsed seconds until the dead server must have a successor, and a margin in real ones."""
MARGIN_S: Final = 90.0
POLL_S: Final = 0.5
DEATH_SHARE: Final = 0.2
"""The machine is destroyed after this share of the reports."""
_DAY_S: Final = 86_400


class ForgedReport(msgspec.Struct):
    """What the reports brought about."""

    time_scale: float
    liars: int
    seed: int
    reports: int = 0
    """Accepted by a relay."""
    refused: int = 0
    spawns: int = 0
    false_red: int = 0
    control_spawns: int = 0
    control_red: int = 0
    yellow: int = 0
    """Healthy servers that the reports brought under suspicion."""
    watched_elapsed_s: float = 0.0
    """From the first report to the end; a death takes 300 s to be believed."""
    reports_per_s: float = 0.0
    seconds: float = 0.0
    control: bool = False
    """Whether forged reports order machines where nothing verifies them, and only there."""
    spawns_without_verification: int = 0

    @property
    def held(self) -> bool:
        """Nobody was replaced but the dead, and the dead was; and that takes verification."""
        quiet = not self.spawns and not self.false_red and self.control
        return quiet and self.control_spawns == 1 and self.watched_elapsed_s > RED_FAILURE_S


class Forged:
    """The drill, in one empty directory. `clock` runs at the network's time scale."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy, seed: int) -> None:
        self._clock = clock
        self._entropy = entropy
        self._dice = Dice(seed)
        self._seed = seed
        self._slot: SlotId = b""
        self._dead = ""
        self.network = LocalNetwork(
            home / "network",
            clock=clock,
            entropy=entropy,
            regions=(REGION,),
            time_scale=clock.scale,
            report_tag_age_s=0.0,
            terms=TERMS,
        )

    async def run(self, reports: int, liars: int) -> ForgedReport:
        """At least `reports` reports by `liars` groups. Raises OperationFault."""
        report = ForgedReport(self._clock.scale, liars, self._seed)
        asked, believed = rumours_alone(self._seed)
        report.spawns_without_verification = believed.spawns
        report.control = believed.spawns > 0 and asked.spawns == asked.false_red == 0
        try:
            await self.network.start()
            _, locator = await ground.client(self.network, REGION, self._clock, self._entropy)
            self._slot = locator.slot
            servers = [s for _, _, s in ground.machines(self.network) if s.state != GONE]
            relays = [server for server in servers if server.name.startswith("relay-")]
            victim = self._dice.choice(relays)
            self._dead = _logical(victim)
            healthy = [_logical(server) for server in servers if server is not victim]
            ears = [server for server in relays if server is not victim]
            before = ground.machines_made(self.network)
            await self._play(report, reports, victim, ears, healthy)
            await self._judge(report, before)
        finally:
            await self.network.stop()
        return report

    async def _play(
        self,
        report: ForgedReport,
        reports: int,
        victim: Server,
        ears: list[Server],
        healthy: list[str],
    ) -> None:
        """The flood, the death in the middle of it, and the wait for both to have had their day."""
        clients = [self._client(server) for server in ears]
        try:
            sessions = [
                await self._liar(clients[number % len(clients)]) for number in range(report.liars)
            ]
            began = self._clock.elapsed()
            flood = [
                asyncio.create_task(self._lie(report, reports, session, healthy))
                for session in sessions
            ]
            death = asyncio.create_task(self._die(report, reports, victim))
            async with self._clock.real_timeout(FLOOD_S):
                await asyncio.gather(*flood)
            flooded = self._clock.elapsed() - began
            report.reports_per_s = round(report.reports * self._clock.scale / flooded, 1)
            await death
            await self._replaced(began)
        except TimeoutError as error:
            raise OperationFault(f"{report.reports} reports in {FLOOD_S:.0f} s") from error
        finally:
            for client in clients:
                await client.close()
        report.watched_elapsed_s = round(self._clock.elapsed() - began, 1)
        report.seconds = round(report.watched_elapsed_s / self._clock.scale, 1)

    def _client(self, server: Server) -> PoolClient:
        address = f"{server.address}:{self.network.settings.node_port}"
        return PoolClient(address, roots=self.network.roots(), clock=self._clock, connections_max=8)

    async def _liar(self, client: PoolClient) -> Session:
        """A group that has a blob here, as one that is believed must."""
        era = Era(self._entropy.bytes(32), self.network.locator().network)
        session = await Session.open(client, era.access, self._slot)
        born = int(self._clock.wall() // _DAY_S)
        await session.push(BlobClass.LOG, [seal(era, 1, b"x", born)])
        return session

    async def _lie(
        self, report: ForgedReport, reports: int, session: Session, healthy: list[str]
    ) -> None:
        while report.reports < reports:
            name = self._dice.choice(healthy)
            try:
                await session.report(name, self._clock.wall() - 60.0, REGION)
                report.reports += 1
            except (Refusal, HoldfastError):
                report.refused += 1
                await self._clock.sleep_real(0.2)

    async def _die(self, report: ForgedReport, reports: int, victim: Server) -> None:
        """Destroy the victim's machine once the flood is well under way."""
        while report.reports < reports * DEATH_SHARE:
            await self._clock.sleep_real(0.05)
        for provider, _, server in list(ground.machines(self.network)):
            if server.name == victim.name:
                await self.network.provider(provider).delete(victim.name)

    async def _replaced(self, began: float) -> None:
        """Wait until the dead server is served by a successor and nobody else's time ran out."""
        limit = HEAL_ELAPSED_S / self._clock.scale + MARGIN_S
        try:
            async with self._clock.real_timeout(limit):
                while not await self._healed():
                    await self._clock.sleep_real(POLL_S)
                while self._clock.elapsed() - began < 1.5 * RED_FAILURE_S:
                    await self._clock.sleep_real(POLL_S)
        except TimeoutError as error:
            raise OperationFault(f"{self._dead} was not replaced in {limit:.0f} s") from error

    async def _healed(self) -> bool:
        fleet = await self.network.fleet()
        (row,) = [server for server in fleet.servers if server.name == self._dead]
        began = [name for name in ground.machines_made(self.network) if name.startswith(self._dead)]
        return len(began) > 1 and row.tier.value == "green" and bool(row.addresses)

    # --- Judging ---------------------------------------------------------------------------------
    async def _judge(self, report: ForgedReport, before: list[str]) -> None:
        new = [name for name in ground.machines_made(self.network) if name not in before]
        report.control_spawns = sum(name.startswith(self._dead) for name in new)
        report.spawns = len(new) - report.control_spawns
        red, yellow = await self._suspects("server.red"), await self._suspects("server.yellow")
        report.false_red = len(red - {self._dead})
        report.control_red = len(red & {self._dead})
        report.yellow = len(yellow - {self._dead})

    async def _suspects(self, verb: str) -> set[str]:
        """Subjects of one verb in the audit log."""
        found: set[str] = set()
        after, client = 0, self.network.admin()
        while True:
            path = f"/admin/v1/audit?after={after}"
            page = await client.call("GET", path, None, AuditPage)
            if not page.lines:
                return found
            lines = [export_line(line.row) for line in page.lines]
            found |= {line.subject for line in lines if line.verb == verb}
            after = lines[-1].sequence


def _logical(server: Server) -> str:
    """The logical server a machine was made for: its name without the order's."""
    return server.name.rpartition("-")[0]


def forged_reports(
    *,
    reports: int = 100_000,
    liars: int = 64,
    time_scale: float = 8.0,
    seed: int = 1,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """Report healthy servers dead, over and over, while one machine really dies.

    Parameters
    ----------
    reports
        How many forged reports relays accept, at least.
    liars
        Groups that make them.
    time_scale
        How many of the network's seconds pass in one of yours.
    seed
        Who dies, and who is reported.
    json
        One JSON object as the last line.
    """
    if min(reports, liars) < 1:
        raise UsageError("--reports and --liars are at least 1")
    clock, entropy = clock_of(time_scale), SystemEntropy()
    return play(
        "forged-reports",
        lambda home: Forged(home, clock, entropy, seed).run(reports, liars),
        keep=keep,
        json=json,
    )
