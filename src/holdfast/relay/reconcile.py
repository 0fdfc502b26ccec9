"""Servers of one slot keep each other whole, without keys (D11, D23, DESIGN §3).

Every period this server asks each peer of each slot what it has: days, then the buckets of days
that differ, then the items of buckets that differ; and fetches what it lacks. Nothing is ever
pushed to a peer, so a peer can fill our disk no faster than we ask. Relays fetch unexpired days,
replicas all.

Two things follow from the same comparison:

* *filled*: what `logic.pool.filling` makes of it.
* *confirmed*: a replica of the slot holds all that this relay has of an expired day, which is
  what lets the relay drop it (D13).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence

from holdfast.crypto.blob import read_header
from holdfast.errors import HoldfastError, PeerFault
from holdfast.fabric.session import Session
from holdfast.limits import (
    BLOB_BYTES_MAX,
    BORN_SKEW_DAYS_MAX,
    IDS_PER_REQUEST_MAX,
    MIB,
    RECONCILE_BATCHES_AT_ONCE,
    RECONCILE_BOGUS_MAX,
    RECONCILE_BUCKETS_AT_ONCE,
    RECONCILE_PERIOD_S,
    RECONCILE_SLOTS_AT_ONCE,
    RECONCILE_UNAWARE_S,
)
from holdfast.logic.fleet.filled import digest_of
from holdfast.logic.fleet.model import Role, Seat, SlotId
from holdfast.logic.pool.filling import Filling
from holdfast.logic.pool.lies import MEANING, Lie
from holdfast.relay.desk import Desk
from holdfast.relay.peers import Peers, is_unaware
from holdfast.relay.seats import Seated
from holdfast.relay.sums import Sums
from holdfast.rim.store.port import Incoming, WriteRefused
from holdfast.wire.hq import Accusation
from holdfast.wire.pool import BlobClass, BucketSummary, DaySummary, ReconcileItem

_log = logging.getLogger("holdfast.relay.reconcile")
_FETCH_BYTES = 4 * MIB


class Reconciler:
    """The background task and what it has found out."""

    def __init__(self, desk: Desk, peers: Peers) -> None:
        self._desk = desk
        self._peers = peers
        self._filling: dict[SlotId, Filling] = {}
        self._confirmed: dict[tuple[SlotId, int], DaySummary] = {}
        self._bogus: set[bytes] = set()
        self.sums = Sums()
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self.rounds = 0
        self._unaware = False
        """Somebody had not heard of a record in the last round."""

    def filled(self) -> bool:
        """Whether every slot here is filled; false before the first record."""
        seated = self._desk.seats.all()
        return bool(seated) and all(
            (filling := self._filling.get(s.record.slot)) is not None and filling.filled
            for s in seated
        )

    def filled_of(self) -> bytes:
        """The digest of the records here when every slot is filled; else empty."""
        if not self.filled():
            return b""
        return digest_of((s.record.slot, s.record.version) for s in self._desk.seats.all())

    def confirmed(self, slot: SlotId, day: DaySummary) -> bool:
        """Whether a replica was seen to hold all of what `day` sums up."""
        return self._confirmed.get((slot, day.born)) == day

    def forget_day(self, born: int) -> None:
        """A day was dropped."""
        for key in [key for key in self._confirmed if key[1] == born]:
            del self._confirmed[key]

    def wake(self) -> None:
        """The records changed: begin a round now."""
        self._wake.set()

    async def wait(self) -> None:
        """Until the next round is due: a period has passed or something changed."""
        try:
            wait_s = RECONCILE_UNAWARE_S if self._unaware else RECONCILE_PERIOD_S
            async with self._desk.clock.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def round(self) -> None:
        """Compare every slot with every peer, a few slots at a time."""
        async with self._turn:
            self._unaware = False
            await self._round()
        self.rounds += 1

    async def _round(self) -> None:
        seated = self._desk.seats.all()
        slots = {s.record.slot for s in seated}
        self._filling = {slot: f for slot, f in self._filling.items() if slot in slots}
        await self._peers.retain({peer.node for s in seated for peer in s.peers()})
        gate = asyncio.Semaphore(RECONCILE_SLOTS_AT_ONCE)

        async def one(slot: Seated) -> None:
            async with gate:
                await self._slot(slot)

        await asyncio.gather(*(one(slot) for slot in seated))

    async def _slot(self, seated: Seated) -> None:
        """One slot: its peers one after another, so that nothing is fetched twice."""
        filling = self._filling.setdefault(seated.record.slot, Filling())
        for seat in self._in_order(seated):
            if self._desk.is_revoked(seat.node) or self._peers.rests(seat):
                filling.unreachable(seat.node)
                continue
            try:
                session = await self._peers.session(seated, seat)
                whole = await self._peer(seated, seat, session)
            except WriteRefused as refusal:
                _log.warning("cannot store what %s has: %s", seat.name, refusal)
                return
            except HoldfastError as error:
                _log.info("%s: %s", seat.name, error)
                if is_unaware(error):  # it may hold what nobody else does: not without it
                    filling.compared(seat.node, whole=False)
                    self._unaware = True
                    continue
                filling.unreachable(seat.node)
                await self._peers.failed(seat)
                continue
            filling.compared(seat.node, whole=whole)
        filling.settle(
            self._desk.role, [(seat.node, seated.role_of(seat.node)) for seat in seated.peers()]
        )

    def _in_order(self, seated: Seated) -> Sequence[Seat]:
        """Peers of our own role first."""
        return sorted(seated.peers(), key=lambda s: seated.role_of(s.node) is not self._desk.role)

    # --- One peer of one slot --------------------------------------------------------------------
    async def _peer(self, seated: Seated, seat: Seat, session: Session) -> bool:
        """Fetch what a peer has and we lack. True when we now hold all that it has."""
        slot = seated.record.slot
        theirs = await session.days()
        mine = {day.born: day for day in self._desk.store.days(slot)}
        whole = True
        for day in sorted(theirs, key=lambda day: -day.born):
            if self._wanted(day.born) and mine.get(day.born) != day:
                whole &= await self._fill_day(slot, day, seat, session)
        if self._desk.role is Role.RELAY and seated.role_of(seat.node) is Role.REPLICA:
            await self._confirm(slot, {day.born: day for day in theirs}, session)
        return whole

    def _oldest(self) -> int:
        """The first unexpired born day of a relay."""
        return self._desk.today() - self._desk.policy.ttl_days

    def _wanted(self, born: int) -> bool:
        """Whether a day is fetched here at all."""
        if born > self._desk.today() + BORN_SKEW_DAYS_MAX:
            return False
        return self._desk.role is Role.REPLICA or born >= self._oldest()

    async def _fill_day(self, slot: SlotId, day: DaySummary, seat: Seat, session: Session) -> bool:
        """Fetch the items of one day that we lack. True when none is left."""
        born = day.born
        theirs = await session.buckets(born)
        if await self.sums.day(seat.node, slot, day, theirs, session):
            self._name_liar(seat)
        whole = True
        fetching: asyncio.Task[bool] | None = None
        try:
            async for lacking in self._all_lacking(slot, born, theirs, seat, session):
                if fetching is not None:
                    whole &= await fetching
                work = self._fetch_all(slot, born, lacking, session)
                fetching = asyncio.create_task(work)
            if fetching is not None:
                whole &= await fetching
        finally:
            if fetching is not None:
                fetching.cancel()
        return whole

    async def _all_lacking(
        self,
        slot: SlotId,
        born: int,
        theirs: Sequence[BucketSummary],
        seat: Seat,
        session: Session,
    ) -> AsyncIterator[list[ReconcileItem]]:
        """What a peer has of a day and we do not, in parts that are worth a fetch. The next part
        is looked up while the last one is fetched."""
        mine = {bucket.bucket: bucket for bucket in self._desk.store.buckets(slot, born)}
        differing = [bucket for bucket in theirs if mine.get(bucket.bucket) != bucket]
        lacking: list[ReconcileItem] = []
        for start in range(0, len(differing), RECONCILE_BUCKETS_AT_ONCE):
            some = differing[start : start + RECONCILE_BUCKETS_AT_ONCE]
            for more in await asyncio.gather(
                *(self._lacking(slot, born, bucket, seat, session) for bucket in some)
            ):
                lacking += more
            if len(lacking) >= IDS_PER_REQUEST_MAX:
                yield lacking
                lacking = []
        if lacking:
            yield lacking

    async def _lacking(
        self, slot: SlotId, born: int, bucket: BucketSummary, seat: Seat, session: Session
    ) -> list[ReconcileItem]:
        """What a peer shows of one bucket and we do not have."""
        items = await session.bucket_items(born, bucket.bucket)
        if await self.sums.bucket(seat.node, slot, born, bucket, items, session):
            self._name_liar(seat)
        here = await self._here(slot, born, bucket.bucket)
        return [
            item
            for item in items
            if (item.tag, item.blob) not in here and item.blob not in self._bogus
        ]

    async def _fetch_all(
        self, slot: SlotId, born: int, lacking: Sequence[ReconcileItem], session: Session
    ) -> bool:
        """Buckets are many and small: their items are fetched together, and synced together. One
        batch travels while another is written."""
        gate = asyncio.Semaphore(RECONCILE_BATCHES_AT_ONCE)

        async def one(batch: Sequence[ReconcileItem]) -> bool:
            async with gate:
                return await self._fetch(slot, born, batch, session)

        batches = [one(batch) for batch in _batches(lacking)]
        outcomes = await asyncio.gather(*batches, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return False not in outcomes

    async def _here(self, slot: SlotId, born: int, bucket: int) -> set[tuple[bytes, bytes]]:
        items = await asyncio.to_thread(self._desk.store.day_items, slot, born, bucket)
        return {(item.tag, item.blob) for item in items}

    async def _fetch(
        self, slot: SlotId, born: int, batch: Sequence[ReconcileItem], session: Session
    ) -> bool:
        """Get and store items of one tag and class. False when some stay behind for now."""
        tag, blob_class = batch[0].tag, batch[0].blob_class
        bodies = await session.get([item.blob for item in batch], tag=tag)
        good = []
        for blob, body in bodies.items():
            try:
                sound = read_header(body).born == born
            except PeerFault:
                sound = False
            if sound:
                good.append(Incoming(blob, born, body))
            else:
                self._note_bogus(blob)
        if good:
            try:
                await self._desk.store.push(slot, tag, blob_class, good)
            except PeerFault as fault:  # the tag is over its quota here
                _log.warning("a tag stays behind: %s", fault)
                return False
            self._desk.counts["reconcile_fetched"] += len(good)
        return len(bodies) == len(batch)

    def _name_liar(self, seat: Seat) -> None:
        """A peer's sums are not those of its items, twice: an operator should know."""
        self._desk.counts["reconcile_lies"] += 1
        self._desk.accuse(Accusation(seat.name, seat.node, Lie.FALSE_SUMS))
        _log.warning("%s lies: it %s", seat.name, MEANING[Lie.FALSE_SUMS])

    def _note_bogus(self, blob: bytes) -> None:
        """A peer offered what is no blob of that day: do not fetch it every round."""
        if len(self._bogus) >= RECONCILE_BOGUS_MAX:
            self._bogus.clear()
        self._bogus.add(blob)
        self._desk.counts["reconcile_bogus"] += 1

    # --- What a relay may forget -----------------------------------------------------------------
    async def _confirm(self, slot: SlotId, theirs: dict[int, DaySummary], session: Session) -> None:
        """Note expired days of which a replica holds everything that we do."""
        oldest = self._oldest()
        for day in self._desk.store.days(slot):
            if day.born >= oldest or self.confirmed(slot, day):
                continue
            held = theirs.get(day.born)
            if held == day or (held is not None and await self._covers(slot, day, session)):
                self._confirmed[slot, day.born] = day

    async def _covers(self, slot: SlotId, day: DaySummary, session: Session) -> bool:
        """Whether a peer holds every item that we have of a day."""
        theirs = {bucket.bucket: bucket for bucket in await session.buckets(day.born)}
        for bucket in self._desk.store.buckets(slot, day.born):
            held = theirs.get(bucket.bucket)
            if held == bucket:
                continue
            if held is None:
                return False
            items = await session.bucket_items(day.born, bucket.bucket)
            if not await self._here(slot, day.born, bucket.bucket) <= {
                (item.tag, item.blob) for item in items
            }:
                return False
        return True


def _batches(items: Iterable[ReconcileItem]) -> Iterable[list[ReconcileItem]]:
    """Items by tag and class, as many as one reply brings."""
    groups: dict[tuple[bytes, BlobClass], list[ReconcileItem]] = {}
    for item in items:
        sane = len(item.tag) == 32 and len(item.blob) == 32 and 0 < item.size <= BLOB_BYTES_MAX
        if sane and item.blob_class is not BlobClass.CANARY:
            groups.setdefault((item.tag, item.blob_class), []).append(item)
    for group in groups.values():
        batch: list[ReconcileItem] = []
        size = 0
        for item in group:
            if batch and (size + item.size > _FETCH_BYTES or len(batch) >= IDS_PER_REQUEST_MAX):
                yield batch
                batch, size = [], 0
            batch.append(item)
            size += item.size
        yield batch
