"""The story by chapters: sync, lose a provider, heal, repay, restore from what was refilled.

Everything is real but the hosting: processes, TLS, disks, kills. The teller touches the network
only as outsiders can: verbs of the command line for devices, signals for the loss, and reading
(disks, DNS, the audit log) for the judging.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from holdfast.cli.local import LocalNetwork
from holdfast.cli.tour import ground
from holdfast.cli.tour.hands import Device
from holdfast.cli.tour.outside import FleetWatch, ask_dns, dns_by_view, read_story
from holdfast.cli.tour.report import TourReport
from holdfast.cli.trees import Tree, copy_tree, mismatches
from holdfast.hq.brain_view import FleetView, ServerView
from holdfast.limits import RED_FAILURE_S
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.sim.crowd import Crowd
from holdfast.sim.witness import Held, held_on

REGION: Final = "eu"
CROWD: Final = 12
"""Clients beside the two devices. More than ten must report for YELLOW by count (seed 004 §4.1)."""
SYNC_S: Final = 900.0
HEAL_ELAPSED_S: Final = 3_000.0
"""Elapsed seconds for detection, healing, refill or repayment; far more than any should take."""

Tell = Callable[[str], None]


class Stage(msgspec.Struct):
    """Directories of one telling."""

    home: Path

    @property
    def network(self) -> Path:
        return self.home / "network"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    def tree(self, name: str) -> Path:
        return self.home / "trees" / name


class Story:
    """One telling. `tell` is called with a line for each thing that happens."""

    def __init__(
        self,
        stage: Stage,
        network: LocalNetwork,
        clock: Clock,
        entropy: Entropy,
        report: TourReport,
        tell: Tell,
    ) -> None:
        self.stage = stage
        self.network = network
        self.report = report
        self._clock = clock
        self._entropy = entropy
        self._tell = tell
        self._devices: list[Device] = []
        self._crowd: Crowd | None = None
        self._watch: FleetWatch | None = None
        self._stopped_at = 0.0
        self._killed_at = 0.0
        self._acked: set[Held] = set()

    # --- The whole -------------------------------------------------------------------------------
    async def play(self, folder: Path) -> None:
        """Tell it all. Raises OperationFault when a chapter does not come to its end."""
        tree = await asyncio.to_thread(copy_tree, folder, self.stage.tree("ada"))
        self.report.files, self.report.bytes = tree.files, tree.bytes
        try:
            await self._begin()
            async with self._watching():
                ada, ben, line = await self._meet()
                await self._lose(ada, ben, tree)
                await self._heal()
                await self._repay()
                await self._judge()
                await self._restore(ada, line)
        finally:
            await self._part()
            await self.network.stop()

    async def _part(self) -> None:
        """Whoever still runs stops."""
        for device in self._devices:
            await device.stop()
        if self._crowd is not None:
            crowd, self._crowd = self._crowd, None
            self._acked = crowd.acked
            await crowd.stop()

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[None]:
        client = self.network.admin(self._clock)
        self._watch = FleetWatch(client, self._clock, REGION)
        task = asyncio.create_task(self._watch.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def watch(self) -> FleetWatch:
        assert self._watch is not None
        return self._watch

    def _elapsed(self, elapsed_s: float) -> float:
        """Real seconds of `elapsed_s`, and a margin for a busy machine."""
        return elapsed_s / self._clock.scale + 60.0

    # --- Chapters --------------------------------------------------------------------------------
    async def _begin(self) -> None:
        self._tell("starting a network: three providers, two regions, twelve servers")
        await self.network.start()

    async def _meet(self) -> tuple[Device, Device, str]:
        """Two devices and a crowd; returns the devices and Ada's locator line."""
        view = await self.watch.until(
            lambda view: self.watch.copies(view) == 3, self._elapsed(600), "every slot to be full"
        )
        self.watch.begin()
        self._dns_before = await ask_dns(self.network.dns, _names(view), self.network.domain)
        self._tell(f"{CROWD} clients connect and write")
        self._crowd = await self._make_crowd()
        await self._crowd.start()
        ada, ben = self._device("ada"), self._device("ben")
        words = self.stage.home / "ada.words"
        locator = str(self.network.locator())
        made = await ada.run(
            "device", "init", "--locator", locator, "--phrase-file", str(words), "--region", REGION
        )
        await ada.run("folder", "add", str(self.stage.tree("ada")), "--name", "tour")
        invite = (await ada.run("folder", "invite", "tour"))["invite"]
        await ben.run("device", "init", "--locator", locator, "--region", REGION)
        self._tell("Ada adds the folder; Ben joins it with her invite")
        await ada.start("folder", "sync", "--watch")
        await ben.run("folder", "join", invite, str(self.stage.tree("ben")))
        await ben.start("folder", "sync", "--watch")
        self.report.clients = self._crowd.live + len(self._devices)
        return ada, ben, str(made["locator"])

    async def _lose(self, ada: Device, ben: Device, tree: Tree) -> None:
        """A provider dies midway; the sync ends all the same; then every client stops."""
        await self._midway(tree)
        provider = self.network.providers[0]
        self._tell(f"provider {provider} is killed with everything on it")
        self._killed_at = self._clock.wall()
        self.network.kill_provider(provider)
        await self._synced(ada, ben)
        self._tell("Ben has every file, with two of three relays left")
        await self.watch.until(
            lambda view: "yellow" in self.watch.tiers or "orange" in self.watch.tiers,
            self._elapsed(RED_FAILURE_S),
            "the reports of the clients to count",
        )
        await self._part()
        self._stopped_at = self._clock.wall()
        self._tell("all clients stop; what follows happens without them")

    async def _heal(self) -> None:
        view = await self.watch.until(
            lambda view: "black" in self.watch.tiers and self.watch.copies(view) == 3,
            self._elapsed(HEAL_ELAPSED_S),
            "every slot to have its three relays and three filled replicas again",
        )
        self.report.redundancy_after = self.watch.copies(view)
        self._tell("replacements have joined, DNS has moved, replicas have refilled: 3 of 3")
        await self._check_dns(view)

    async def _repay(self) -> None:
        provider = self.network.providers[0]
        self._tell(f"provider {provider} returns; its old machines are fenced, the debt is repaid")
        await self.network.start_provider(provider)
        view = await self.watch.until(
            lambda view: view.diversity_debt == 0 and self.watch.copies(view) == 3,
            self._elapsed(HEAL_ELAPSED_S),
            "the diversity debt to be repaid",
        )
        self.report.redundancy_min = self.watch.redundancy_min
        self.report.diversity_debt = self.watch.debt_max
        self.report.diversity_debt_after = view.diversity_debt

    async def _judge(self) -> None:
        """What outsiders find: on disks, in the audit log, in the providers' own logs."""
        story = await read_story(self.network.admin(self._clock))
        self.report.audit_lines, self.report.audit_breaks = story.lines, story.breaks
        self.report.tiers = tuple(sorted(story.tiers, key=("yellow orange red black").find))
        seats = [at for at, _ in story.seated if at > self._killed_at]
        self.report.refilled_without_client = bool(seats) and min(seats) > self._stopped_at
        self.report.spawns = ground.machines_ordered(self.network, self._killed_at)

    async def _restore(self, ada: Device, locator: str) -> None:
        """Only refilled replicas are left; a new device comes back from words and locator."""
        assert self.watch.view is not None
        refilled = _refilled(self.watch.view, self._killed_at)
        held = await asyncio.to_thread(self._held_by, refilled)
        self.report.acked = len(self._acked)
        self.report.acked_lost = len(self._acked - held)
        self._tell("every other server of the region is destroyed, disks and all")
        keep = {address for server in refilled for address in server.addresses}
        destroyed = await ground.destroy_all_but(self.network, REGION, keep)
        self.report.restored_from_refilled_only = bool(refilled) and destroyed > 0
        cleo = self._device("cleo")
        words = str(self.stage.home / "ada.words")
        into = self.stage.tree("cleo")
        await cleo.run(
            "device", "restore", "--phrase-file", words, "--locator", locator, "--into", str(into)
        )
        self._tell("a new device has restored the folder from words and locator")
        wrong = await asyncio.to_thread(mismatches, self.stage.tree("ada"), into / "tour")
        self.report.mismatches = max(self.report.mismatches, 0) + len(wrong)
        for text in wrong[:5]:
            self._tell(f"differs: {text}")

    # --- Steps -----------------------------------------------------------------------------------
    def _device(self, name: str) -> Device:
        device = Device(
            name, self.stage.home / name, self.stage.logs, self._clock, self._clock.scale
        )
        self._devices.append(device)
        return device

    async def _make_crowd(self) -> Crowd:
        where = (self.network, REGION, self.stage.home / "crowd")
        clients = await ground.crowd_clients(*where, CROWD, self._clock, self._entropy)
        return Crowd(clients)

    async def _midway(self, tree: Tree) -> None:
        """Return when a good part of the folder, but not all, has reached the pool."""
        share = tree.bytes // 10
        start = ground.bytes_on_disk(self.network)
        async with self._clock.real_timeout(SYNC_S):
            while ground.bytes_on_disk(self.network) - start < share:
                self._check_devices()
                await self._clock.sleep_real(0.2)

    async def _synced(self, ada: Device, ben: Device) -> None:
        """Return when both trees are equal, byte by byte."""
        left, right = self.stage.tree("ada"), self.stage.tree("ben")
        async with self._clock.real_timeout(SYNC_S):
            while True:
                self._check_devices()
                wrong = await asyncio.to_thread(mismatches, left, right)
                if not wrong:
                    break
                await self._clock.sleep_real(1.0)
        self.report.mismatches = 0

    def _check_devices(self) -> None:
        for device in self._devices:
            device.check()

    async def _check_dns(self, view: FleetView) -> None:
        answers = await ask_dns(self.network.dns, _names(view), self.network.domain)
        expected = dns_by_view(view)
        self.report.dns_moved = sum(answers[name] != self._dns_before[name] for name in answers)
        self.report.dns_wrong = sum(answers[name] != expected[name] for name in answers)

    def _held_by(self, servers: list[ServerView]) -> set[Held]:
        held: set[Held] = set()
        for server in servers:
            held |= held_on(ground.disk_of(self.network, server.addresses))
        return held


def _names(view: FleetView) -> list[str]:
    return [server.name for server in view.servers]


def _refilled(view: FleetView, killed_at: float) -> list[ServerView]:
    """Replicas of the region on machines that did not exist before the loss."""
    return [
        server
        for server in view.servers
        if server.role is Role.REPLICA and server.region == REGION and server.seated_at > killed_at
    ]
