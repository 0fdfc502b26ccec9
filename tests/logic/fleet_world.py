"""A small world around the fleet machine: clouds, nodes, DNS and a store, all in dictionaries.

It keeps its own account of what was ordered, made and destroyed, so that what the fleet claims is
counted from outside it. `crash_at` kills HQ at the n-th boundary (a row written, an order carried
out, a node joined) and starts it again from the rows alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.logic.effects import Audit, Effects
from holdfast.logic.fleet import events
from holdfast.logic.fleet.allocation import violations
from holdfast.logic.fleet.fleet import Fleet
from holdfast.logic.fleet.model import Load, Role, Tier
from holdfast.logic.fleet.rows import (
    FleetRow,
    NodeRow,
    NodeState,
    ServerRow,
    SlotRow,
    key_of,
)
from holdfast.logic.fleet.state import FleetState
from holdfast.logic.fleet.tiers import Witnessed

NETWORK = b"n" * 16
START = 1_000_000.0
PROVIDERS = ("amber", "birch", "cedar")
REGIONS = ("eu", "ap")
GOOD = Load(free_bytes=100, stored_bytes=1)


class Crash(Exception):
    """HQ dies here."""


class World:
    """HQ's surroundings. Times are Unix seconds; one machine joins `spawn_s` after its order."""

    def __init__(
        self,
        providers: Sequence[str] = PROVIDERS,
        regions: Sequence[str] = REGIONS,
        *,
        spawn_s: float = 30.0,
        fill_s: float = 90.0,
        crash_at: int = -1,
    ) -> None:
        self.now = START
        self.rows: dict[str, FleetRow] = {}
        self.providers = tuple(providers)
        self.regions = tuple(regions)
        self.spawn_s = spawn_s
        self.fill_s = fill_s
        self.api_up = set(providers)
        self.stuck: set[str] = set()
        """Providers that take orders and deliver nothing."""
        self.dumb: set[str] = set()
        """Machines from which nothing is heard."""
        self.machines: dict[str, dict[str, float]] = {name: {} for name in providers}
        self.created: list[tuple[str, str]] = []
        self.deleted: list[tuple[str, str]] = []
        self.called: list[tuple[str, str]] = []
        """Machines that stood by and were given a seat."""
        self.nodes: dict[bytes, NodeRow] = {}
        self.alive: set[bytes] = set()
        self.died_at: dict[bytes, float] = {}
        self.gray: set[bytes] = set()
        self.mute: set[bytes] = set()
        """Alive and serving, but unheard by HQ."""
        self.dns: dict[str, bytes] = {}
        self.audit: list[tuple[float, Audit]] = []
        self.outbox: list[Any] = []
        self.records: list[tuple[float, SlotRow]] = []
        self.crash_at = crash_at
        self.boundaries = 0
        self.restarts = 0
        self._node_count = 0
        self._recorded_since: dict[bytes, float] = {}
        self.crash_at, armed = -1, crash_at
        self.fleet = self._new_fleet()
        self.crash_at, self.boundaries = armed, 0

    # --- HQ --------------------------------------------------------------------------------------
    def _new_fleet(self) -> Fleet:
        state = FleetState(NETWORK, term=1)
        state.load(self.rows.values())
        self.fleet = Fleet(state, self.now)
        self._apply(self.fleet.start(self.now))
        return self.fleet

    def restart(self) -> None:
        """HQ dies and comes back: nothing but rows survives."""
        self.restarts += 1
        self.outbox.clear()
        self._new_fleet()

    def boundary(self) -> None:
        """A point at which HQ may die."""
        self.boundaries += 1
        if self.boundaries == self.crash_at:
            raise Crash

    def step(self, event: events.Event) -> None:
        """Feed one event; a crash on the way is followed by a restart."""
        try:
            self._apply(self.fleet.step(event, self.now))
        except Crash:
            self.restart()

    def _apply(self, effects: Effects) -> None:
        for key, row in effects.persist:
            self.boundary()
            if isinstance(row, SlotRow) and not row.staple:
                self.records.append((self.now, row))
                row = msgspec.structs.replace(row, staple=b"signed")
                self.fleet.state.signed(row)
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row
        self.boundary()
        self.audit += [(self.now, line) for line in effects.audit]
        self.outbox += effects.send

    # --- Orders ----------------------------------------------------------------------------------
    def _deliver(self) -> None:
        """Carry out what HQ has ordered."""
        pending, self.outbox = self.outbox, []
        for task in pending:
            try:
                answer = self._carry_out(task)
                self.boundary()
            except Crash:
                self.restart()
                return
            if answer is not None:
                self.step(answer)

    def _carry_out(self, task: Any) -> events.Event | None:
        match task:
            case events.Order(intent):
                if intent.provider not in self.api_up:
                    return events.OrderFailed(intent.id, "unreachable", False)
                if intent.warm and intent.id in self.machines[intent.provider]:
                    self.called.append((intent.provider, intent.id))
                elif intent.id not in self.machines[intent.provider]:
                    self.created.append((intent.provider, intent.id))
                    self.machines[intent.provider][intent.id] = self.now
                return events.Ordered(intent.id)
            case events.Reap(intent):
                if intent.provider not in self.api_up:
                    return events.ReapFailed(intent.id, "unreachable")
                if self.machines[intent.provider].pop(intent.resource, None) is not None:
                    self.deleted.append((intent.provider, intent.resource))
                for row in self.nodes.values():
                    if row.intent == intent.resource:
                        self.alive.discard(row.node)
                return events.Reaped(intent.id)
            case events.Survey(provider):
                if provider not in self.api_up:
                    return events.Surveyed(provider, None)
                listed = (events.Machine(name, True) for name in self.machines[provider])
                return events.Surveyed(provider, tuple(listed))
            case events.Point(name, _, node, previous):
                if previous and self.dns.get(name, previous) not in (previous, node):
                    return events.PointFailed(name, "does not point there")
                self.dns[name] = node
                return events.Pointed(name, node)
        return None

    # --- Nodes -----------------------------------------------------------------------------------
    def _boot(self) -> None:
        """Machines that are due join once."""
        joined = {row.intent for row in self.nodes.values()}
        for provider, machines in self.machines.items():
            if provider in self.stuck or provider not in self.api_up:
                continue
            for intent, at in list(machines.items()):
                if intent not in joined and self.now - at >= self.spawn_s:
                    self._join(provider, intent)

    def _join(self, provider: str, intent_id: str) -> None:
        intent = self.fleet.state.intents.get(intent_id)
        if intent is None or intent_id in self.dumb:
            return
        if not intent.name or (intent.warm and (provider, intent_id) not in self.called):
            self.step(events.StandsBy(intent_id))
            return
        self._node_count += 1
        node = hash_bytes(f"node {self._node_count}".encode())
        row = NodeRow(
            node=node,
            identity=b"",
            name=intent.name,
            role=intent.role,
            region=intent.region,
            provider=provider,
            owner=intent.owner,
            addresses=(f"127.0.0.{self._node_count % 250 + 1}:443",),
            serial=str(self._node_count),
            cert_expires_at=0,
            joined_at=self.now,
            intent=intent_id,
        )
        self.join_row(row)

    def join_row(self, row: NodeRow) -> None:
        """The join handler: the row is durable before the brain hears of it."""
        self.nodes[row.node] = row
        self.alive.add(row.node)
        self.rows[key_of(row)] = row
        try:
            self.boundary()
        except Crash:
            self.restart()
            return
        self.step(events.Joined(row))

    def kill(self, *names: str) -> None:
        """The present nodes of these servers die."""
        for name in names:
            node = self.server(name).node
            self.alive.discard(node)
            self.died_at[node] = self.now

    def revive(self, *nodes: bytes) -> None:
        for node in nodes:
            self.alive.add(node)
            self.died_at.pop(node, None)

    def lose(self, provider: str) -> list[bytes]:
        """The provider goes down with its API and every machine. Gives the nodes that died."""
        self.api_up.discard(provider)
        nodes = sorted(n for n in self.alive if self.nodes[n].provider == provider)
        for node in nodes:
            self.alive.discard(node)
            self.died_at[node] = self.now
        return nodes

    def bring_back(self, provider: str, nodes: Iterable[bytes] = ()) -> None:
        self.api_up.add(provider)
        self.revive(*nodes)

    # --- Time ------------------------------------------------------------------------------------
    def run(self, seconds: float, dt: float = 5.0) -> None:
        """Let time go by; every 30 s nodes speak to HQ and peers testify about the dead."""
        end = self.now + seconds
        while self.now < end:
            before, self.now = self.now, min(end, self.now + dt)
            self._boot()
            if int(before // 30) != int(self.now // 30):
                self._speak()
            self.step(events.Tick())
            self._deliver()

    def _speak(self) -> None:
        for node in sorted(self.alive - self.mute):
            row = self.stored(node)
            if row.state is not NodeState.ACTIVE:
                continue  # its agent was told so, or will be; see `bring_back`
            name = self.fleet.state.name_of.get(node)
            load = Load(writable=False) if node in self.gray else GOOD
            self.step(events.Beat(node, load, row.addresses, self._is_filled(node, name)))
        for node, since in list(self.died_at.items()):
            self._testify(node, since)

    def _is_filled(self, node: bytes, name: str | None) -> bool:
        if name is None or not self.fleet.slots.is_recorded(name):
            return False
        if not self.fleet.state.slots_of.get(name):
            return False  # as a server says that has no record
        return self.now - self._recorded_since.setdefault(node, self.now) >= self.fill_s

    def _testify(self, node: bytes, since: float) -> None:
        name = self.fleet.state.name_of.get(node)
        if name is None:
            return
        for peer in sorted(self.fleet.state.peers(name)):
            witness = self.server(peer).node
            if witness in self.alive - self.mute:
                self.step(failing(witness, name, node, self.now - since))

    def until(self, done: Any, seconds: float, dt: float = 5.0) -> float:
        """Run until `done()`; gives the seconds it took. Fails after `seconds`."""
        start = self.now
        while not done():
            assert self.now - start < seconds, f"not within {seconds} s"
            self.run(dt, dt)
        return self.now - start

    # --- Reading ---------------------------------------------------------------------------------
    def stored(self, node: bytes) -> NodeRow:
        row = self.fleet.state.nodes[node]
        assert isinstance(row, NodeRow)
        return row

    def rows_of(self, shape: type[NodeRow]) -> dict[bytes, NodeRow]:
        """Stored node rows by node."""
        return {row.node: row for row in self.rows.values() if isinstance(row, shape)}

    def key(self, row: FleetRow) -> str:
        return key_of(row)

    def server(self, name: str) -> ServerRow:
        return self.fleet.state.servers[name]

    @property
    def servers(self) -> dict[str, ServerRow]:
        return self.fleet.state.servers

    def at(self, provider: str) -> list[str]:
        return sorted(row.name for row in self.servers.values() if row.provider == provider)

    def tiers(self) -> dict[str, Tier]:
        return {name: row.tier for name, row in self.servers.items()}

    def verbs(self) -> list[str]:
        return [line.verb for _, line in self.audit]

    def lines(self, verb: str) -> list[Audit]:
        return [line for _, line in self.audit if line.verb == verb]

    def is_whole(self) -> bool:
        """Every seat GREEN, alive, filled, recorded and pointed at."""
        return bool(self.servers) and all(
            row.tier is Tier.GREEN
            and row.node in self.alive
            and self.fleet.state.is_filled(row)
            and self.dns.get(row.name) == row.node
            and self.fleet.slots.is_recorded(row.name)
            for row in self.servers.values()
        )


def failing(
    witness: bytes, name: str, node: bytes, failed_s: float, regions: tuple[str, ...] = ()
) -> Witnessed:
    """What a peer says that has probed `name` every 30 s since it died."""
    failures = int(failed_s // 30) + 1
    tier = Tier.RED if failed_s >= 300 else Tier.ORANGE if failures >= 3 else Tier.YELLOW
    return Witnessed(
        witness=witness,
        name=name,
        node=node,
        tier=tier,
        regions=regions,
        probe_ok=False,
        failures=failures,
        failed_s=failed_s,
    )


def launched(**options: Any) -> World:
    """A world whose launch topology is up, filled and quiet."""
    world = World(**options)
    launch(world)
    return world


def launch(world: World) -> None:
    """Order the launch topology and wait until it stands."""
    world.step(events.Launch(world.providers, world.regions))
    world.until(world.is_whole, 3_000)
    assert len(world.servers) == len(world.regions) * 2 * max(3, len(world.providers))


def role_names(world: World, region: str, role: Role) -> list[str]:
    return sorted(
        row.name for row in world.servers.values() if row.region == region and row.role is role
    )


def debts(world: World) -> int:
    return len(world.fleet.state.debts)


def counted_debts(world: World) -> int:
    """Counted from the seats themselves, not from debt rows."""
    return violations(world.fleet.state.slots.values(), world.servers)
