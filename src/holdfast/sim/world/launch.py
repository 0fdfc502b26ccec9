"""The launch topology with its data: stores on disks, reconciling servers, devices that write.

Seed 004 §11.2: in each of two regions three providers run a relay, a replica and an archive node:
eighteen containers. HQ, observers, probes and clouds are those of `fleet`; here servers hold blobs,
and clients are devices one by one instead of cohorts.
"""

from __future__ import annotations

from typing import Final

from holdfast.crypto.pure import hash_bytes
from holdfast.limits import (
    RECONCILE_PERIOD_S,
    RECORD_CHANGE_S_MIN,
    RELAY_TTL_DAYS,
    RELAY_TTL_DAYS_HARD,
    RELAYS_PER_SLOT,
)
from holdfast.logic.fleet import events
from holdfast.logic.fleet.model import NodeId, Role, SlotId, SlotRecord
from holdfast.logic.fleet.rows import IntentRow, ServerRow, SlotRow
from holdfast.logic.pool.filling import Filling
from holdfast.logic.pool.lane import Stage
from holdfast.logic.trust.adoption import Verdict
from holdfast.sim.world.clouds import CloudOptions
from holdfast.sim.world.crowd import Crowd
from holdfast.sim.world.devices import Device, Group
from holdfast.sim.world.disks import Disk
from holdfast.sim.world.fleet import Shape, World
from holdfast.sim.world.network import NetworkOptions
from holdfast.sim.world.servers import Server
from holdfast.sim.world.stores import Full, Item, Store

DAY_S: Final = 86_400
ARCHIVE_S: Final = 3_600.0
SWEEP_S: Final = 3_600.0
PATIENCE_S: Final = 10.0
LAUNCH: Final = Shape(("amber", "birch", "cedar"), ("eu", "ap"), 3, 0)
GROUPS: Final = 100


class Ledger:
    """What devices were promised, and whether it was so. Kept by the world, for the judges.

    `early` are words given before they were true: stored is two relays of different failure
    domains, replicated two replicas as well (D13), counted here on the disks themselves. `abrupt`
    are records that a client which saw every one at once would not have followed (D4).
    """

    def __init__(self, world: LaunchWorld) -> None:
        self._world = world
        self._followed: dict[tuple[SlotId, Role], tuple[tuple[NodeId, ...], float]] = {}
        self.acked: dict[bytes, tuple[Group, float, Stage]] = {}
        self.written_at: dict[bytes, float] = {}
        self.refused: dict[str, int] = {}
        self.caught_lying = 0
        self.overrides = 0
        self.early: list[str] = []
        self.abrupt: list[str] = []

    def reached(self, group: Group, blob: bytes, stage: Stage, now: float) -> None:
        """A device was told how far its blob is."""
        if stage < Stage.STORED:
            return
        known = self.acked.get(blob)
        highest = max(stage, known[2]) if known else stage
        if known is None:
            group.stored.append(blob)
        self.acked[blob] = (group, known[1] if known else now, highest)
        roles = (Role.RELAY,) if stage is Stage.STORED else (Role.RELAY, Role.REPLICA)
        for role in roles:
            if self._domains(group.slot, blob, role) < 2:
                self.early.append(f"{blob.hex()[:8]} called {stage.name.lower()} by one {role}")

    def _domains(self, slot: SlotId, blob: bytes, role: Role) -> int:
        """Failure domains of a role that hold a blob, or two where the slot has only one."""
        row = self._world.hq.records[slot]
        half = row.seats[:RELAYS_PER_SLOT] if role is Role.RELAY else row.seats[RELAYS_PER_SLOT:]
        if len({seat.provider for seat in half}) < 2:
            return 2
        holders = {
            server.provider
            for server in self._world.machines_of(slot, role)
            if server.store.find(slot, blob) is not None
        }
        return len(holders)

    def not_caught_up(self, device: str, blob: bytes) -> None:
        """A device called itself caught up without a blob that was stored before it looked."""
        now, at = self._world.schedule.now, self.acked[blob][1]
        if now > at and self._world.is_calm:
            self.early.append(f"{device} called caught up without {blob.hex()[:8]}")

    def released(self, group: Group, blob: bytes, refused: bool) -> None:
        """A device forgets its ciphertext: two replicas have it, or it kept it for nothing."""
        if not refused and self._domains(group.slot, blob, Role.REPLICA) < 2:
            self.early.append(f"{blob.hex()[:8]} was let go of with one replica")

    def given_back(self, intent: IntentRow) -> None:
        """HQ orders the end of a machine: if it serves, its heir holds all that it held of what had
        been promised before the heir took the seat."""
        world = self._world
        machine = world.clouds[intent.provider].machines.get(intent.resource)
        server = world.machine(machine.node) if machine is not None else None
        if server is None or not server.serves or server.node in world.shut_out:
            return
        row = world.seat_of(server.name)
        heir = world.machine(row.node) if row is not None else None
        if row is None or heir is None or heir is server or not heir.serves:
            return
        for blob, (group, at, _) in self.acked.items():
            seated = heir.node in {seat.node for seat in world.hq.records[group.slot].seats}
            if at >= row.seated_at or not seated or server.store.find(group.slot, blob) is None:
                continue
            if heir.store.find(group.slot, blob) is None:
                self.early.append(f"{server.name} ends before its heir holds {blob.hex()[:8]}")

    def recorded(self, row: SlotRow, now: float) -> None:
        """HQ has a new record: one seat of a role in ten minutes, no more (D4)."""
        for role in (Role.RELAY, Role.REPLICA):
            half = slice(RELAYS_PER_SLOT) if role is Role.RELAY else slice(RELAYS_PER_SLOT, None)
            nodes = tuple(seat.node for seat in row.seats[half])
            before, at = self._followed.get((row.slot, role), (nodes, float("-inf")))
            moved = sum(one != other for one, other in zip(nodes, before, strict=True))
            if moved > 1 or (moved and now - at < RECORD_CHANGE_S_MIN):
                self.abrupt.append(f"record {row.version.n} of {row.relays[0]} moves {moved} seats")
            self._followed[row.slot, role] = (nodes, now if moved else at)

    def not_followed(self, verdict: Verdict) -> None:
        """A device would not follow a record."""
        self.refused[verdict.value] = self.refused.get(verdict.value, 0) + 1


