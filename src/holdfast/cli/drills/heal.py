"""`holdfast drill heal`: machines die for good, one after another, and the network replaces them.

Relays and replicas by turns: the agent and its server are killed and the provider deletes their
machine, so that nothing starts again; headquarters finds out by silence. *Restored* is when a
client has opened a session at whoever has the seat by the record that client follows, on another
machine, has pulled what was acknowledged before the death and has compared it. A crowd writes all
the while; the outage of a death is the longest that any write waited meanwhile. So many machines
stand by in every place (ADR 0045) as `--standbys` says; the next death waits for the stand-in.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from holdfast.cli.drills.play import Keep, play
from holdfast.cli.drills.processes import find_process
from holdfast.cli.drills.timing import Holds, until
from holdfast.cli.local import LocalNetwork
from holdfast.cli.service import clock_of
from holdfast.cli.tour import ground
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import HoldfastError, OperationFault, UsageError
from holdfast.fabric.session import Session
from holdfast.hq.fleet_admin import StandbyOrder, StandbyView
from holdfast.hq.verbs import BASE
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Dice, Entropy, SystemEntropy
from holdfast.rim.pool_client import PoolClient
from holdfast.sim.crowd import Crowd, CrowdClient
from holdfast.sim.percentile import percentile

REGION: Final = "eu"
ROLES: Final = ("relay", "replica")
WRITE_S: Final = 0.2
POLL_S: Final = 0.1
PULLED: Final = 32
"""Blobs that are compared after each death, of all that were acknowledged before it."""
WAIT_S: Final = 120.0


class HealReport(msgspec.Struct):
    """The JSON. Real seconds."""

    deaths: int
    time_scale: float
    clients: int
    standbys: int
    seed: int
    restored_p50_s: float = 0.0
    restored_p99_s: float = 0.0
    push_outage_p50_s: float = 0.0
    push_outage_p99_s: float = 0.0
    acked: int = 0
    lost: int = 0
    """Acknowledged blobs on fewer than two disks at the end."""
    false_spawns: int = 0
    """Machines ordered beyond one for each death."""
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Nothing was lost and no machine was wasted; the times are reported as they are."""
        return self.acked > 0 and not self.lost and not self.false_spawns


