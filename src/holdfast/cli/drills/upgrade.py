"""`holdfast drill upgrade`: the next version through the whole fleet and back, under clients.

A crowd writes and readers read all the while. Headquarters is started from the next version's
source first: it speaks one node wire more, and the nodes are of this version still. Then its
release goes through all servers, canary region first, and back again; what each server runs is
asked of the server, at its public port. A session failed when a read did not give a blob back that
was promised, or when a write took longer than `WRITE_S_MAX`.

Then poisons, each a release that starts well: settings under which servers refuse most requests,
code that dies after seconds, code that refuses the probes of its peers. Each must be taken back
before a second server has it. Control: the settings once more without the halt rule, and they must
spread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from holdfast import __version__
from holdfast.cli.drills.next_release import CRASH, DEAF, NEXT_VERSION, make_tree, next_tree
from holdfast.cli.drills.play import Keep, play
from holdfast.cli.drills.timing import Holds, until
from holdfast.cli.hq_release import make_bundle
from holdfast.cli.local import LocalNetwork
from holdfast.cli.local_hq import HQ
from holdfast.cli.release_key import make_release_key
from holdfast.cli.root import open_embedded
from holdfast.cli.service import clock_of
from holdfast.cli.tour import ground
from holdfast.errors import HoldfastError, OperationFault, UsageError
from holdfast.hq.brain_view import ServerView
from holdfast.hq.releases import put_archive
from holdfast.hq.upgrade_admin import (
    OWN_NAME,
    Defer,
    ReleaseOrder,
    UpgradeOrder,
    UpgradeView,
    Why,
)
from holdfast.hq.verbs import Done
from holdfast.limits.upgrade import DEFER_DAYS_MAX
from holdfast.logic.fleet.rollout_rows import Phase, RolloutState
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy, SystemEntropy
from holdfast.rim.pool_client import PoolClient
from holdfast.sim.crowd import Crowd, CrowdClient
from holdfast.sim.readers import Reader
from holdfast.wire.release import Knobs, release_id

POISONS: Final = ("settings", "crash", "probes")
WRITE_S: Final = 0.5
WRITE_S_MAX: Final = 30.0
"""Real seconds: two of three relays are there all the while, a device waits for them no longer."""
POLL_S: Final = 0.2
WAIT_S: Final = 900.0
SOAK_S: Final = 60.0
"""The network's seconds."""
POISONED: Final = Knobs(requests_per_s=0.5)