class PoolServer(Server):
    """A relay or replica with a store."""

    world: LaunchWorld

    def equip(self) -> None:
        """Give it a disk and let it reconcile."""
        chance = self.world.chance
        self.disk = Disk(chance)
        self.store = Store(self.disk, chance)
        self.filling: dict[SlotId, Filling] = {}
        self.lying = ""
        self.fetched = 0

    def start(self, *, settled: bool = False) -> None:
        super().start(settled=settled)
        schedule, chance = self.world.schedule, self.world.chance
        first = chance.between(0.0, RECONCILE_PERIOD_S) if settled else 1.0
        schedule.after(first, self._reconcile, self._life)
        schedule.after(chance.between(0.0, SWEEP_S), self._sweep, self._life)

    def stop(self) -> None:
        super().stop()
        self.filling = {}
        self.disk.lose_power()

    def resume(self) -> None:
        self.store.recover()
        super().resume()

    def today(self) -> int:
        """The born day by its own wall clock."""
        return int(self.wall()) // DAY_S

    def filled(self) -> bool:
        return bool(self.records) and all(
            slot in self.filling and self.filling[slot].filled for slot in self.records
        )

    @property
    def serves(self) -> bool:
        """A canary cannot be written to a disk that does not sync (production probes write one)."""
        return super().serves and not self.store.broken and not self.disk.sync_fails

    # --- What it gives out -----------------------------------------------------------------------
    def page(self, slot: bytes, tag: bytes, after: int, count: int) -> tuple[list[Item], bool]:
        """A page of a tag; a lying server's may be out of order or begin anew."""
        page, more = self.store.after(slot, tag, after, count)
        if self.lying == "reorder" and len(page) > 1:
            page.reverse()
        elif self.lying == "rewind" and page:
            page = self.store.listing(slot, tag)[:1] + page
        return page, more

    def body(self, slot: bytes, item: Item) -> bytes | None:
        """The bytes of an item; a lying server's may be others."""
        body = self.store.read(slot, item)
        if self.lying == "garble" and body is not None:
            return body[:-1] + bytes([body[-1] ^ 1])
        return body

    # --- Reconciling -----------------------------------------------------------------------------
    def _reconcile(self, life: int) -> None:
        """Compare every slot with every peer, our own role first."""
        if life != self._life or self.retired:
            return
        world = self.world
        self.filling = {slot: self.filling.get(slot) or Filling() for slot in self.records}
        peers: dict[NodeId, list[SlotRow]] = {}
        roles: dict[NodeId, Role] = {}
        for row in self.records.values():
            for index, seat in enumerate(row.seats):
                if seat.node != self.node:
                    peers.setdefault(seat.node, []).append(row)
                    roles[seat.node] = Role.RELAY if index < RELAYS_PER_SLOT else Role.REPLICA
        for node in sorted(peers, key=lambda node: roles[node] is not self.role):
            peer = world.reachable(self.endpoint, node)
            for row in peers[node]:
                filling = self.filling[row.slot]
                if peer is None:
                    filling.unreachable(node)
                else:
                    admitted = peer.admits(self.node, row.slot)
                    filling.compared(node, whole=admitted and self._compare(peer, row.slot))
        for slot, row in self.records.items():
            seats = [seat.node for seat in row.seats if seat.node != self.node]
            self.filling[slot].settle(self.role, [(node, roles[node]) for node in seats])
        world.schedule.after(RECONCILE_PERIOD_S, self._reconcile, life)

    def admits(self, node: NodeId, slot: SlotId) -> bool:
        """Whether it has heard that a node sits in one of its slots."""
        row = self.records.get(slot)
        return row is not None and any(seat.node == node for seat in row.seats)

    def _compare(self, peer: PoolServer, slot: SlotId) -> bool:
        """Fetch what a peer has and we lack; whether we hold all of it now."""
        mine, whole = self.store.days.get(slot, {}), True
        oldest = self.today() - RELAY_TTL_DAYS
        for born, day in list(peer.store.days.get(slot, {}).items()):
            if self.role is Role.RELAY and born < oldest:
                continue
            here = mine.get(born)
            if here is not None and here.summary == day.summary:
                continue
            held = here.items if here is not None else {}
            for item in [item for blob, item in day.items.items() if blob not in held]:
                whole &= self._get(peer, slot, item)
        return whole

    def _get(self, peer: PoolServer, slot: SlotId, item: Item) -> bool:
        body = peer.body(slot, item)
        if body is None or hash_bytes(body) != item.blob:
            return body is None and peer.store.find(slot, item.blob) is None
        try:
            now = self.wall()
            self.store.push(slot, item.tag, item.blob_class, [(item.blob, item.born, body)], now)
        except Full:
            return False
        self.fetched += 1
        return True

    # --- Forgetting, archiving -------------------------------------------------------------------
    def _sweep(self, life: int) -> None:
        """A relay drops expired days that a replica holds; a replica fills its archive node."""
        if life != self._life or self.retired:
            return
        if self.role is Role.RELAY:
            borns = sorted({born for days in self.store.days.values() for born in days})
            for born in borns:
                age = self.today() - born
                if age > RELAY_TTL_DAYS_HARD or (age > RELAY_TTL_DAYS and self._is_confirmed(born)):
                    self.store.drop_day(born)
        else:
            self.world.archive(self)
        self.world.schedule.after(SWEEP_S, self._sweep, life)

    def _is_confirmed(self, born: int) -> bool:
        """Whether for each slot some replica holds all that we have of a day."""
        for slot, days in self.store.days.items():
            day = days.get(born)
            if day is None or not day.items:
                continue
            row = self.records.get(slot)
            seats = row.seats[RELAYS_PER_SLOT:] if row is not None else ()
            replicas = [self.world.reachable(self.endpoint, seat.node) for seat in seats]
            if not any(
                replica is not None
                and day.items.keys() <= replica.store.days.get(slot, {}).get(born, day).items.keys()
                and born in replica.store.days.get(slot, {})
                for replica in replicas
            ):
                return False
        return True