class Heal:
    """The drill, in one empty directory. `clock` runs at the network's time scale."""

    def __init__(
        self, home: Path, clock: Clock, entropy: Entropy, seed: int, standbys: int = 0
    ) -> None:
        self._home = home
        self._standbys = standbys
        self._clock = clock
        self._entropy = entropy
        self._dice = Dice(seed)
        self._seed = seed
        self._clients: list[CrowdClient] = []
        self.network = LocalNetwork(
            home / "network",
            clock=clock,
            entropy=entropy,
            regions=(REGION,),
            time_scale=clock.scale,
        )

    async def run(self, deaths: int, clients: int) -> HealReport:
        """Raises OperationFault when a seat is not restored in time."""
        report = HealReport(deaths, self._clock.scale, clients, self._standbys, self._seed)
        began, restored, outages = self._real(), [], []
        try:
            await self.network.start()
            crowd = await self._crowd(clients)
            await crowd.start()
            await self._admin("POST", StandbyOrder(self._standbys))
            await self._stand_by()
            since = self._clock.wall()
            await self._clock.sleep_real(2.0)
            for number in range(deaths):
                await self._stand_by()
                name = f"{ROLES[number % 2]}-{REGION}-{self._dice.randrange(1, 4):03d}"
                restored_s, outage_s = await self._death(name)
                restored.append(restored_s)
                outages.append(outage_s)
            await crowd.stop()
            report.acked = len(crowd.acked)
            report.lost = await asyncio.to_thread(ground.lost_blobs, self.network, crowd.acked)
            await self._stand_by()
            report.false_spawns = ground.machines_ordered(self.network, since) - deaths
        finally:
            await self.network.stop()
        report.restored_p50_s = percentile(restored, 0.5)
        report.restored_p99_s = percentile(restored, 0.99)
        report.push_outage_p50_s = percentile(outages, 0.5)
        report.push_outage_p99_s = percentile(outages, 0.99)
        report.seconds = round(self._real() - began, 1)
        return report

    async def _admin(self, method: str, order: StandbyOrder | None = None) -> StandbyView:
        return await self.network.admin().call(method, f"{BASE}/standby", order, StandbyView)

    async def _stand_by(self) -> None:
        """Wait until every place keeps what it should. Raises OperationFault."""
        wanted = self._standbys * len(self.network.providers)

        async def there() -> bool:
            return (await self._admin("GET")).ready >= wanted

        await self._until(there, f"{wanted} machines to stand by")

    async def _until(self, holds: Holds, what: str) -> None:
        await until(self._clock, holds, what, wait_s=WAIT_S, poll_s=POLL_S)

    def _real(self) -> float:
        return self._clock.elapsed() / self._clock.scale

    async def _crowd(self, count: int) -> Crowd:
        where = (self.network, REGION, self._home / "crowd")
        self._clients = await ground.crowd_clients(
            *where, count, self._clock, self._entropy, period_s=WRITE_S
        )
        return Crowd(self._clients)

    # --- One death -------------------------------------------------------------------------------
    async def _death(self, name: str) -> tuple[float, float]:
        """(seconds until a client pulled from the successor, longest wait of a write)."""
        witness = self._dice.choice(self._clients)
        dead = witness.seat(name)
        await witness.acknowledged(PULLED)
        before = self._dice.sample(sorted(held.blob for held in witness.acked), PULLED)
        await self._destroy(name, ground.disk_of(self.network, dead.addresses))
        died_at = self._real()

        async def restored() -> bool:
            return await self._pulls(witness, name, dead.node, before)

        await self._until(restored, f"{name} to be restored")
        return self._real() - died_at, self._outage(died_at)

    def _outage(self, died_at: float) -> float:
        """The longest that a write has waited since then, those included that still wait."""
        scale, now = self._clock.scale, self._real()
        done = [(b / scale, (b + w) / scale) for c in self._clients for b, w in c.waits]
        waiting = [(c.waiting_since / scale, now) for c in self._clients if c.waiting_since]
        return max(end - began for began, end in (*done, *waiting, (now, now)) if end >= died_at)

    async def _destroy(self, name: str, home: Path) -> None:
        """Kill the agent and its server, and have the provider start nothing again."""
        pids = find_process("node", "run", f"--dir={home}"), find_process(f"--dir={home / 'role'}")
        for pid in pids:
            if pid is None:
                raise OperationFault(f"no process of {name} runs", retryable=False)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await ground.destroy(self.network, home.name)

    async def _pulls(
        self, witness: CrowdClient, name: str, dead: bytes, blobs: list[bytes]
    ) -> bool:
        """Whether another machine has the seat and gives all of `blobs` back."""
        seat = witness.seat(name)
        if seat.node == dead:
            return False
        client = PoolClient(seat.addresses[0], roots=self.network.roots(), clock=self._clock)
        try:
            session = await Session.open(client, witness.era.access, witness.locator.slot)
            found = await session.get(blobs)
        except HoldfastError:
            return False
        finally:
            await client.close()
        return all(blob in found and hash_bytes(found[blob]) == blob for blob in blobs)


def heal(
    *,
    deaths: int = 100,
    clients: int = 6,
    standbys: int = 1,
    time_scale: float = 60.0,
    seed: int = 1,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """Kill machines for good, one after another; how long until a client pulls from another.

    Parameters
    ----------
    deaths
        How many; relays and replicas by turns.
    clients
        Clients that write all the while.
    standbys
        Machines that stand by at each provider.
    time_scale
        How many of the network's seconds pass in one of yours.
    seed
        Which machines.
    json
        One JSON object as the last line.
    """
    if min(deaths, clients) < 1 or standbys < 0:
        raise UsageError("--deaths and --clients from 1")
    clock = clock_of(time_scale)
    return play(
        "heal",
        lambda home: Heal(home, clock, SystemEntropy(), seed, standbys).run(deaths, clients),
        keep=keep,
        json=json,
    )
