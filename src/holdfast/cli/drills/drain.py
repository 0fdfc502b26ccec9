"""`holdfast drill drain`: machines are taken out while clients use them (seed 004 §6.3).

A relay and a replica are drained by an operator's verb. On each of them sessions are held by
clients that ask something every tenth of a second; a session counts as dropped when it fails before
its client has opened one at the successor. A crowd writes all the while; what it was promised must
lie on two disks at the end.

No machine may go before its successor is complete, by the successor's own disk. The replica's
successor is stopped as soon as it has the seat, while the crowd writes on: as long as it stands
still it lacks what was written, and the drained replica must refuse to die.

Control: a machine is destroyed with sessions on it, and the same count must see them dropped.
"""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from holdfast.cli.drills.holders import ASK_S, Holder, dropped_by_destroying, hold, let_go
from holdfast.cli.drills.play import Keep, play
from holdfast.cli.drills.processes import find_process
from holdfast.cli.drills.timing import Holds, until
from holdfast.cli.local import LocalNetwork
from holdfast.cli.service import clock_of
from holdfast.cli.tour import ground
from holdfast.errors import OperationFault, UsageError
from holdfast.hq.admin import Done
from holdfast.hq.brain_view import ServerView
from holdfast.hq.fleet_admin import Drain as DrainOrder
from holdfast.limits import RECORD_CHANGE_S_MIN
from holdfast.rim.clock import Clock
from holdfast.rim.cloud.machines import GONE
from holdfast.rim.entropy import Entropy, SystemEntropy
from holdfast.sim.crowd import Crowd, CrowdClient
from holdfast.sim.witness import Held, held_on

REGION: Final = "eu"
POLL_S: Final = 0.1
WRITE_S: Final = 0.2
STOPPED_S: Final = 4.0
"""Real seconds a successor stands still: too short to be taken for dead."""
WAIT_S: Final = 240.0


