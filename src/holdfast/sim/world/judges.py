"""What must hold, told from the world's own truth: machines, clouds' logs, rows in the store.

Judges share no code with the machines they judge. They read what is durable (rows) for what
headquarters claims, and clouds, servers and users for what is so.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from holdfast.limits import FREEZE_FRACTION, PROBE_PERIOD_S, RED_FAILURE_S
from holdfast.logic.fleet.rows import DebtRow, IntentRow, IntentState, ServerRow, SlotRow
from holdfast.sim.world.servers import Server

if TYPE_CHECKING:
    from holdfast.sim.world.fleet import World

SLACK_S: Final = 15.0
"""A failure begins between two probes; HQ sees its first failure, not its first moment. A machine
that is slow may have failed the probe before too: then it was out of service a period sooner."""
SWEEP_S: Final = 10.0
DECIDING_S: Final = 90.0
"""A spawn may be ordered on evidence that has not aged out, of a failure that has just ended."""
CUT_S: Final = 300.0
"""After a cut between HQ and the fleet its heartbeats are late for a while."""


class Judge:
    """Looks once a minute, and at every spawn."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._out_since: dict[bytes, float] = {}
        self._out_before: dict[bytes, list[tuple[float, float]]] = {}
        self._ordered: deque[float] = deque()
        self.spawns = 0
        self.spawns_peak_per_min = 0
        self.false_spawns: list[str] = []
        self.violations_silent = 0
        self.debt_peak = 0
        self.shared_peak = 0
        self.series: list[tuple[float, tuple[int, ...], int, int]] = []
        """Each minute: time, users by relays answering, debts, servers not GREEN."""
        self.sittings: dict[str, float] = {}
        self.false_freezes = 0
        world.hq.on_order = self._spawning
        world.hq.on_freeze = self._freezing
        world.watch_server = self._changed
        self._look()
        self._sweep()

    # --- Servers ---------------------------------------------------------------------------------
    def _changed(self, server: Server) -> None:
        """A machine went out of service, or came back."""
        now = self._world.schedule.now
        if server.serves and not self._world.is_cut_off(server):
            since = self._out_since.pop(server.node, None)
            if since is not None:
                self._out_before.setdefault(server.node, []).append((since, now))
        elif server.node not in self._out_since:
            since, until = self._out_before.get(server.node, [(now, now)])[-1]
            self._out_since[server.node] = since if now - until < DECIDING_S else now

    def _sweep(self) -> None:
        """While paths are cut, who reaches whom also changes as others come and go."""
        if self._world.network.is_cut:
            for server in self._world.standing():
                self._changed(server)
        self._world.schedule.after(SWEEP_S, self._sweep)

    # --- Spawns ----------------------------------------------------------------------------------
    def _spawning(self, intent: IntentRow) -> None:
        """HQ hands out an order to make a machine."""
        now = self._world.schedule.now
        if not intent.warm:
            self._count(now)
        if intent.reason != "heal" or intent.replaces in self._world.shut_out:
            return
        decided = intent.created_at
        replaced = self._world.servers.get(intent.replaces)
        slow = replaced is not None and replaced.slow_s > 0.0
        slack_s = SLACK_S + (PROBE_PERIOD_S if slow else 0.0)
        if not any(
            since <= decided - RED_FAILURE_S + slack_s + DECIDING_S
            and ended >= decided - DECIDING_S
            and ended - since >= RED_FAILURE_S - slack_s
            for since, ended in self._outages(intent.replaces)
        ):
            self.false_spawns.append(f"{intent.name} at {now:.0f}")

    def _count(self, now: float) -> None:
        """One more machine."""
        self.spawns += 1
        self._ordered.append(now)
        while now - self._ordered[0] >= 60.0:
            self._ordered.popleft()
        self.spawns_peak_per_min = max(self.spawns_peak_per_min, len(self._ordered))

    def _outages(self, node: bytes) -> list[tuple[float, float]]:
        """When a machine was out of service, from and until."""
        since = self._out_since.get(node)
        found = [(since, self._world.schedule.now)] if since is not None else []
        return found + self._out_before.get(node, [])

    def _freezing(self) -> None:
        """HQ says that it may be the one who is cut off."""
        world = self._world
        seated = [row.node for row in world.hq.rows.values() if isinstance(row, ServerRow)]
        dead = sum(node in self._out_since for node in seated)
        justified = dead >= len(seated) * FREEZE_FRACTION / 2
        if not justified and world.schedule.now - world.hq_cut_at > CUT_S:
            self.false_freezes += 1

    # --- Once a minute ---------------------------------------------------------------------------
    def _look(self) -> None:
        world = self._world
        shared, silent = self._shared()
        debts = self.debts_now()
        self.violations_silent = max(self.violations_silent, silent)
        self.shared_peak = max(self.shared_peak, shared)
        self.debt_peak = max(self.debt_peak, debts)
        doubted = sum(
            1
            for row in world.hq.rows.values()
            if isinstance(row, ServerRow) and row.tier.value != "green"
        )
        self.series.append((world.schedule.now, tuple(world.crowd.redundancy), debts, doubted))
        world.schedule.after(60.0, self._look)

    def _shared(self) -> tuple[int, int]:
        """Seats that share a provider with an earlier seat of their slot and role; and how many
        more of them there are than the debts that are written down."""
        rows = self._world.hq.rows
        providers = {row.name: row.provider for row in rows.values() if isinstance(row, ServerRow)}
        owed: dict[bytes, int] = {}
        for row in rows.values():
            if isinstance(row, DebtRow):
                owed[row.slot] = owed.get(row.slot, 0) + 1
        shared = silent = 0
        counted: dict[tuple[tuple[str, ...], tuple[str, ...]], int] = {}
        for row in rows.values():
            if not isinstance(row, SlotRow):
                continue
            seats = (row.relays, row.replicas)
            here = counted.get(seats)
            if here is None:  # slots of the same servers, sixteen as a rule, are one count
                here = sum(len(names) - len({providers[name] for name in names}) for names in seats)
                counted[seats] = here
            shared += here
            silent += max(0, here - owed.get(row.slot, 0))
        return shared, silent

    def debts_now(self) -> int:
        """Debts that are written down."""
        return sum(1 for row in self._world.hq.rows.values() if isinstance(row, DebtRow))

    # --- At the end ------------------------------------------------------------------------------
    def stuck(self) -> list[str]:
        """What is not as it should be once everything has been calm for long."""
        world, found = self._world, list[str]()
        if not world.hq.up:
            return ["headquarters is down"]
        servers = {row.name: row for row in world.hq.rows.values() if isinstance(row, ServerRow)}
        for row in world.hq.rows.values():
            match row:
                case ServerRow():
                    found += self._ails(row)
                case SlotRow():
                    seats = {seat.name: seat.node for seat in row.seats}
                    for name in row.relays + row.replicas:
                        if seats.get(name) != servers[name].node:
                            found.append(f"{name}: a record names another node")
                case IntentRow() if row.action == "spawn":
                    if row.state not in (IntentState.DONE, IntentState.FAILED):
                        found.append(f"{row.name}: a spawn is {row.state.value}")
                case DebtRow():
                    found.append(f"{row.name}: owes diversity")
        return found

    def _ails(self, row: ServerRow) -> list[str]:
        world = self._world
        server = world.servers.get(row.node)
        if server is None or not server.serves:
            return [f"{row.name}: nobody serves"]
        found = []
        if row.tier.value != "green":
            found.append(f"{row.name}: {row.tier.value}, and well")
        if not row.filled:
            found.append(f"{row.name}: not filled")
        if world.zone.names.get(row.name) != row.node:
            found.append(f"{row.name}: DNS leads elsewhere")
        return found

    def orphans(self) -> int:
        """Machines that run, sit in no seat and do not stand by."""
        rows = self._world.hq.rows.values()
        seated = {row.node for row in rows if isinstance(row, ServerRow)}
        standing = {
            row.id for row in rows if isinstance(row, IntentRow) and row.action == "standby"
        }
        return sum(
            1
            for cloud in self._world.clouds.values()
            for machine in cloud.machines.values()
            if machine.node not in seated and machine.intent not in standing
        )