class LaunchWorld(World):
    """The world of the launch topology."""

    server_class = PoolServer

    def __init__(
        self,
        seed: int,
        *,
        network: NetworkOptions | None = None,
        clouds: CloudOptions | None = None,
        groups: int = GROUPS,
        write_every_s: float = 900.0,
    ) -> None:
        self.ledger = Ledger(self)
        self._seated_ever: dict[tuple[SlotId, Role], dict[NodeId, None]] = {}
        self.groups: list[Group] = []
        self.writing = True
        self.is_calm = False
        """All faults have ended."""
        self.written = 0
        self.write_every_s = write_every_s
        self.vaults: dict[tuple[str, str], dict[bytes, None]] = {}
        super().__init__(LAUNCH, seed, network=network, clouds=clouds)
        self.hq.on_reap = self.ledger.given_back
        for number in range(groups):
            region = LAUNCH.regions[number % len(LAUNCH.regions)]
            slot = self.hq.allocate(region)
            assert slot is not None
            group = Group(number, slot)
            self.groups.append(group)
            for side in "ab":
                group.devices.append(Device(self, group, region, f"{number}{side}"))

    def new_server(self, name: str, role: Role, region: str, provider: str) -> PoolServer:
        server = super().new_server(name, role, region, provider)
        assert isinstance(server, PoolServer)
        server.equip()
        return server

    def make_crowd(self, shape: Shape) -> Crowd:
        return Nobody(self, 0, singly=False)

    # --- For devices and servers -----------------------------------------------------------------
    def machine(self, node: NodeId) -> PoolServer | None:
        """The machine of a node id."""
        server = self.servers.get(node)
        return server if isinstance(server, PoolServer) else None

    def seat_of(self, name: str) -> ServerRow | None:
        """Who sits there, as HQ's store has it."""
        rows = (row for row in self.hq.rows.values() if isinstance(row, ServerRow))
        return next((row for row in rows if row.name == name), None)

    def reachable(self, source: int, node: NodeId) -> PoolServer | None:
        """The machine, if a call to it is answered in time."""
        server = self.machine(node)
        if server is None or not server.up or server.retired:
            return None
        trip = self.network.call(source, server.endpoint, self.schedule.now, PATIENCE_S)
        if trip.returns is None:
            return None
        if server.slow_s and trip.returns + self.chance.delay(server.slow_s) > PATIENCE_S:
            return None
        return server

    def record(self, slot: SlotId) -> SlotRecord:
        """HQ's newest record of a slot."""
        return self.record_of(self.hq.records[slot])

    def record_of(self, row: SlotRow) -> SlotRecord:
        """A slot row as clients are shown it."""
        return SlotRecord(
            network=b"",
            slot=row.slot,
            version=row.version,
            issued_at=0,
            relays=row.seats[:RELAYS_PER_SLOT],
            replicas=row.seats[RELAYS_PER_SLOT:],
        )

    def recorded(self, row: SlotRow) -> None:
        """HQ has a new record."""
        for index, seat in enumerate(row.seats):
            role = Role.RELAY if index < RELAYS_PER_SLOT else Role.REPLICA
            self._seated_ever.setdefault((row.slot, role), {})[seat.node] = None
        self.ledger.recorded(row, self.schedule.now)

    def machines_of(self, slot: SlotId, role: Role) -> list[PoolServer]:
        """Every machine that ever sat in a slot, whatever became of it."""
        nodes = self._seated_ever.get((slot, role), {})
        return [server for node in nodes if (server := self.machine(node)) is not None]

    def archive(self, replica: PoolServer) -> None:
        """A replica's sidecar pushes what is new to the archive node beside it (§10.7)."""
        vault = self.vaults.setdefault((replica.provider, replica.region), {})
        for days in replica.store.days.values():
            for day in days.values():
                vault.update(dict.fromkeys(day.items))

    def tell(self, event: events.Event) -> None:
        """An operator tells HQ something."""
        if self.hq.up:
            self.hq.step(event)

    @property
    def devices(self) -> list[Device]:
        """All devices, in order."""
        return [device for group in self.groups for device in group.devices]


class Nobody(Crowd):
    """No cohorts: devices are simulated one by one."""

    def recorded(self, row: SlotRow) -> None:
        assert isinstance(self._world, LaunchWorld)
        self._world.recorded(row)

    def touch(self, name: str) -> None:
        pass

    def wake(self, name: str) -> None:
        pass
