"""Fan-out: every blob to six servers, and the honest word for how far it got (D13).

    queued      on this device's disk only
    stored      receipts from 2 of 3 relays, on different failure domains
    replicated  and 2 of 3 replicas have it, on different failure domains

The outbox keeps a blob's ciphertext until it is replicated *and* every server that answers has
had its own copy pushed; a server that does not answer holds nothing back, it is filled by its
peers later. Log blobs go to all six at once. Bulk blobs go to relays; replicas fetch them from
relays, and the client only asks whether they did (`have`). It pushes a bulk blob to a replica
itself when the replica still lacks it `FILL_GRACE_S` after it was stored, or when it could not be
stored in that time.

A relay refuses blobs born too long ago (an outbox that was offline for days): such a refusal
excuses the relay, because its own retention would drop the blob anyway. An excuse is no copy: the
blob is not `stored` by it, but `replicated` asks no more of that relay, and replicas, which no
relay will fill, are pushed to at once.

Copies are counted on the *node* behind a name. Another node in the seat starts without any, so a
blob may fall back a stage; it is pushed again. The driver's duties: what `persist` names is
durable before anything else happens; `take` and `ask` are called for servers that answer.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from holdfast.limits import (
    BLOBS_PER_PUSH_MAX,
    FILL_CHECK_S,
    FILL_GRACE_S,
    HEADER_BYTES_MAX,
    IDS_PER_REQUEST_MAX,
    REQUEST_BYTES_MAX,
)
from holdfast.logic.effects import NOTHING, Effects
from holdfast.logic.fleet.model import NodeId, Role
from holdfast.logic.pool.lane import Entry, Lane
from holdfast.logic.pool.lane import Stage as Stage
from holdfast.logic.pool.seats import Seats, Server

PUSH_BYTES_MAX = REQUEST_BYTES_MAX - HEADER_BYTES_MAX
LOG = 1
BULK = 2
EXCUSING_CODES = frozenset({"born"})


class Added(msgspec.Struct, frozen=True):
    """A blob is durable in the outbox. `copies` are (name, node) known from before a restart."""

    blob: bytes
    tag: bytes
    size: int
    blob_class: int
    copies: tuple[tuple[str, NodeId], ...] = ()


class Seated(msgspec.Struct, frozen=True):
    """The slot's seats, at the start and whenever a record is adopted."""

    seats: Seats


class Acked(msgspec.Struct, frozen=True):
    """`node` behind `name` proved that it has these: by receipt, or by its word (`have`)."""

    name: str
    node: NodeId
    blobs: tuple[bytes, ...]


class Lacking(msgspec.Struct, frozen=True):
    """A replica was asked and does not have these."""

    name: str
    blobs: tuple[bytes, ...]


class Bounced(msgspec.Struct, frozen=True):
    """A push of these to `name` came to nothing; they are still to be pushed there."""

    name: str
    blobs: tuple[bytes, ...]


class Suspected(msgspec.Struct, frozen=True):
    """`name` refused a whole batch for the sake of some blob in it: push each alone."""

    name: str
    blobs: tuple[bytes, ...]


class Refused(msgspec.Struct, frozen=True):
    """`name` will never take these, for the reason `code` (PROTOCOL.md, errors)."""

    name: str
    blobs: tuple[bytes, ...]
    code: str


class Down(msgspec.Struct, frozen=True):
    """`name` does not answer: hold nothing back for its sake."""

    name: str


class Up(msgspec.Struct, frozen=True):
    """`name` answers again."""

    name: str


Event = Added | Seated | Acked | Lacking | Bounced | Suspected | Refused | Down | Up


class Reached(msgspec.Struct, frozen=True):
    """Persist: `blob` is at `stage` now."""

    blob: bytes
    stage: Stage


class Released(msgspec.Struct, frozen=True):
    """Persist: the outbox may forget the ciphertext of `blob`."""

    blob: bytes


class Batch(msgspec.Struct, frozen=True):
    """One push request: blobs of one tag and class."""

    tag: bytes
    blob_class: int
    blobs: tuple[bytes, ...]
    size: int