class DrainReport(msgspec.Struct):
    """The JSON."""

    time_scale: float
    clients: int
    drained: tuple[str, ...] = ()
    sessions: int = 0
    """Held on the drained servers when they were drained."""
    sessions_dropped: int = 0
    sessions_moved: int = 0
    acked: int = 0
    lost: int = 0
    """Acknowledged blobs on fewer than two disks at the end."""
    terminated_before_complete: int = 0
    refused_while_incomplete: bool = False
    drain_s_max: float = 0.0
    """From the order to the end of the machine, the network's seconds."""
    control_dropped: int = 0
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Nothing was dropped or lost, no machine went too early, and the counts can tell."""
        clean = not (self.sessions_dropped or self.lost or self.terminated_before_complete)
        seen = (
            self.sessions_moved == self.sessions > 0 and self.acked > 0 and self.control_dropped > 0
        )
        return clean and seen and self.refused_while_incomplete


class DrainDrill:
    """The drill, in one empty directory. `clock` runs at the network's time scale."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy, clients: int) -> None:
        self._home = home
        self._clock = clock
        self._entropy = entropy
        self._report = DrainReport(clock.scale, clients)
        self._clients: list[CrowdClient] = []
        self.network = LocalNetwork(
            home / "network",
            clock=clock,
            entropy=entropy,
            regions=(REGION,),
            time_scale=clock.scale,
        )

    async def run(self) -> DrainReport:
        """Raises OperationFault when a step does not come to its end."""
        report, began = self._report, self._clock.elapsed()
        try:
            await self.network.start()
            crowd = await self._crowd(report.clients)
            await crowd.start()
            await self._until(self._all_filled, "every server to be filled")
            await self._drain(crowd, f"relay-{REGION}-001", stop_successor=False)
            await self._drain(crowd, f"replica-{REGION}-001", stop_successor=True)
            await crowd.stop()
            report.acked = len(crowd.acked)
            report.lost = await asyncio.to_thread(ground.lost_blobs, self.network, crowd.acked)
            report.control_dropped = await self._control(f"relay-{REGION}-002")
        finally:
            await self.network.stop()
        report.seconds = round((self._clock.elapsed() - began) / self._clock.scale, 1)
        return report

    async def _crowd(self, count: int) -> Crowd:
        where = (self.network, REGION, self._home / "crowd")
        self._clients = await ground.crowd_clients(
            *where, count, self._clock, self._entropy, period_s=WRITE_S
        )
        return Crowd(self._clients)

    # --- One server ------------------------------------------------------------------------------
    async def _drain(self, crowd: Crowd, name: str, *, stop_successor: bool) -> None:
        """Drain it and wait until its machine is gone."""
        report, old = self._report, await self._server(name)
        machine = self._machine(old)
        holders = self._holders(name)
        await hold(holders)
        report.sessions += len(holders)
        before = set(crowd.acked)
        ordered = self._clock.elapsed()
        admin = self.network.admin()
        await admin.call("POST", f"/admin/v1/servers/{name}/drain", DrainOrder("drill"), Done)
        await self._until(lambda: self._seated(name, old.node), f"a successor of {name}")
        if stop_successor:
            report.refused_while_incomplete = await self._stand_still(crowd, name, machine)
        report.terminated_before_complete += not await self._complete_at_end(name, machine, before)
        took_s = self._clock.elapsed() - ordered
        report.drain_s_max = max(report.drain_s_max, round(took_s, 1))
        await self._clock.sleep_real(10 * ASK_S)
        dropped, moved = await let_go(holders)
        report.sessions_dropped += dropped
        report.sessions_moved += moved
        report.drained += (name,)
        await self._clock.sleep_real(RECORD_CHANGE_S_MIN / self._clock.scale)

    async def _complete_at_end(self, name: str, machine: str, blobs: set[Held]) -> bool:
        """Wait for the end of a machine; whether its successor's disk held all of `blobs` at the
        last look that found the machine still there."""
        complete = False

        async def gone() -> bool:
            nonlocal complete
            looked = blobs <= await asyncio.to_thread(held_on, await self._disk(name))
            if await self._gone(machine):
                return True
            complete = looked
            return False

        await self._until(gone, f"the end of {machine}")
        return complete

    async def _stand_still(self, crowd: Crowd, name: str, machine: str) -> bool:
        """Stop the successor's process; whether the old machine outlives that time."""
        role = f"--dir={await self._disk(name) / 'role'}"

        async def runs() -> bool:
            return find_process(role) is not None

        await self._until(runs, f"a process that serves {name}")
        pid = find_process(role)
        if pid is None or (await self._server(name)).filled:
            raise OperationFault(f"{name} was filled before it could be stopped; try again")
        os.kill(pid, signal.SIGSTOP)
        try:
            await self._clock.sleep_real(STOPPED_S)
            missing = crowd.acked - await asyncio.to_thread(held_on, await self._disk(name))
            return bool(missing) and not await self._gone(machine)
        finally:
            os.kill(pid, signal.SIGCONT)

    def _holders(self, name: str) -> list[Holder]:
        """One session of every client at that server."""
        return [
            Holder(each, partial(each.seat, name), self.network, self._clock)
            for each in self._clients
        ]

    async def _control(self, name: str) -> int:
        machine = self._machine(await self._server(name))
        holders = self._holders(name)
        return await dropped_by_destroying(self.network, machine, holders, self._clock)

    # --- Looking ---------------------------------------------------------------------------------
    async def _server(self, name: str) -> ServerView:
        (server,) = [row for row in (await self.network.fleet()).servers if row.name == name]
        return server

    async def _all_filled(self) -> bool:
        return all(server.filled for server in (await self.network.fleet()).servers)

    async def _seated(self, name: str, old: str) -> bool:
        return (await self._server(name)).node != old

    async def _disk(self, name: str) -> Path:
        return ground.disk_of(self.network, (await self._server(name)).addresses)

    def _machine(self, server: ServerView) -> str:
        """The provider's name of the machine under a server."""
        return ground.disk_of(self.network, server.addresses).name

    async def _gone(self, machine: str) -> bool:
        states = {s.name: s.state for _, _, s in ground.machines(self.network)}
        return states.get(machine, GONE) == GONE

    async def _until(self, holds: Holds, what: str) -> None:
        await until(self._clock, holds, what, wait_s=WAIT_S, poll_s=POLL_S)


def drain(
    *, clients: int = 8, time_scale: float = 20.0, keep: Keep = None, json: bool = False
) -> int:
    """Drain a relay and a replica under clients; no session drops, nothing is lost.

    Parameters
    ----------
    clients
        Clients that write and hold sessions.
    time_scale
        How many of the network's seconds pass in one of yours.
    json
        One JSON object as the last line.
    """
    if clients < 1:
        raise UsageError("--clients from 1")
    clock = clock_of(time_scale)
    return play(
        "drain",
        lambda home: DrainDrill(home, clock, SystemEntropy(), clients).run(),
        keep=keep,
        json=json,
    )
