"""`holdfast drill rebalance`: slots move to two empty servers while clients use them (§6.2).

Three relays and three replicas carry every slot; a fourth of each joins and carries none. The
operator's verb evens the load. A crowd writes all the while and every client holds a session at
each of its six seats; a session counts as dropped when it fails before its client has opened one at
the successor. Headquarters is killed in the middle and starts again.

No server may let a slot go before the successor's own disk holds all promised blobs that its own
held before the move. What was promised must lie on two disks at the end.

Control: a machine is destroyed with sessions on it, and the same count must see them dropped.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.cli.drills.holders import ASK_S, Holder, dropped_by_destroying, hold, let_go
from holdfast.cli.drills.play import Keep, play
from holdfast.cli.drills.timing import Holds, until
from holdfast.cli.local import LocalNetwork
from holdfast.cli.service import clock_of
from holdfast.cli.tour import ground
from holdfast.errors import HoldfastError, UsageError
from holdfast.hq.admin import Done, TokenMade, TokenOrder
from holdfast.hq.rebalance_admin import MoveUnderWay, RebalanceOrder, Rebalancing
from holdfast.limits import STORED_QUORUM
from holdfast.limits.fleet import MOVES_PER_MIN_MAX
from holdfast.logic.fleet.model import Role, Seat
from holdfast.rim.clock import Clock
from holdfast.rim.cloud.machines import GONE
from holdfast.rim.entropy import Entropy, SystemEntropy
from holdfast.rim.files import write_file
from holdfast.rim.ports import free_subnets
from holdfast.rim.process import Child, holdfast_command, spawn
from holdfast.sim.crowd import Crowd, CrowdClient
from holdfast.sim.witness import Held, held_on

REGION: Final = "eu"
NEW_PROVIDER: Final = "newcomer"
NEW_ROLES: Final = (Role.RELAY, Role.REPLICA)
POLL_S: Final = 0.3
WRITE_S: Final = 0.2
WAIT_S: Final = 400.0
STOP_S: Final = 20.0


class RebalanceReport(msgspec.Struct):
    """The JSON. Imbalance is the fullest server over the mean of its role."""

    time_scale: float
    clients: int
    imbalance_before: float = 0.0
    imbalance_after: float = 0.0
    imbalance_planned: float = 0.0
    moves: int = 0
    sessions: int = 0
    sessions_dropped: int = 0
    sessions_moved: int = 0
    dropped_because: tuple[str, ...] = ()
    acked: int = 0
    lost: int = 0
    """Acknowledged blobs on fewer than two disks at the end."""
    let_go: int = 0
    """Moves that were seen to end, of slots in which the former server held somebody's blobs ..."""
    let_go_before_filled: int = 0
    """... and those whose new server lacked some of these when it ended."""
    hq_restarts: int = 0
    control_dropped: int = 0
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Evener, nothing dropped, nothing lost, nobody let go too early; the counts can tell."""
        clean = not (self.sessions_dropped or self.lost or self.let_go_before_filled)
        seen = self.sessions_moved > 0 and self.let_go > 0 and self.control_dropped > 0
        evener = self.moves > 0 and self.imbalance_after < self.imbalance_before
        return clean and seen and evener and self.acked > 0 and self.hq_restarts == 1


class Rebalance:
    """The drill, in one empty directory. `clock` runs at the network's time scale."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy, clients: int) -> None:
        self._home = home
        self._clock = clock
        self._entropy = entropy
        self._report = RebalanceReport(clock.scale, clients)
        self._clients: list[CrowdClient] = []
        self._new: dict[str, Path] = {}
        self._children: list[Child[Any]] = []
        self.network = LocalNetwork(
            home / "network",
            clock=clock,
            entropy=entropy,
            regions=(REGION,),
            time_scale=clock.scale,
        )

    async def run(self) -> RebalanceReport:
        """Raises OperationFault when a step does not come to its end."""
        report, began = self._report, self._clock.elapsed()
        try:
            await self.network.start()
            where = (self.network, REGION, self._home / "crowd")
            self._clients = await ground.crowd_clients(
                *where, report.clients, self._clock, self._entropy, period_s=WRITE_S
            )
            crowd = Crowd(self._clients)
            await crowd.start()
            await self._add_servers()
            await self._until(self._all_filled, "every server to be filled")
            holders = await self._hold_all()
            await self._rebalance(crowd)
            await self._clock.sleep_real(10 * ASK_S)
            await self._count(holders)
            await crowd.stop()
            report.acked = len(crowd.acked)
            report.lost = await asyncio.to_thread(self._lost, crowd.acked)
            report.control_dropped = await self._control(f"relay-{REGION}-002")
        finally:
            for child in self._children:
                await child.stop(self._clock, STOP_S)
            await self.network.stop()
        report.seconds = round((self._clock.elapsed() - began) / self._clock.scale, 1)
        return report

    # --- Two servers more ------------------------------------------------------------------------
    async def _add_servers(self) -> None:
        """Machines of a fourth provider, joined with tokens as anybody's are."""
        port = self.network.settings.node_port
        (subnet,) = free_subnets(1, port, self._entropy)
        for number, role in enumerate(NEW_ROLES):
            order = TokenOrder(role=role, region=REGION, provider=NEW_PROVIDER)
            made = await self.network.admin().call("POST", "/admin/v1/tokens", order, TokenMade)
            home = self._new[made.name] = self._home / "new" / made.name
            home.mkdir(parents=True)
            write_file(home / "token", made.token.encode())
            command = holdfast_command(
                *("node", "run", f"--dir={home}", f"--token-file={home / 'token'}"),
                *(f"--listen={subnet}.0.{number + 1}:{port}", f"--provider={NEW_PROVIDER}"),
                f"--time-scale={self._clock.scale}",
            )
            self._children.append(await spawn(command, log=home.with_suffix(".log")))
        await self._until(self._joined, "the new servers to join")

    async def _joined(self) -> bool:
        """Both are seated, and headquarters has heard enough of them to give them slots."""
        names = {move.name for move in (await self._look()).planned}
        return names == self._new.keys()

    # --- The verb --------------------------------------------------------------------------------
    async def _rebalance(self, crowd: Crowd) -> None:
        """Give the order and look on until it has come to its end."""
        report, admin = self._report, self.network.admin()
        dry = await self._look()
        report.imbalance_before, report.imbalance_planned = dry.imbalance, dry.imbalance_planned
        before = await asyncio.to_thread(self._disks)
        order = RebalanceOrder(MOVES_PER_MIN_MAX)
        await admin.call("POST", "/admin/v1/rebalance", order, Done)
        known: dict[str, tuple[MoveUnderWay, set[Held]]] = {}

        async def ended() -> bool:
            complete = await asyncio.to_thread(self._complete, dict(known))
            found = await self._look()
            now = {move.slot: move for move in found.under_way}
            for slot in known.keys() - now.keys():
                blobs = known.pop(slot)[1]
                report.moves += 1
                report.let_go += bool(blobs)
                report.let_go_before_filled += bool(blobs) and not complete[slot]
            for slot in now.keys() - known.keys():
                promised = self._promised(slot) & before.get(now[slot].former, set())
                known[slot] = (now[slot], promised)
            if report.moves and not report.hq_restarts:
                report.hq_restarts += 1
                self.network.kill_hq()
                await self.network.start_hq()
            report.imbalance_after = found.imbalance
            return not (found.on or known)

        await self._until(ended, "the load to be even")

    async def _look(self) -> Rebalancing:
        admin = self.network.admin()
        return await admin.call("GET", "/admin/v1/rebalance", None, Rebalancing)

    def _promised(self, slot: str) -> set[Held]:
        """What clients of a slot have been promised so far."""
        of_slot = [client for client in self._clients if client.locator.slot.hex() == slot]
        return set().union(*(client.acked for client in of_slot))

    def _disks(self) -> dict[str, set[Held]]:
        """What lies on the disk of each server that moves start from, by its name."""
        return {
            server.name.rpartition("-")[0]: held_on(home)
            for _, home, server in ground.machines(self.network)
            if server.state != GONE
        }

    def _complete(self, known: dict[str, tuple[MoveUnderWay, set[Held]]]) -> dict[str, bool]:
        """Whether the new server of each move that matters has all of its blobs now."""
        names = {move.name for move, blobs in known.values() if blobs}
        disks = {name: held_on(self._new[name]) for name in names}
        return {slot: blobs <= disks[move.name] for slot, (move, blobs) in known.items() if blobs}

    # --- Sessions --------------------------------------------------------------------------------
    def _holder(self, client: CrowdClient, place: int) -> Holder:
        """A move keeps the place of a seat in the record, and changes who has it."""

        def seat() -> Seat:
            return client.seats()[place]

        return Holder(client, seat, self.network, self._clock)

    async def _hold_all(self) -> list[Holder]:
        """A session of every client at each of its six seats."""
        holders = [
            self._holder(client, place)
            for client in self._clients
            for place in range(len(client.seats()))
        ]
        await hold(holders)
        return holders

    async def _count(self, holders: list[Holder]) -> None:
        report = self._report
        report.sessions_dropped, report.sessions_moved = await let_go(holders)
        report.sessions = len(holders)
        report.dropped_because = tuple(h.why for h in holders if h.dropped)

    async def _control(self, name: str) -> int:
        (server,) = [row for row in (await self.network.fleet()).servers if row.name == name]
        machine = ground.disk_of(self.network, server.addresses).name
        holders = [
            self._holder(client, place)
            for client in self._clients
            for place, seat in enumerate(client.seats())
            if seat.name == name
        ]
        return await dropped_by_destroying(self.network, machine, holders, self._clock)

    # --- Looking ---------------------------------------------------------------------------------
    def _lost(self, acked: set[Held]) -> int:
        """As `ground.lost_blobs`, with the disks of the two that no provider of ours runs."""
        machines = ground.machines(self.network)
        homes = [home for _, home, server in machines if server.state != GONE]
        disks = [held_on(home) for home in (*homes, *self._new.values())]
        return sum(sum(held in disk for disk in disks) < STORED_QUORUM for held in acked)

    async def _all_filled(self) -> bool:
        servers = (await self.network.fleet()).servers
        return all(server.filled for server in servers if server.slots)

    async def _until(self, holds: Holds, what: str) -> None:
        async def answers() -> bool:
            return await _quietly(holds)

        await until(self._clock, answers, what, wait_s=WAIT_S, poll_s=POLL_S)


async def _quietly(holds: Holds) -> bool:
    """A headquarters that was killed does not answer for a while."""
    try:
        return await holds()
    except HoldfastError:
        return False


def rebalance(
    *, clients: int = 8, time_scale: float = 20.0, keep: Keep = None, json: bool = False
) -> int:
    """Even the load of eight servers under clients; no session drops, nothing is lost.

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
        "rebalance",
        lambda home: Rebalance(home, clock, SystemEntropy(), clients).run(),
        keep=keep,
        json=json,
    )
