"""Kill -9 under load: relays, replicas, headquarters, agents and a device, by turns.

The witness is this process, which is never killed: a crowd of clients in it writes and remembers
what relays acknowledged, and files are dropped into a device's folder. At the end every
acknowledged blob must be served by two servers and lie intact on two disks, the audit chain must
be whole, and a new device must restore every file.

`restart_p99_s` counts from the signal until the victim does its work again, its supervisor's waits
included (they grow for a server that dies often); `start_p99_s` counts from the birth of the new
process. A server works when it opens a session for its slot, headquarters when it leads, a device
when it is connected.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from holdfast.cli.drills.play import Keep, play
from holdfast.cli.drills.processes import age_s, connected, find_process
from holdfast.cli.drills.timing import Holds, until
from holdfast.cli.local import LocalNetwork
from holdfast.cli.local_hq import HQ
from holdfast.cli.tour import ground
from holdfast.cli.tour.hands import Device
from holdfast.cli.tour.outside import read_story
from holdfast.cli.trees import mismatches
from holdfast.errors import HoldfastError, OperationFault, PeerFault, UsageError
from holdfast.fabric.session import Session
from holdfast.limits import IDS_PER_REQUEST_MAX, STORED_QUORUM
from holdfast.rim.clock import Clock, SystemClock
from holdfast.rim.cloud.machines import GONE
from holdfast.rim.entropy import Dice, Entropy, SystemEntropy
from holdfast.rim.pool_client import PoolClient
from holdfast.rim.process import alive
from holdfast.sim.crowd import Crowd, CrowdClient
from holdfast.sim.percentile import percentile
from holdfast.sim.witness import Held, held_on
from holdfast.wire.cloud import Server

REGION: Final = "eu"
KINDS: Final = ("relay", "replica", "hq", "agent", "device")
PERIOD_S: Final = 0.05
FILE_PERIOD_S: Final = 0.25
FILE_BYTES_MAX: Final = 20_000
POLL_S: Final = 0.02
RESTART_S: Final = 90.0
"""Real seconds after which a victim is given up."""
LOAD_S: Final = 300.0
"""Real seconds for the load between two kills."""


class CrashReport(msgspec.Struct):
    """What was killed and what it cost. Times are real seconds."""

    trials: int
    clients: int
    seed: int
    victims: dict[str, int] = {}
    acked: int = 0
    acked_lost: int = 0
    """Acknowledged blobs that fewer than two servers serve, or hold on disk."""
    corrupt: int = 0
    """Bodies that were not what was asked for, audit breaks, restored files that differ."""
    files: int = 0
    """Dropped into the device's folder."""
    restart_p50_s: float = 0.0
    restart_p99_s: float = 0.0
    restart_max_s: dict[str, float] = {}
    start_p99_s: float = 0.0
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Nothing lost and nothing damaged; how long restarts took is only told."""
        return not self.acked_lost and not self.corrupt and self.acked > 0


class Restart(msgspec.Struct, frozen=True):
    """One kill: `restart_s` since the signal, `start_s` since the new process began."""

    kind: str
    restart_s: float
    start_s: float


class Crash:
    """The drill, in one empty directory."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy, seed: int) -> None:
        self._home = home
        self._clock = clock
        self._entropy = entropy
        self._dice = Dice(seed)
        self._seed = seed
        self._tree = home / "tree"
        self._clients: list[CrowdClient] = []
        self._restarts: list[Restart] = []
        self.network = LocalNetwork(
            home / "network", clock=clock, entropy=entropy, regions=(REGION,)
        )

    async def run(
        self, trials: int, clients: int, acks: int, kinds: Sequence[str] = KINDS
    ) -> CrashReport:
        """`trials` kills of `kinds`, with at least `acks` acknowledgements before each."""
        report = CrashReport(trials, clients, self._seed)
        self._tree.mkdir(parents=True)
        (self._home / "logs").mkdir()
        device = self._device("ada")
        try:
            await self.network.start()
            crowd = await self._crowd(clients)
            await crowd.start()
            await self._set_up(device)
            began = self._clock.elapsed()
            writing = asyncio.create_task(self._write_files(report))
            for number, (kind, target) in enumerate(self._plan(trials, kinds)):
                await self._load(crowd, (number + 1) * acks)
                self._restarts.append(await self._kill(kind, target, device))
                report.victims[kind] = report.victims.get(kind, 0) + 1
            await self._load(crowd, trials * acks)
            report.seconds = round(self._clock.elapsed() - began, 1)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await crowd.stop()
            await self._judge(report, crowd.acked, device)
        finally:
            await device.stop()
            await self.network.stop()
        _sum_up(report, self._restarts)
        return report

    # --- The load --------------------------------------------------------------------------------
    async def _crowd(self, count: int) -> Crowd:
        where = (self.network, REGION, self._home / "crowd")
        self._clients = await ground.crowd_clients(
            *where, count, self._clock, self._entropy, period_s=PERIOD_S
        )
        return Crowd(self._clients)

    def _device(self, name: str) -> Device:
        return Device(name, self._home / name, self._home / "logs", self._clock, self._clock.scale)

    async def _set_up(self, device: Device) -> None:
        self._locator = str(self.network.locator())
        self._words = str(self._home / "words")
        made = await device.run(
            "device", "init", "--locator", self._locator, "--phrase-file", self._words,
            "--region", REGION,
        )  # fmt: skip
        self._locator = str(made["locator"])
        await device.run("folder", "add", str(self._tree), "--name", "drill")
        await device.start("folder", "sync", "--watch")

    async def _write_files(self, report: CrashReport) -> None:
        """New files and changed ones, for as long as the drill lasts."""
        while True:
            path = self._tree / f"{self._dice.randrange(200):03d}.bin"
            report.files += not path.exists()
            data = self._dice.randbytes(self._dice.randrange(FILE_BYTES_MAX))
            await asyncio.to_thread(path.write_bytes, data)
            await self._clock.sleep_real(FILE_PERIOD_S)

    async def _load(self, crowd: Crowd, acked: int) -> None:
        """Return once so many blobs are acknowledged. Raises OperationFault when they stall."""
        try:
            async with self._clock.real_timeout(LOAD_S):
                while len(crowd.acked) < acked:
                    if crowd.live < len(self._clients):
                        await crowd.stop()
                        raise OperationFault("a client of the crowd stopped", retryable=False)
                    await self._clock.sleep_real(0.1)
        except TimeoutError as error:
            raise OperationFault(f"{len(crowd.acked)} of {acked} acknowledged") from error

    # --- Kills -----------------------------------------------------------------------------------
    def _plan(self, trials: int, kinds: Sequence[str]) -> Iterator[tuple[str, Server | None]]:
        """Kinds by turns, in another order each round; servers of a kind by turns."""
        servers = [server for _, _, server in ground.machines(self.network) if server.state != GONE]
        self._dice.shuffle(servers)
        queues = {
            "relay": [server for server in servers if server.name.startswith("relay-")],
            "replica": [server for server in servers if server.name.startswith("replica-")],
            "agent": list(servers),
        }
        for number in range(trials):
            if number % len(kinds) == 0:
                order = self._dice.sample(kinds, len(kinds))
            kind = order[number % len(kinds)]
            queue = queues.get(kind, [])
            if queue:
                queue.append(queue.pop(0))
            yield kind, queue[-1] if queue else None

    async def _kill(self, kind: str, target: Server | None, device: Device) -> Restart:
        """Kill one victim at some moment and wait until it works again."""
        await self._clock.sleep_real(self._dice.uniform(0.0, 0.5))
        if target is not None:
            return await self._kill_server(kind, target)
        if kind == HQ:
            killed = self._clock.elapsed()
            self.network.kill_hq()
            await self.network.start_hq()
            took = self._clock.elapsed() - killed
            return Restart(kind, took, took)
        return await self._kill_device(device)

    async def _kill_server(self, kind: str, server: Server) -> Restart:
        home = ground.disk_of(self.network, [server.address])
        role = await self._pid(f"--dir={home / 'role'}")
        agent = await self._pid("node", "run", f"--dir={home}")
        victim = agent if kind == "agent" else role
        killed = self._clock.elapsed()
        os.kill(victim, signal.SIGKILL)
        await self._until(lambda: _gone(role), f"the end of {server.name}")
        await self._until(lambda: self._serves(server), f"{server.name} to serve again")
        took = self._clock.elapsed() - killed
        words = ("node", "run", f"--dir={home}") if kind == "agent" else (f"--dir={home / 'role'}",)
        age = age_s(await self._pid(*words))
        return Restart(kind, took, took if age is None else min(took, age))

    async def _kill_device(self, device: Device) -> Restart:
        pid = await self._pid("folder", "sync", str(device.home))
        killed = self._clock.elapsed()
        os.kill(pid, signal.SIGKILL)
        await self._until(lambda: _gone(pid), "the end of the device")
        await device.stop()
        await device.start("folder", "sync", "--watch")

        async def works() -> bool:
            device.check()
            found = find_process("folder", "sync", str(device.home))
            return found is not None and connected(found)

        await self._until(works, "the device to connect again")
        took = self._clock.elapsed() - killed
        return Restart("device", took, took)

    async def _serves(self, server: Server) -> bool:
        """Whether it opens a session for a slot of the crowd."""
        witness = self._clients[0]
        client = self._client(server)
        try:
            await Session.open(client, witness.era.access, witness.locator.slot)
        except HoldfastError:
            return False
        finally:
            await client.close()
        return True

    def _client(self, server: Server) -> PoolClient:
        address = f"{server.address}:{self.network.settings.node_port}"
        return PoolClient(address, roots=self.network.roots(), clock=self._clock)

    async def _pid(self, *words: str) -> int:
        """The process with these words, which may be about to start."""
        found: list[int] = []

        async def there() -> bool:
            pid = find_process(*words)
            found.extend([pid] if pid is not None else [])
            return bool(found)

        await self._until(there, f"a process with {' '.join(words)}")
        return found[0]

    async def _until(self, holds: Holds, what: str) -> None:
        await until(self._clock, holds, what, wait_s=RESTART_S, poll_s=POLL_S)

    # --- Judging ---------------------------------------------------------------------------------
    async def _judge(self, report: CrashReport, acked: set[Held], device: Device) -> None:
        """Read everything back: through the servers' ports, from their disks, on a new device."""
        report.acked = len(acked)
        served = await self._served(report, acked)
        report.corrupt += (await read_story(self.network.admin())).breaks
        await device.stop()
        await device.run("folder", "sync")
        fresh, into = self._device("cleo"), self._home / "restored"
        await fresh.run(
            "device", "restore", "--phrase-file", self._words, "--locator", self._locator,
            "--into", str(into),
        )  # fmt: skip
        report.corrupt += len(await asyncio.to_thread(mismatches, self._tree, into / "drill"))
        await self.network.stop()
        disks = [
            await asyncio.to_thread(held_on, directory)
            for _, directory, server in ground.machines(self.network)
        ]
        report.acked_lost = count_lost(acked, served, disks)

    async def _served(self, report: CrashReport, acked: set[Held]) -> dict[Held, int]:
        """How many servers give each acknowledged blob back, whole."""
        counts: dict[Held, int] = {}
        servers = [s for _, _, s in ground.machines(self.network) if s.state != GONE]
        for server in servers:
            client = self._client(server)
            for witness in self._clients:
                tag = witness.era.tag
                blobs = [held.blob for held in acked if held.tag == tag]
                session = await Session.open(client, witness.era.access, witness.locator.slot)
                for some in _batches(blobs, IDS_PER_REQUEST_MAX // 4):
                    try:
                        found = await session.get(some)
                    except PeerFault:
                        report.corrupt += 1
                        continue
                    for blob in found:
                        held = Held(tag, blob)
                        counts[held] = counts.get(held, 0) + 1
            await client.close()
        return counts


def count_lost(acked: set[Held], served: dict[Held, int], disks: Sequence[set[Held]]) -> int:
    """Acknowledged blobs that fewer than two servers serve, or that lie on fewer than two disks."""
    return sum(
        served.get(held, 0) < STORED_QUORUM or sum(held in disk for disk in disks) < STORED_QUORUM
        for held in acked
    )


def _batches(blobs: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(blobs), size):
        yield blobs[start : start + size]


async def _gone(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return not alive(pid)
    return True


def _sum_up(report: CrashReport, restarts: Sequence[Restart]) -> None:
    times = [restart.restart_s for restart in restarts]
    report.restart_p50_s = percentile(times, 0.5)
    report.restart_p99_s = percentile(times, 0.99)
    report.start_p99_s = percentile([restart.start_s for restart in restarts], 0.99)
    for kind in KINDS:
        found = [restart.restart_s for restart in restarts if restart.kind == kind]
        if found:
            report.restart_max_s[kind] = round(max(found), 2)


def crash(
    *,
    trials: int = 100,
    clients: int = 12,
    acks: int = 100,
    victims: str = ",".join(KINDS),
    seed: int = 1,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """Kill relays, replicas, headquarters, agents and a device under load; nothing may be lost.

    Parameters
    ----------
    trials
        How many kills, the five kinds of victim by turns.
    clients
        Clients that write and remember what was acknowledged.
    acks
        Acknowledgements before each kill.
    victims
        Kinds of victims, comma-separated.
    seed
        Which victims, in which order, when; and the files of the device.
    json
        One JSON object as the last line.
    """
    kinds = tuple(victims.split(","))
    if min(trials, clients, acks) < 1 or not set(kinds) <= set(KINDS):
        raise UsageError(f"--trials, --clients, --acks from 1; --victims of {', '.join(KINDS)}")
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "crash",
        lambda home: Crash(home, clock, entropy, seed).run(trials, clients, acks, kinds),
        keep=keep,
        json=json,
    )