class Fanout:
    """The fan-out of one slot. Blobs of many tags share it."""

    def __init__(self, seats: Seats) -> None:
        self.seats = seats
        self._lanes = {server.name: Lane(server.role) for server in seats.servers}
        self._entries: dict[bytes, Entry] = {}

    def step(self, event: Event, now: float) -> Effects:
        """One event at elapsed time `now`. `persist` holds `Reached` and `Released`."""
        match event:
            case Added():
                return self._added(event, now)
            case Seated(seats):
                return self._seated(seats, now)
            case Acked(name, node, blobs):
                return self._acked(name, node, blobs, now)
            case Lacking(name, blobs):
                self._lacking(name, blobs, now)
            case Bounced(name, blobs):
                self._bounced(name, blobs)
            case Suspected(name, blobs):
                if name in self._lanes:
                    self._lanes[name].alone.update(blob for blob in blobs if blob in self._entries)
                self._bounced(name, blobs)
            case Refused(name, blobs, code):
                return self._refused(name, blobs, code, now)
            case Down(name):
                return self._down(name, now)
            case Up(name) if name in self._lanes:
                self._lanes[name].down = False
        return NOTHING

    # --- what the driver asks ------------------------------------------------------------------
    def take(self, name: str) -> Batch | None:
        """The next push for `name`; its blobs fly until acked, bounced or refused.

        Tags take turns, so a large folder does not hold up a small message. Within a tag the order
        is that of `Added`: what an operation names is sent before the operation.
        """
        lane = self._lanes.get(name)
        if lane is None or not lane.pending:
            return None
        tag, queue = next(iter(lane.pending.items()))
        blobs = self._batch(lane, queue)
        for blob in blobs:
            del queue[blob]
        lane.flying.update(blobs)
        lane.pending.move_to_end(tag)
        if not queue:
            del lane.pending[tag]
        entries = self._known(blobs)
        return Batch(tag, entries[0].blob_class, blobs, sum(entry.size for entry in entries))

    def _batch(self, lane: Lane, queue: Iterable[bytes]) -> tuple[bytes, ...]:
        """The first blobs of a queue that go into one request: one class, and no more than fits."""
        blobs: list[bytes] = []
        size = blob_class = 0
        for blob in queue:
            entry = self._entries[blob]
            alone, other = blob in lane.alone, entry.blob_class != blob_class
            if blobs and (alone or other or size + entry.size > PUSH_BYTES_MAX):
                break
            blobs.append(blob)
            size, blob_class = size + entry.size, entry.blob_class
            if alone or len(blobs) == BLOBS_PER_PUSH_MAX:
                break
        return tuple(blobs)

    def ask(self, name: str, now: float) -> tuple[tuple[bytes, tuple[bytes, ...]], ...]:
        """(tag, ids) to ask the replica `name` for with `have`; at most a request's worth each.

        What was not stored in time is moved to its push queue instead.
        """
        lane = self._lanes.get(name)
        asked: dict[bytes, list[bytes]] = {}
        for blob in lane.due(now) if lane else ():
            assert lane is not None
            entry = self._entries[blob]
            if entry.stored_at is None:
                lane.queue(entry)
                continue
            asked.setdefault(entry.tag, []).append(blob)
            lane.wait(entry, now + FILL_CHECK_S)
        step = IDS_PER_REQUEST_MAX
        return tuple(
            (tag, tuple(blobs[start : start + step]))
            for tag, blobs in asked.items()
            for start in range(0, len(blobs), step)
        )

    def next_due(self, name: str) -> float | None:
        """When `ask` has something for `name`, in elapsed seconds."""
        lane = self._lanes.get(name)
        return lane.next_due() if lane else None

    def pending(self, name: str) -> bool:
        """Whether `take` has something for `name`."""
        lane = self._lanes.get(name)
        return lane is not None and bool(lane.pending)

    def stage(self, blob: bytes) -> Stage | None:
        """Where `blob` is; None when it is not under way (never added, or released)."""
        entry = self._entries.get(blob)
        return entry.stage if entry else None

    def entries(self) -> Iterable[Entry]:
        """Everything under way, oldest first."""
        return self._entries.values()

    # --- events --------------------------------------------------------------------------------
    def _added(self, event: Added, now: float) -> Effects:
        if event.blob in self._entries:
            return NOTHING
        copies = {
            name
            for name, node in event.copies
            if (server := self.seats.named(name)) is not None and server.node == node
        }
        entry = Entry(event.blob, event.tag, event.size, event.blob_class, now, copies, {})
        self._entries[event.blob] = entry
        for name, lane in self._lanes.items():
            if name not in copies:
                self._assign(entry, lane)
        return self._effects([entry], now)

    def _assign(self, entry: Entry, lane: Lane) -> None:
        """Give `lane` its part in carrying `entry`."""
        if entry.blob_class != BULK or lane.role == Role.RELAY:
            lane.queue(entry)
        elif entry.stored_at is None:
            lane.wait(entry, entry.queued_at + FILL_GRACE_S)
        else:
            lane.wait(entry, entry.stored_at + FILL_CHECK_S)

    def _seated(self, seats: Seats, now: float) -> Effects:
        before, self.seats = self.seats, seats
        kept = {s.name for s in seats.servers if _same_seat(s, before.named(s.name))}
        lanes = {}
        for server in seats.servers:
            lane = self._lanes.get(server.name) if server.name in kept else None
            lanes[server.name] = lane or Lane(server.role)
        fresh = [(name, lane) for name, lane in lanes.items() if name not in kept]
        self._lanes = lanes
        for entry in self._entries.values():
            entry.copies &= kept
            entry.refusals = {n: code for n, code in entry.refusals.items() if n in kept}
            for _, lane in fresh:
                self._assign(entry, lane)
        return self._effects(self._entries.values(), now)

    def _acked(self, name: str, node: NodeId, blobs: tuple[bytes, ...], now: float) -> Effects:
        server, lane = self.seats.named(name), self._lanes.get(name)
        if server is None or lane is None or server.node != node:
            return NOTHING
        entries = self._known(blobs)
        for entry in entries:
            lane.forget(entry)
            entry.copies.add(name)
        return self._effects(entries, now)

    def _lacking(self, name: str, blobs: tuple[bytes, ...], now: float) -> None:
        lane = self._lanes.get(name)
        for blob in blobs:
            entry = self._entries.get(blob)
            if lane is None or entry is None or blob not in lane.waiting:
                continue
            if entry.stored_at is None:  # a relay was replaced since: `ask` will have it pushed
                continue
            given_up_at = entry.stored_at + FILL_GRACE_S
            if now >= given_up_at:
                lane.queue(entry)
            else:
                doubled = now + max(FILL_CHECK_S, now - entry.stored_at)
                lane.wait(entry, min(doubled, given_up_at))

    def _bounced(self, name: str, blobs: tuple[bytes, ...]) -> None:
        lane = self._lanes.get(name)
        for blob in blobs:
            entry = self._entries.get(blob)
            if lane is not None and entry is not None and blob in lane.flying:
                lane.queue(entry)

    def _refused(self, name: str, blobs: tuple[bytes, ...], code: str, now: float) -> Effects:
        lane = self._lanes.get(name)
        if lane is None:
            return NOTHING
        entries = self._known(blobs)
        for entry in entries:
            lane.forget(entry)
            entry.refusals[name] = code
        return self._effects(entries, now)

    def _down(self, name: str, now: float) -> Effects:
        lane = self._lanes.get(name)
        if lane is None or lane.down:
            return NOTHING
        lane.down = True
        replicated = [e for e in self._entries.values() if e.stage is Stage.REPLICATED]
        return self._effects(replicated, now)

    def _known(self, blobs: tuple[bytes, ...]) -> list[Entry]:
        return [entry for blob in blobs if (entry := self._entries.get(blob)) is not None]

    def _effects(self, entries: Iterable[Entry], now: float) -> Effects:
        persist = [change for entry in list(entries) for change in self._settle(entry, now)]
        return Effects(persist=tuple(persist)) if persist else NOTHING

    def _settle(self, entry: Entry, now: float) -> tuple[Reached | Released, ...]:
        """Bring the stage of `entry` up to date; release it when nobody needs it here."""
        excused = {n for n, code in entry.refusals.items() if code in EXCUSING_CODES}
        stored = self.seats.stored(entry.copies)
        waived = not stored and self.seats.stored(entry.copies | excused)
        replicated = (stored or waived) and self.seats.replicated(entry.copies)
        before = entry.stage
        entry.stage = Stage.REPLICATED if replicated else Stage(stored)
        if not stored:
            entry.stored_at = None
            if waived:
                self._push_to_all(entry)
        elif entry.stored_at is None:
            entry.stored_at = now
            self._stored(entry, now)
        changes: tuple[Reached | Released, ...] = ()
        if entry.stage is not before:
            changes = (Reached(entry.blob, entry.stage),)
        if replicated and not self._held_back(entry):
            del self._entries[entry.blob]
            for lane in self._lanes.values():
                lane.forget(entry)
            changes += (Released(entry.blob),)
        return changes

    def _stored(self, entry: Entry, now: float) -> None:
        """Enough relays have it: ask the replicas from now on."""
        for lane in self._lanes.values():
            if entry.blob in lane.waiting:
                lane.wait(entry, now + FILL_CHECK_S)

    def _push_to_all(self, entry: Entry) -> None:
        """No relay will fill the replicas that wait for it."""
        for lane in self._lanes.values():
            if entry.blob in lane.waiting:
                lane.queue(entry)

    def _held_back(self, entry: Entry) -> bool:
        return any(lane.holds_back(entry) for lane in self._lanes.values())


def _same_seat(server: Server, before: Server | None) -> bool:
    return before is not None and (server.node, server.role) == (before.node, before.role)