class UpgradeReport(msgspec.Struct):
    """The JSON. Real seconds."""

    time_scale: float
    clients: int
    regions: tuple[str, ...]
    servers: int = 0
    """That take part."""
    servers_upgraded: int = 0
    """Servers that said the next version at their own port."""
    servers_rolled_back: int = 0
    """Of those, servers that said this version again."""
    hq_versions: tuple[str, ...] = ()
    """Versions of headquarters that served the nodes."""
    sessions: int = 0
    """Clients that kept a slot open from beginning to end, writers and readers."""
    operations: int = 0
    sessions_failed: int = 0
    write_s_max: float = 0.0
    acked: int = 0
    acked_lost: int = 0
    poison_contained: bool = False
    poison_reached: dict[str, int] = {}
    """Servers that were told to run each poison."""
    poison_reasons: dict[str, str] = {}
    control_spread: int = 0
    """Servers beyond the first that got the settings without the halt rule."""
    up_s: float = 0.0
    back_s: float = 0.0
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Nothing lost, no session failed, every server went up and back, poisons were contained
        and the control was not."""
        moved = self.servers_upgraded == self.servers_rolled_back == self.servers > 0
        clean = not (self.acked_lost or self.sessions_failed) and self.acked > 0
        return moved and clean and self.poison_contained and self.control_spread > 0


class UpgradeDrill:
    """The drill, in one empty directory. `clock` runs at the network's time scale."""

    def __init__(
        self,
        home: Path,
        clock: Clock,
        entropy: Entropy,
        clients: int,
        regions: Sequence[str],
        poisons: Sequence[str],
        servers: int,
    ) -> None:
        """`servers` that take part, the others are put off; 0 for all."""
        self._home = home
        self._part = servers
        self._clock = clock
        self._entropy = entropy
        self._poisons = tuple(poisons)
        self._report = UpgradeReport(clock.scale, clients, tuple(regions))
        self._writers: list[CrowdClient] = []
        self._readers: list[Reader] = []
        self.network = LocalNetwork(
            home / "network",
            clock=clock,
            entropy=entropy,
            regions=tuple(regions),
            time_scale=clock.scale,
        )

    async def run(self) -> UpgradeReport:
        """Raises OperationFault when a step does not come to its end."""
        report, began = self._report, self._clock.elapsed()
        tasks: list[asyncio.Task[None]] = []
        try:
            await self.network.start()
            await self._prepare()
            crowd = await self._crowd(report.clients)
            await crowd.start()
            tasks = [asyncio.create_task(reader.run()) for reader in self._readers]
            await self._until(self._all_well, "every server to be filled")
            report.servers = await self._put_off()
            await self._up_and_back()
            for poison in self._poisons:
                await self._poison(poison)
            report.poison_contained = set(report.poison_reached.values()) == {1}
            self._count_sessions(tasks)
            report.control_spread = await self._control()
            await crowd.stop()
            report.acked = len(crowd.acked)
            report.acked_lost = await asyncio.to_thread(
                ground.lost_blobs, self.network, crowd.acked
            )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.network.stop()
        report.seconds = self._real_since(began)
        return report

    # --- Ground ----------------------------------------------------------------------------------
    async def _prepare(self) -> None:
        """The release key, where the root is, and the releases, signed and added."""
        root = open_embedded(self.network.directory / "root")
        make_release_key(root, self._home / "key", self._clock.wall(), self._entropy)
        trees = self._home / "trees"
        here = await asyncio.to_thread(make_tree, trees / "here")
        following = await asyncio.to_thread(next_tree, trees / "next")
        await self._add("next", following)
        for poison in self._poisons:
            patches = {"crash": CRASH, "probes": DEAF}.get(poison, ())
            source = make_tree(trees / poison, *patches) if patches else here
            await self._add(poison, source, POISONED if poison == "settings" else Knobs())
        if "settings" not in self._poisons:
            await self._add("settings", here, POISONED)

    async def _add(self, name: str, source: Path, knobs: Knobs = Knobs()) -> None:  # noqa: B008
        bundle = await asyncio.to_thread(make_bundle, source, self._home / "key", name, knobs)
        put_archive(self.network.directory / HQ, bundle.staple, bundle.archive)
        assert release_id(bundle.staple)
        order = ReleaseOrder(bundle.staple)
        await self.network.admin().call("POST", "/admin/v1/releases", order, Done)

    async def _crowd(self, count: int) -> Crowd:
        """Writers in every region by turns, and a reader beside each."""
        regions = self._report.regions
        for number in range(count):
            region, home = regions[number % len(regions)], self._home / "crowd" / f"{number}"
            where = (self.network, region, home)
            (writer,) = await ground.crowd_clients(
                *where, 1, self._clock, self._entropy, period_s=WRITE_S
            )
            network, _ = await ground.client(self.network, region, self._clock, self._entropy)
            self._writers.append(writer)
            self._readers.append(Reader(network, writer, home / "reader"))
        return Crowd(self._writers)

    def _count_sessions(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """What clients have seen so far. A reader that ended, and a writer that waits, count."""
        report, now = self._report, self._clock.elapsed()
        report.sessions = len(self._writers) + len(self._readers)
        for reader, task in zip(self._readers, tasks, strict=True):
            report.sessions_failed += bool(reader.failed) or task.done()
            report.operations += reader.reads
        for writer in self._writers:
            waits = [wait for _, wait in writer.waits]
            if writer.waiting_since is not None:
                waits.append(now - writer.waiting_since)
            longest = max(waits, default=0.0) / self._clock.scale
            report.write_s_max = max(report.write_s_max, round(longest, 2))
            report.sessions_failed += longest > WRITE_S_MAX
            report.operations += len(waits)

    async def _put_off(self) -> int:
        """An operator puts off all but the servers that take part; how many do."""
        names = sorted(s.name for s in await self._servers())
        names.sort(key=lambda name: name[-3:])  # a relay, a replica, a relay
        part = names[: self._part or len(names)]
        for name in set(names) - set(part):
            order = Defer(float(DEFER_DAYS_MAX))
            await self.network.admin().call("POST", f"/admin/v1/servers/{name}/defer", order, Done)
        return len(part)

    # --- Up and back -----------------------------------------------------------------------------
    async def _up_and_back(self) -> None:
        report = self._report
        await self._restart_hq({"PYTHONPATH": str(self._home / "trees" / "next")})
        began = self._clock.elapsed()
        await self._start("next")
        await self._until_state(RolloutState.DONE)
        report.up_s = self._real_since(began)
        there = await self._versions()
        report.servers_upgraded = list(there.values()).count(NEXT_VERSION)
        began = self._clock.elapsed()
        await self._go_back()
        report.back_s = self._real_since(began)
        await self._restart_hq({})
        home = await self._versions()
        report.servers_rolled_back = sum(
            version == NEXT_VERSION and home.get(name) == __version__
            for name, version in there.items()
        )
        await self._until(self._all_well, "every server to be filled")

    async def _restart_hq(self, environment: dict[str, str]) -> None:
        """Headquarters goes first on the way up, and last on the way back."""
        self.network.kill_hq()
        self.network.hq_environment = environment
        await self.network.start_hq()
        about = await self.network.admin().call("GET", "/admin/v1/openapi.json", None, _Document)
        self._report.hq_versions += (about.info["version"],)

    async def _versions(self) -> dict[str, str]:
        """What each server says of itself at its public port, by name."""
        found = {}
        for server in await self._servers():
            client = PoolClient(server.addresses[0], roots=self.network.roots(), clock=self._clock)
            try:
                _, page = await client.page("/health")
                found[server.name] = str(msgspec.json.decode(page)["version"])
            except HoldfastError as error:
                found[server.name] = f"no answer: {error}"
            finally:
                await client.close()
        return found

    # --- Poison ----------------------------------------------------------------------------------
    async def _poison(self, name: str) -> None:
        """One poison: it must come back by itself."""
        await self._start(name)
        await self._until_state(RolloutState.BACKED)
        view = await self._upgrade()
        told = [place.name for place in view.places if place.phase == Phase.BACKED]
        self._report.poison_reached[name] = len(told)
        self._report.poison_reasons[name] = view.reason
        await self._until(self._all_well, "every server to be well again")

    async def _control(self) -> int:
        """The settings once more, without the halt rule: how many servers beyond the first."""
        await self._start("settings", halting=False)
        await self._until_state(RolloutState.DONE)
        view = await self._upgrade()
        return max(0, sum(place.runs == "settings" for place in view.places) - 1)

    # --- Orders and looks ------------------------------------------------------------------------
    async def _start(self, release: str, *, halting: bool = True) -> None:
        canary = self._report.regions[0]
        order = UpgradeOrder(release, canary, soak_s=SOAK_S, halting=halting)
        await self.network.admin().call("POST", "/admin/v1/upgrade", order, Done)

    async def _go_back(self) -> None:
        await self.network.admin().call("POST", "/admin/v1/upgrade/back", Why("drill"), Done)
        await self._until_state(RolloutState.BACKED)

    async def _upgrade(self) -> UpgradeView:
        return await self.network.admin().call("GET", "/admin/v1/upgrade", None, UpgradeView)

    async def _until_state(self, state: RolloutState) -> None:
        """Raises OperationFault when the rollout ends in another state."""
        ends = {RolloutState.DONE, RolloutState.BACKED}

        async def there() -> bool:
            view = await self._upgrade()
            if view.state in ends and view.state != state:
                raise OperationFault(f"the rollout is {view.state}: {view.reason}")
            return view.state == state

        await self._until(there, f"the rollout to be {state}")

    async def _servers(self) -> list[ServerView]:
        return list((await self.network.fleet()).servers)

    async def _all_well(self) -> bool:
        """Filled, undoubted, answering, and running what is installed."""
        servers = await self._servers()
        view = await self._upgrade()
        runs = all(place.runs == OWN_NAME for place in view.places)
        well = all(s.filled and s.tier == "green" and not s.witnesses for s in servers)
        calm = all(s.load.faults_share < 0.05 for s in servers)
        return runs and well and calm

    async def _until(self, holds: Holds, what: str) -> None:
        await until(self._clock, holds, what, wait_s=WAIT_S, poll_s=POLL_S)

    def _real_since(self, began: float) -> float:
        return round((self._clock.elapsed() - began) / self._clock.scale, 1)


class _Document(msgspec.Struct):
    """Of the OpenAPI document: the version of who made it."""

    info: dict[str, str]


def upgrade(
    *,
    clients: int = 6,
    time_scale: float = 20.0,
    regions: str = "eu,ap",
    poisons: str = ",".join(POISONS),
    servers: int = 0,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """The next version through all servers and back under clients; poisons stop at the first.

    Parameters
    ----------
    clients
        Clients that write, each with one that reads.
    time_scale
        How many of the network's seconds pass in one of yours.
    regions
        Regions, the canary first, comma-separated; six servers in each.
    poisons
        Which poisons, comma-separated: settings, crash, probes.
    servers
        So many take part, the others are put off by an operator; 0 for all.
    json
        One JSON object as the last line.
    """
    chosen, places = tuple(filter(None, poisons.split(","))), tuple(regions.split(","))
    if clients < 1 or servers == 1 or not chosen or not set(chosen) <= set(POISONS):
        raise UsageError(f"--clients from 1, --servers from 2; --poisons of {', '.join(POISONS)}")
    clock = clock_of(time_scale)
    return play(
        "upgrade",
        lambda home: UpgradeDrill(
            home, clock, SystemEntropy(), clients, places, chosen, servers
        ).run(),
        keep=keep,
        json=json,
    )
