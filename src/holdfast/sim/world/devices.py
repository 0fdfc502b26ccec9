"""Clients one by one: the production fan-out, health, cursors, adoption and fetch, on a disk.

Two devices share a group. Each writes now and then, keeps the ciphertext in its outbox until the
fan-out releases it, reads two relays a minute by cursor, and follows records as servers staple
them. What is durable survives a crash of the device; the machines are built anew from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.errors import PeerFault
from holdfast.limits import ACTIVE_NOTE_S, BORN_SKEW_DAYS_MAX
from holdfast.logic.fleet.model import NodeId, Role, SlotId, SlotRecord
from holdfast.logic.fleet.observer import Active, Reported
from holdfast.logic.pool.cursors import CaughtUp, Cursors, Moved, Spot
from holdfast.logic.pool.fanout import (
    BULK,
    LOG,
    Acked,
    Added,
    Batch,
    Bounced,
    Down,
    Event,
    Fanout,
    Lacking,
    Reached,
    Refused,
    Released,
    Seated,
    Up,
)
from holdfast.logic.pool.fetch import Fetch
from holdfast.logic.pool.health import Health
from holdfast.logic.pool.seats import Server as Seat
from holdfast.logic.pool.seats import seats_of
from holdfast.logic.trust.adoption import Verdict, judge
from holdfast.sim.world.network import QUICK
from holdfast.sim.world.stores import Full, Item

if TYPE_CHECKING:
    from holdfast.sim.world.launch import LaunchWorld, PoolServer

DAY_S: Final = 86_400
POLL_S: Final = 60.0
PAGE: Final = 8
PATIENCE_S: Final = 10.0
BULK_FRACTION: Final = 0.3
BUSY_S: Final = 10.0


class Parcel(msgspec.Struct):
    """A blob in the outbox. `copies` are names and nodes that acknowledged it."""

    blob: bytes
    body: bytes
    born: int
    blob_class: int
    copies: dict[str, NodeId] = {}


class Group:
    """What two devices share: a tag on a slot."""

    def __init__(self, number: int, slot: SlotId) -> None:
        self.number = number
        self.slot = slot
        self.tag = hash_bytes(b"tag %d" % number)
        self.stored: list[bytes] = []
        """Blobs in the order in which they were first called stored."""
        self.devices: list[Device] = []


class Device:
    """One client."""

    def __init__(self, world: LaunchWorld, group: Group, region: str, name: str) -> None:
        self.world = world
        self.group = group
        self.region = region
        self.name = name
        self.endpoint = world.client_endpoint(region)
        # Durable:
        self.outbox: dict[bytes, Parcel] = {}
        self.have: dict[bytes, None] = {}
        self.lacking: dict[bytes, None] = {}
        self.cursor_rows: dict[Spot, Moved] = {}
        self._checked = 0
        self.known = judge(None, world.record(group.slot), world.schedule.now).known
        # Not durable:
        self.up = False
        self._locked_out = False
        self.write_every_s = world.write_every_s
        self._life = 0
        self._start()

    # --- Life ------------------------------------------------------------------------------------
    def _start(self) -> None:
        assert self.known is not None
        self.up = True
        self._life += 1
        self.health = Health()
        self.fanout = Fanout(seats_of(self.known.record))
        self.cursors = Cursors(self.cursor_rows.values())
        self.caught = CaughtUp(2)
        self._noted: dict[str, float] = {}
        self._busy: dict[str, int] = {}
        self._waits: dict[str, float] = {}
        self.health.seated({seat.name: seat.node for seat in self.fanout.seats.servers})
        for parcel in list(self.outbox.values()):
            self._add(parcel)
        schedule, chance = self.world.schedule, self.world.chance
        schedule.after(chance.between(0.0, POLL_S), self._poll, self._life)
        schedule.after(chance.delay(self.write_every_s), self._write, self._life)
        self._pump_all()

    def crash(self) -> None:
        """The process dies; what is durable stays."""
        self.up = False
        self._life += 1

    def restart(self) -> None:
        """And starts again."""
        if not self.up:
            self._start()

    # --- Writing ---------------------------------------------------------------------------------
    def _write(self, life: int) -> None:
        if life != self._life:
            return
        world = self.world
        if world.writing:
            self.write()
        world.schedule.after(world.chance.delay(self.write_every_s), self._write, life)

    def write(self) -> bytes:
        """One more blob, durable here first; its id."""
        world = self.world
        body = world.chance.bytes(40)
        blob = hash_bytes(body)
        born = int(world.schedule.now) // DAY_S
        blob_class = BULK if body[0] < 256 * BULK_FRACTION else LOG
        parcel = self.outbox[blob] = Parcel(blob, body, born, blob_class)
        self.have[blob] = None
        world.written += 1
        world.ledger.written_at[blob] = world.schedule.now
        self._add(parcel)
        self._pump_all()
        return blob

    def _add(self, parcel: Parcel) -> None:
        copies = tuple(parcel.copies.items())
        size = len(parcel.body)
        self._feed(Added(parcel.blob, self.group.tag, size, parcel.blob_class, copies))

    def _feed(self, event: Event) -> None:
        world = self.world
        world.machine_steps += 1
        world.trace.note(world.schedule.now, self.name, event)
        effects = self.fanout.step(event, world.schedule.now)
        for change in effects.persist:
            world.trace.note(change)
            match change:
                case Reached(blob, stage):
                    world.ledger.reached(self.group, blob, stage, world.schedule.now)
                case Released(blob):
                    self.outbox.pop(blob, None)
                    world.ledger.released(self.group, blob, isinstance(event, Refused))

    # --- Pushing ---------------------------------------------------------------------------------
    def _pump_all(self) -> None:
        for seat in self.fanout.seats.servers:
            self._pump(seat.name)

    def _pump(self, name: str) -> None:
        """Push what `name` is still to get, and ask it what it may have by now."""
        now = self.world.schedule.now
        while self.up and name not in self._busy:
            retry_at = self.health.retry_at(name)
            if now < retry_at:
                if self.fanout.pending(name):
                    self._wait(name, retry_at)
                return
            batch = self.fanout.take(name)
            if batch is None:
                self._look_after(name)
                return
            self._push(name, batch)

    def _push(self, name: str, batch: Batch) -> None:
        seat = self.fanout.seats.named(name)
        assert seat is not None
        world, server = self.world, self.world.machine(seat.node)
        parcels = [self.outbox[blob] for blob in batch.blobs if blob in self.outbox]
        if server is None or not server.up:
            self._under_way(name, 3.0, self._push_failed, seat, batch)
            return
        trip = world.network.call(self.endpoint, server.endpoint, world.schedule.now, PATIENCE_S)
        if trip is QUICK and not server.slow_s:
            self._pushed(seat, batch, self._deliver(server, batch, parcels))
            return
        if trip.arrives is None:
            self._under_way(name, PATIENCE_S, self._push_failed, seat, batch)
            return
        slow_s = world.chance.delay(server.slow_s) if server.slow_s else 0.0
        self._busy[name] = self._life
        world.schedule.after(
            trip.arrives, self._arrived, server, seat, batch, parcels, trip.returns, slow_s
        )

    def _arrived(
        self,
        server: PoolServer,
        seat: Seat,
        batch: Batch,
        parcels: list[Parcel],
        returns: float | None,
        slow_s: float,
    ) -> None:
        """The request is there; its answer may never be here."""
        code = self._deliver(server, batch, parcels) if server.up else "down"
        if returns is None or returns + slow_s > PATIENCE_S or code == "down":
            self._under_way(seat.name, PATIENCE_S, self._push_failed, seat, batch)
        else:
            self._under_way(seat.name, returns / 2 + slow_s, self._pushed, seat, batch, code)

    def _under_way(self, name: str, after_s: float, then: object, *given: object) -> None:
        self._busy[name] = self._life
        self.world.schedule.after(after_s, self._back, self._life, name, then, given)

    def _back(self, life: int, name: str, then: object, given: tuple[object, ...]) -> None:
        if life != self._life or not self.up:
            return
        self._busy.pop(name, None)
        then(*given)  # type: ignore[operator]
        self._pump(name)

    def _deliver(self, server: PoolServer, batch: Batch, parcels: list[Parcel]) -> str:
        """The server's part: why it refuses, else empty."""
        slot, today = self.group.slot, server.today()
        if slot not in server.records:
            return "slot"
        if server.role is Role.RELAY and any(
            abs(parcel.born - today) > BORN_SKEW_DAYS_MAX for parcel in parcels
        ):
            return "born"
        blobs = [(parcel.blob, parcel.born, parcel.body) for parcel in parcels]
        try:
            server.store.push(slot, self.group.tag, batch.blob_class, blobs, server.wall())
        except Full:
            return "busy"
        return ""

    def _pushed(self, seat: Seat, batch: Batch, code: str) -> None:
        now = self.world.schedule.now
        self._met(seat)
        if code in ("busy", "slot"):
            self.health.asked_to_wait(seat.name, now, BUSY_S)
            self._feed(Bounced(seat.name, batch.blobs))
        elif code == "born":
            self._feed(Refused(seat.name, batch.blobs, "born"))
        else:
            for blob in batch.blobs:
                if blob in self.outbox:
                    self.outbox[blob].copies[seat.name] = seat.node
            self._feed(Acked(seat.name, seat.node, batch.blobs))

    def _push_failed(self, seat: Seat, batch: Batch) -> None:
        self._feed(Bounced(seat.name, batch.blobs))
        self._failed(seat.name)

    def _look_after(self, name: str) -> None:
        """Ask a replica for what relays should have brought it."""
        now, seat = self.world.schedule.now, self.fanout.seats.named(name)
        assert seat is not None
        questions = self.fanout.ask(name, now)
        server = self.world.reachable(self.endpoint, seat.node) if questions else None
        if questions and server is None:
            self._failed(name)
        for _, blobs in questions:
            if server is None:
                self._feed(Lacking(name, blobs))
                continue
            here = tuple(blob for blob in blobs if server.store.find(self.group.slot, blob))
            gone = tuple(blob for blob in blobs if blob not in here)
            if here:
                for blob in here:
                    if blob in self.outbox:
                        self.outbox[blob].copies[name] = seat.node
                self._feed(Acked(name, seat.node, here))
            if gone:
                self._feed(Lacking(name, gone))
        due = self.fanout.next_due(name)
        if self.fanout.pending(name):
            self._wait(name, now)
        elif due is not None:
            self._wait(name, max(due, now + 0.1))

    def _wait(self, name: str, until: float) -> None:
        """Look at `name` again then; once, however often it is asked for."""
        if self.world.schedule.now < self._waits.get(name, 0.0) <= until:
            return
        self._waits[name] = until
        self.world.schedule.at(until, self._waited, self._life, name)

    def _waited(self, life: int, name: str) -> None:
        if life == self._life and self.up and self.fanout.seats.named(name) is not None:
            self._waits.pop(name, None)
            self._pump(name)

    # --- Health ----------------------------------------------------------------------------------
    def _failed(self, name: str) -> None:
        now = self.world.schedule.now
        retry_at = self.health.failed(name, now, now, self.world.chance.fraction())
        self._feed(Down(name))
        self._wait(name, retry_at)

    def _met(self, seat: Seat) -> None:
        """A server answered: it staples its record, is told what others do not, counts us in."""
        now, server = self.world.schedule.now, self.world.machine(seat.node)
        if server is None:
            return
        if self.health.answered(seat.name, now):
            self._feed(Up(seat.name))
        if now - self._noted.get(seat.name, 0.0) >= ACTIVE_NOTE_S:
            self._noted[seat.name] = now
            server.feed(Active(self.group.tag, self.group.slot))
        reports = self.health.reports_owed(seat.name)
        for report in reports:
            server.feed(Reported(self.group.tag, report.name, self.region))
        self.health.told(reports)
        row = server.records.get(self.group.slot)
        assert self.known is not None
        if row is not None and row.version != self.known.record.version:
            self._shown(self.world.record_of(row))

    def _shown(self, record: SlotRecord) -> None:
        judgement = judge(self.known, record, self.world.schedule.now)
        if judgement.verdict is Verdict.ADOPT:
            assert judgement.known is not None
            self.known = judgement.known
            seats = seats_of(record)
            self.health.seated({seat.name: seat.node for seat in seats.servers})
            for parcel in list(self.outbox.values()):
                parcel.copies = {
                    seat.name: seat.node
                    for seat in seats.servers
                    if parcel.copies.get(seat.name) == seat.node
                }
            self._feed(Seated(seats))
            self._busy.clear()
            self.world.schedule.after(0.0, self._after_seating, self._life)
        else:
            self._locked_out = judgement.verdict is Verdict.TOO_DIFFERENT
            self.world.ledger.not_followed(judgement.verdict)

    def override(self) -> None:
        """Operators sign a change that this device could not follow (D4)."""
        if self._locked_out:
            self._locked_out = False
            self.known = None
            self.world.ledger.overrides += 1
            self._shown(self.world.record(self.group.slot))

    def _after_seating(self, life: int) -> None:
        if life == self._life and self.up:
            self._pump_all()

    # --- Reading ---------------------------------------------------------------------------------
    def _poll(self, life: int) -> None:
        if life != self._life:
            return
        now, answered = self.world.schedule.now, 0
        names = list(self.fanout.seats.names(Role.RELAY))
        turn = int(now // POLL_S) % len(names)
        for name in names[turn:] + names[:turn]:
            if now >= self.health.retry_at(name) and name not in self._busy:
                answered += self._pull(name)
            if answered == 2:
                break
        if self.lacking:
            self._fetch()
        if self.caught.yes:
            self._caught_up()
        self.world.schedule.after(POLL_S, self._poll, life)

    def _caught_up(self) -> None:
        """What a person is told: everything there is has come. The world checks it."""
        stored = self.group.stored
        while self._checked < len(stored) and stored[self._checked] in self.have:
            self._checked += 1
        if self._checked < len(stored):
            self.world.ledger.not_caught_up(self.name, stored[self._checked])

    def _pull(self, name: str) -> bool:
        """Read one relay to its end."""
        seat = self.fanout.seats.named(name)
        if seat is None:
            return False
        server = self.world.reachable(self.endpoint, seat.node)
        if server is None:
            self._failed(name)
            return False
        self._met(seat)
        if self.group.slot not in server.records:
            return False
        spot = Spot(server.node, server.store.incarnation, self.group.tag)
        try:
            self._read(server, spot)
        except PeerFault:
            self.world.ledger.caught_lying += 1
            return False
        newest = list(self.have)[-PAGE:]
        lacking = sum(server.store.find(self.group.slot, blob) is None for blob in newest)
        self.caught.read(name, to_the_end=True, lacking=lacking)
        return True

    def _read(self, server: PoolServer, spot: Spot) -> None:
        store, slot, tag = server.store, self.group.slot, self.group.tag
        after = self.cursors.at(spot)
        if after is None:
            head = store.heads.get((slot, tag), 0)
            for item in store.listing(slot, tag):
                self._take(server, item)
            self._moved(self.cursors.reconciled(spot, head))
            return
        more = True
        while more:
            page, more = server.page(slot, tag, after, PAGE)
            for item in page:
                self._take(server, item)
            moved = self.cursors.passed(spot, after, [item.sequence for item in page])
            if moved is None:
                return
            self._moved(moved)
            after = moved.sequence

    def _moved(self, moved: Moved) -> None:
        self.cursor_rows[moved.spot] = moved
        self.world.trace.note(self.world.schedule.now, self.name, moved.sequence)

    def _take(self, server: PoolServer, item: Item) -> None:
        if item.blob in self.have:
            return
        body = server.body(self.group.slot, item)
        if body is not None and hash_bytes(body) == item.blob:
            self.have[item.blob] = None
            self.lacking.pop(item.blob, None)
            self.caught.news()
        else:
            self.lacking[item.blob] = None

    def _fetch(self) -> None:
        """What was announced and not readable there is got from whoever has it."""
        servers = {
            seat.name: server
            for seat in self.fanout.seats.servers
            if (server := self.world.reachable(self.endpoint, seat.node)) is not None
        }
        fetch = Fetch(self.lacking, servers)
        while not fetch.over:
            before = fetch.done
            for name, server in servers.items():
                for blob in fetch.take(name, PAGE):
                    item = server.store.find(self.group.slot, blob)
                    body = server.body(self.group.slot, item) if item else None
                    if body is not None and hash_bytes(body) == blob and fetch.got(name, blob):
                        self.have[blob] = None
                        self.lacking.pop(blob, None)
                    else:
                        fetch.lacks(name, blob)
            if fetch.done == before and not fetch.over:
                break
