"""The whole world together, and the levers by which it is hurt.

`World.build` makes a fleet that has been standing for long: its rows are what headquarters would
have written, planned by `logic.fleet.topology`; slots are founded by `logic.fleet.slots`. Faults
are methods; who pulls them, and when, is a scenario's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from holdfast.crypto.pure import hash_bytes, node_id
from holdfast.limits import HEARTBEAT_PERIOD_S, PROBE_IDLE_PERIOD_S, STANDBY_POLL_S
from holdfast.logic.fleet import events
from holdfast.logic.fleet.model import NodeId, Role
from holdfast.logic.fleet.observer import Reported
from holdfast.logic.fleet.rows import (
    FleetRow,
    IntentRow,
    NodeRow,
    ProviderRow,
    ServerRow,
    ServerState,
    key_of,
)
from holdfast.logic.fleet.topology import plan_launch
from holdfast.logic.trust.join import Outcome
from holdfast.sim.world.chance import Chance
from holdfast.sim.world.clouds import Cloud, CloudOptions, Machine
from holdfast.sim.world.crowd import Crowd
from holdfast.sim.world.hq import Headquarters, Joiner
from holdfast.sim.world.network import BASE_DELAY_S, HQ, Network, NetworkOptions
from holdfast.sim.world.schedule import Schedule, Trace
from holdfast.sim.world.servers import Server

START: Final = 1_800_000_000.0
PATIENCE_S: Final = 10.0
JURISDICTIONS: Final = ("de", "se", "ch", "is", "nl", "fi", "jp", "sg")


class Shape(msgspec.Struct, frozen=True):
    """How large a fleet is. `per_region` is servers per role and region."""

    providers: tuple[str, ...]
    regions: tuple[str, ...]
    per_region: int
    users_per_slot: int
    singly: bool = False
    relay_fill_s: float = 90.0
    replica_fill_s: float = 900.0
    standbys: int = 0
    """Machines that stand by in every region of every provider."""


class Zone:
    """DNS: names and the node they lead to, guarded by what they led to before (D25)."""

    def __init__(self, chance: Chance) -> None:
        self.names: dict[str, NodeId] = {}
        self.failure_probability = 0.0
        self._chance = chance

    def delay(self) -> float:
        return self._chance.delay(0.3, 0.05)

    def point(self, name: str, addresses: tuple[str, ...], node: NodeId, previous: NodeId) -> str:
        """Lead `name` to `node`; why not, else empty."""
        if self._chance.happens(self.failure_probability):
            return "the name server did not answer"
        if previous and self.names.get(name, previous) not in (previous, node):
            return "the name leads elsewhere"
        self.names[name] = node
        return ""


class World:
    """See the module."""

    server_class: type[Server] = Server

    def __init__(
        self,
        shape: Shape,
        seed: int,
        *,
        network: NetworkOptions | None = None,
        clouds: CloudOptions | None = None,
    ) -> None:
        self.shape = shape
        self.seed = seed
        self.trace = Trace()
        self.chance = Chance(seed, self.trace)
        self.schedule = Schedule(START, self.trace)
        self.network = Network(network or NetworkOptions(), self.chance)
        options = clouds or CloudOptions()
        self.clouds = {name: Cloud(name, options, self.chance) for name in shape.providers}
        self.zone = Zone(self.chance)
        self.servers: dict[NodeId, Server] = {}
        self.machine_steps = 0
        self.hq_held_down = False
        self.slow_nodes = 0
        self.forged_reports = 0
        self.watch_server: Callable[[Server], None] = lambda server: None
        self._endpoints = 0
        self._client_endpoints: dict[str, int] = {}
        self._waking: dict[NodeId, None] = {}
        self.hq_cut_at = float("-inf")
        """When HQ was last cut off from the fleet, or still was."""
        self.shut_out: dict[NodeId, None] = {}
        """Nodes that an operator revoked."""
        self._made = 0
        self.secrets_seen: list[bytes] = []
        """Join tokens that were given to machines: what a thief may have got hold of."""
        self._standing: dict[str, tuple[Server, Joiner]] = {}
        """By intent: machines whose question HQ has not answered yet."""
        self._settling = True
        self.crowd = self.make_crowd(shape)
        self.hq = Headquarters(self, self._rows())
        self._begin()

    def make_crowd(self, shape: Shape) -> Crowd:
        """The users."""
        return Crowd(self, shape.users_per_slot, singly=shape.singly)

    # --- Building --------------------------------------------------------------------------------
    def _rows(self) -> dict[str, FleetRow]:
        shape, rows = self.shape, dict[str, FleetRow]()
        seated_at = START - 86_400.0
        for index, provider in enumerate(shape.providers):
            place = JURISDICTIONS[index % len(JURISDICTIONS)]
            row = ProviderRow(name=provider, regions=shape.regions, jurisdiction=place)
            rows[key_of(row)] = row
        for plan in plan_launch(shape.providers, shape.regions, shape.per_region):
            server = self.new_server(plan.name, plan.role, plan.region, plan.provider)
            server.filled_at = START
            server.machine = f"{plan.name}-founder"
            self.clouds[plan.provider].machines[server.machine] = Machine(
                server.machine, plan.region, b"", seated_at, node=server.node
            )
            node = NodeRow(
                node=server.node,
                identity=b"",
                name=plan.name,
                role=plan.role,
                region=plan.region,
                provider=plan.provider,
                owner=plan.owner,
                addresses=server.address,
                serial=str(server.endpoint),
                cert_expires_at=0,
                joined_at=seated_at,
                intent=server.machine,
            )
            rows[key_of(node)] = node
            active = msgspec.structs.replace(
                plan,
                state=ServerState.ACTIVE,
                node=server.node,
                addresses=server.address,
                seated_at=seated_at,
                tier_at=seated_at,
                filled=True,
            )
            rows[key_of(active)] = active
            self.zone.names[plan.name] = server.node
        return rows

    def _begin(self) -> None:
        for region in self.shape.regions:
            self.client_endpoint(region)
        self.hq.start()
        assert self.hq.fleet is not None
        for row in list(self.hq.fleet.state.slots.values()):
            counted = msgspec.structs.replace(row, groups=self.shape.users_per_slot)
            self.hq.fleet.state.put(counted)
        for server in self.servers.values():
            server.start(settled=True)
        if self.shape.standbys:
            self.hq.step(events.KeepStandbys(self.shape.standbys))
        self.schedule.run(START + max(PROBE_IDLE_PERIOD_S, HEARTBEAT_PERIOD_S) + 5.0)
        self._settling = False

    def new_server(self, name: str, role: Role, region: str, provider: str) -> Server:
        self._made += 1
        identity = hash_bytes(f"identity {self.seed} {self._made}".encode())
        server = self.server_class(
            self,
            node=node_id(identity),
            name=name,
            role=role,
            region=region,
            provider=provider,
            endpoint=self._next_endpoint(),
        )
        self.servers[server.node] = server
        return server

    def _next_endpoint(self) -> int:
        self._endpoints += 1
        return self._endpoints

    def client_endpoint(self, region: str) -> int:
        """The place in the network of the users of a region."""
        known = self._client_endpoints.get(region)
        if known is None:
            known = self._client_endpoints[region] = self._next_endpoint()
        return known

    def first_probe(self, server: Server, period_s: float) -> float:
        """When an ordered probe begins: at once, but a standing fleet has its own rhythm."""
        return self.chance.between(0.0, period_s) if self._settling else 0.0

    def fill_at(self, server: Server) -> float:
        """When a newcomer will hold everything."""
        mean = self.shape.relay_fill_s
        if server.role is Role.REPLICA:
            mean = self.shape.replica_fill_s
        return self.schedule.now + self.chance.delay(mean / 2, mean / 2)

    # --- Paths -----------------------------------------------------------------------------------
    def answer(self, source: int, node: NodeId, patience_s: float) -> float | None:
        """Seconds until a probe from `source` has its answer; None when there is none."""
        server = self.servers.get(node)
        if server is None or not server.serves:
            return None
        trip = self.network.call(source, server.endpoint, self.schedule.now, patience_s)
        if trip.returns is None or not server.slow_s:
            return trip.returns
        return trip.returns + self.chance.delay(server.slow_s)

    def reaches(self, client: int, node: NodeId) -> bool:
        """Whether users there can use the server: no chance in it, only what is so."""
        server = self.servers.get(node)
        return (
            server is not None
            and server.serves
            and self.network.passes(client, server.endpoint)
            and self.network.passes(server.endpoint, client)
        )

    def to_hq(self, server: Server, event: events.Event) -> bool:
        """A node tells HQ something; whether it knows that HQ has it."""
        trip = self.network.call(server.endpoint, HQ, self.schedule.now, PATIENCE_S)
        if trip.arrives is None or not self.hq.up:
            return False
        if trip.returns == 2 * trip.arrives:
            self.hq.step(event)
        else:
            self.schedule.after(trip.arrives, self._arrive, event)
        return trip.returns is not None

    def _arrive(self, event: events.Event) -> None:
        if self.hq.up:
            self.hq.step(event)

    # --- What HQ wants ---------------------------------------------------------------------------
    def wake(self, node: NodeId) -> None:
        """There is something new for a node; its long poll ends a second later."""
        if node not in self._waking and node in self.servers:
            self._waking[node] = None
            self.schedule.after(1.0, self._inform, node)

    def _inform(self, node: NodeId) -> None:
        self._waking.pop(node, None)
        server = self.servers[node]
        if not server.up or server.retired:
            return
        trip = self.network.call(server.endpoint, HQ, self.schedule.now, PATIENCE_S)
        if trip.returns is None or not self.hq.up:
            self._waking[node] = None
            self.schedule.after(5.0, self._inform, node)
            return
        retired, records = self.hq.desired(node)
        if retired:
            self._retire(server)
        else:
            server.desire(records)

    def _retire(self, server: Server) -> None:
        server.retired = True
        server.stop()
        self.changed(server)

    def changed(self, server: Server) -> None:
        """A machine, or the way to it, is not as it was."""
        self.watch_server(server)
        self.crowd.touch(server.name)

    def is_cut_off(self, server: Server) -> bool:
        """Whether half of those who share its slots from other providers cannot reach it."""
        if self.network.is_isolated(server.endpoint):
            return True
        if not self.network.is_cut:
            return False
        seats = {seat.node: seat for row in server.records.values() for seat in row.seats}
        others = [self.servers[n] for n, s in seats.items() if s.provider != server.provider]
        living = [other for other in others if other.up]
        reaching = sum(
            self.network.passes(other.endpoint, server.endpoint)
            and self.network.passes(server.endpoint, other.endpoint)
            for other in living
        )
        return bool(living) and 2 * reaching <= len(living)

    # --- Machines --------------------------------------------------------------------------------
    def create_machine(self, intent: IntentRow, token: bytes) -> None:
        """A cloud makes a machine and it boots. Raises Refused."""
        cloud = self.clouds[intent.provider]
        self.secrets_seen.append(token)
        machine = cloud.create(intent.id, intent.region, token, self.schedule.now)
        if not machine.dud:
            self.schedule.after(cloud.boot_delay(), self._boot, intent, machine)

    def _boot(self, intent: IntentRow, machine: Machine) -> None:
        cloud = self.clouds[intent.provider]
        if cloud.machines.get(machine.intent) is not machine or not cloud.powered:
            return
        server = self.new_server(intent.name, intent.role, intent.region, intent.provider)
        server.machine, machine.node = machine.intent, server.node
        identity = hash_bytes(f"identity {self.seed} {self._made}".encode())
        joiner = Joiner(identity, hash_bytes(b"tls" + identity), machine.token)
        if intent.name:
            self._join(server, joiner, 0)
        else:
            self._stand_by(server, joiner, intent.id)

    def _stand_by(self, server: Server, joiner: Joiner, intent: str) -> None:
        """A machine without a name asks whether it is called; HQ lets it wait a little."""
        if not server.up or server.machine not in self.clouds[server.provider].machines:
            return
        trip = self.network.call(server.endpoint, HQ, self.schedule.now, PATIENCE_S)
        if trip.returns is None or not self.hq.up:
            self.schedule.after(2.0, self._stand_by, server, joiner, intent)
            return
        seat = self.hq.ask(joiner.token)
        if seat is None:
            self._standing[intent] = (server, joiner)
            self.schedule.after(STANDBY_POLL_S, self._ask_again, server, intent)
        else:
            server.name, server.role = seat
            self._join(server, joiner, 0)

    def _ask_again(self, server: Server, intent: str) -> None:
        standing = self._standing.get(intent)
        if standing is not None and standing[0] is server:
            self.called(intent)

    def called(self, intent: str) -> None:
        """The question of a machine that stands by is answered, if it is there."""
        standing = self._standing.pop(intent, None)
        if standing is not None:
            self.schedule.after(BASE_DELAY_S, self._stand_by, *standing, intent)

    def _join(self, server: Server, joiner: Joiner, tries: int) -> None:
        if not server.up:
            return
        trip = self.network.call(server.endpoint, HQ, self.schedule.now, PATIENCE_S)
        if trip.arrives is not None and self.hq.up:
            ruling = self.hq.join(joiner, server)
            if trip.returns is not None:
                if ruling.outcome is not Outcome.REFUSE:
                    server.start()
                    self.wake(server.node)
                return
        self.schedule.after(min(30.0, 2.0 + 2 * tries), self._join, server, joiner, tries + 1)

    def delete_machine(self, provider: str, resource: str) -> None:
        """A cloud destroys a machine. Raises Refused."""
        machine = self.clouds[provider].delete(resource, self.schedule.now)
        if machine is not None and machine.node and self.servers[machine.node].up:
            server = self.servers[machine.node]
            self._retire(server)

    # --- Faults ----------------------------------------------------------------------------------
    def kill(self, server: Server) -> None:
        """A machine dies. It may come back with `revive`."""
        if server.up:
            self.trace.note("kill", self.schedule.now, server.endpoint)
            server.stop()
            self.changed(server)

    def revive(self, server: Server) -> None:
        """A dead machine runs again, unless its cloud has deleted it."""
        exists = server.machine in self.clouds[server.provider].machines
        if not server.up and not server.retired and exists:
            self.trace.note("revive", self.schedule.now, server.endpoint)
            server.resume()
            self.wake(server.node)
            self.changed(server)

    def isolate(self, server: Server, *, mute: bool, deaf: bool) -> None:
        """Nothing leaves a machine, or nothing arrives there."""
        self.trace.note("isolate", self.schedule.now, server.endpoint, mute, deaf)
        self.network.isolate(server.endpoint, mute=mute, deaf=deaf)
        self.changed(server)

    def rejoin(self, server: Server, *, mute: bool, deaf: bool) -> None:
        """Undo one `isolate`."""
        self.network.join(server.endpoint, mute=mute, deaf=deaf)
        self.changed(server)

    def fill_disk(self, server: Server, full: bool) -> None:
        """The disk is full, or has room again."""
        server.full = full
        self.changed(server)

    def slow(self, server: Server, mean_s: float) -> None:
        """Every answer takes that much longer; 0 heals it."""
        self.slow_nodes += server.slow_s == 0.0 and mean_s > 0.0
        server.slow_s = mean_s

    def forge(self, server: Server, victim: str, reports: int, region: str) -> None:
        """Hostile clients tell one server that another is dead."""
        self.forged_reports += reports
        self.crowd.wake(victim)
        for _ in range(reports):
            server.feed(Reported(self.chance.bytes(8), victim, region))

    def lose_provider(self, name: str) -> list[Server]:
        """A provider goes with its interface and every machine. Those that died."""
        cloud = self.clouds[name]
        cloud.reachable = cloud.powered = False
        victims = [s for s in self.servers.values() if s.provider == name and s.up]
        for server in victims:
            self.kill(server)
        return victims

    def return_provider(self, name: str) -> None:
        """It is back, and its machines boot again."""
        cloud = self.clouds[name]
        cloud.reachable = cloud.powered = True
        for server in list(self.servers.values()):
            if server.provider == name and not server.up and not server.retired:
                self.schedule.after(self.chance.between(1.0, 120.0), self.revive, server)

    def hold_hq_down(self) -> None:
        """HQ is gone until `let_hq_up`."""
        self.hq_held_down = True
        self.trace.note("hq gone", self.schedule.now)
        self.hq.stop()

    def let_hq_up(self) -> None:
        """HQ comes back, from its rows."""
        self.hq_held_down = False
        if not self.hq.up:
            self.hq.start()

    # --- Reading ---------------------------------------------------------------------------------
    def seated(self, name: str) -> Server | None:
        """The machine that HQ's rows say sits there."""
        row = self.hq.rows.get(f"/fleet/servers/{name}")
        return self.servers.get(row.node) if isinstance(row, ServerRow) else None

    def standing(self) -> list[Server]:
        """The machines that sit in seats and run, in order of name."""
        rows = [row for row in self.hq.rows.values() if isinstance(row, ServerRow)]
        found = [self.servers.get(row.node) for row in sorted(rows, key=lambda row: row.name)]
        return [server for server in found if server is not None and server.serves]
