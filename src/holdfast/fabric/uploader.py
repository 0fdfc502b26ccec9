"""Pushing the outbox of one slot: a few requests at a time to each server, for as long as it takes.

`logic.pool.fanout` decides what goes where; this drives it. Each server has its own workers, so a
slow or dead one delays nobody else. A receipt counts when its signature and path verify (the
session checks them); it is kept, then the copy is noted, then the fan-out moves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import msgspec

from holdfast.crypto.blob import read_header
from holdfast.crypto.keys import SigningKey
from holdfast.errors import HoldfastError, OperationFault, PeerFault
from holdfast.fabric.doubter import DOUBTED, Doubter
from holdfast.fabric.findings import Accused, FindingBook
from holdfast.fabric.outbox import Outbox, OutboxFull, Parcel
from holdfast.fabric.receipts import ReceiptBook, held_receipts
from holdfast.fabric.roster import Roster
from holdfast.fabric.session import Session
from holdfast.limits import BACKOFF_S, MIB, PUSHES_IN_FLIGHT_MAX, STORED_QUORUM
from holdfast.logic.effects import Effects
from holdfast.logic.fleet.model import Role
from holdfast.logic.pool.fanout import (
    EXCUSING_CODES,
    Acked,
    Batch,
    Bounced,
    Down,
    Event,
    Fanout,
    Lacking,
    Refused,
    Released,
    Seated,
    Stage,
    Suspected,
    Up,
)
from holdfast.logic.pool.lies import Lie
from holdfast.logic.pool.seats import Seats
from holdfast.wire.envelope import verify
from holdfast.wire.faults import Refusal
from holdfast.wire.pool import BlobClass, PushReply, ReceiptBatch
from holdfast.wire.signed import Type

_log = logging.getLogger(__name__)
IDLE_S = 60.0
"""A worker with nothing to do looks up this often (elapsed); wake-ups do not depend on it."""
RECENT_BYTES_MAX = 16 * MIB
"""Bodies kept in memory between outbox and wire. More would count against a device's memory."""
FOREVER = frozenset({"size", "class", "born", "quota", "forbidden", "too-large"})
"""Refusals that the same bytes would meet again."""


class Uploader:
    """The fan-out of one slot. `key_of` gives the access key of a tag."""

    def __init__(
        self,
        roster: Roster,
        outbox: Outbox,
        receipts: ReceiptBook,
        findings: FindingBook,
        key_of: Callable[[bytes], SigningKey | None],
    ) -> None:
        self._roster = roster
        self._outbox = outbox
        self._receipts = receipts
        self._findings = findings
        self.doubter = Doubter(roster, findings)
        self._key_of = key_of
        self._clock = roster.network.clock
        self._fanout = Fanout(roster.seats())
        self._wakes: dict[str, asyncio.Event] = {}
        self._workers: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._moved = asyncio.Event()
        self._crash: BaseException | None = None
        self._recent: dict[bytes, bytes] = {}
        self._recent_bytes = 0
        self._notes: set[bytes] = set()
        for added in outbox.waiting(roster.slot):
            self._feed(added)
        for name in roster.health.failing():
            self._feed(Down(name))
        roster.listen(self)
        self._staff()

    # --- what callers do -----------------------------------------------------------------------
    async def put(
        self,
        parcels: Iterable[Parcel],
        also: Callable[[], None] | None = None,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Make `parcels`, and what `also` writes to the same database, durable here, call `then`,
        and begin to push them. Waits while the outbox is full.

        A cancellation while the disk is written is met when all that is done: what is durable is
        always under way too.
        """
        batch = list(parcels)
        while True:
            await self._room(sum(len(parcel.body) for parcel in batch))
            try:
                await _finish(self._keep_parcels(batch, also, then))
                return
            except OutboxFull:  # another put was quicker
                continue

    async def _keep_parcels(
        self,
        batch: list[Parcel],
        also: Callable[[], None] | None,
        then: Callable[[], None] | None,
    ) -> None:
        fresh = await asyncio.to_thread(self._outbox.put, batch, self._clock.wall(), also)
        for parcel in fresh:
            self._remember(parcel)
        if then is not None:
            then()
        for parcel in batch:
            held = self._outbox.held(parcel.blob)
            if held is not None:
                self._feed(held)
        self._wake_all()

    async def _room(self, size: int) -> None:
        """Return when the outbox takes `size` bytes. Raises OperationFault when it never will."""
        while not self._outbox.room_for(size):
            self._check_hope(None)
            await self._change()

    async def moved(self) -> None:
        """Return at the next change of any blob's stage."""
        await self._change()

    async def reach(self, stage: Stage, tags: Iterable[bytes] | None = None) -> None:
        """Return when everything under way (of `tags`) has reached `stage`, however long.

        Raises OperationFault, not retryable, when relays refuse some of it for good.
        """
        wanted = None if tags is None else set(tags)
        while not self.reached(stage, wanted):
            self._check_hope(wanted)
            await self._change()

    def _check_hope(self, tags: set[bytes] | None) -> None:
        """Raises OperationFault when relays refuse for good something (of `tags`)."""
        relays = set(self._roster.names(Role.RELAY))
        found: set[str] = set()
        for entry in self._fanout.entries():
            codes = [entry.refusals[name] for name in relays & entry.refusals.keys()]
            final = [code for code in codes if code not in EXCUSING_CODES]
            if len(final) > len(relays) - STORED_QUORUM and (tags is None or entry.tag in tags):
                found |= set(final)
        if found:
            raise OperationFault(
                f"relays refuse what this device has written ({', '.join(sorted(found))});"
                " it stays in the outbox: make room, then sync again",
                retryable=False,
            )

    def reached(self, stage: Stage, tags: set[bytes] | None = None) -> bool:
        """Whether nothing (of `tags`) is below `stage`."""
        return all(
            entry.stage >= stage
            for entry in self._fanout.entries()
            if tags is None or entry.tag in tags
        )

    def bytes_below(self, stage: Stage) -> int:
        """Bytes of what is under way and below `stage`."""
        return sum(entry.size for entry in self._fanout.entries() if entry.stage < stage)

    def stage(self, blob: bytes) -> Stage | None:
        """How far a blob got, under way or not."""
        stage = self._fanout.stage(blob)
        return self._outbox.stage(blob) if stage is None else stage

    def stuck(self) -> dict[bytes, dict[str, str]]:
        """Blobs some servers refuse for good: id -> {server: code}."""
        return {e.blob: dict(e.refusals) for e in self._fanout.entries() if e.refusals}

    async def close(self) -> None:
        """Stop pushing; the outbox keeps everything."""
        workers = list(self._workers.values())
        self._workers.clear()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        await self.doubter.close()

    def note(self, blob: bytes) -> None:
        """`blob` shows receipts; its own receipts need not be shown in turn."""
        self._notes.add(blob)

    # --- what the roster says ------------------------------------------------------------------
    def seated(self, seats: Seats) -> None:
        """Another record is followed."""
        self._feed(Seated(seats))
        self._staff()
        self._wake_all()

    def down(self, name: str) -> None:
        """`name` does not answer."""
        self._feed(Down(name))

    def up(self, name: str) -> None:
        """`name` answers again."""
        self._feed(Up(name))
        self._wake(name)

    # --- driving -------------------------------------------------------------------------------
    def _feed(self, event: Event) -> Effects:
        effects = self._fanout.step(event, self._clock.elapsed())
        if effects.persist:
            self._outbox.apply(effects.persist)
            self._forget(c.blob for c in effects.persist if isinstance(c, Released))
        if effects.persist or isinstance(event, Refused):
            self._wake_all()
            self._moved.set()
            self._moved = asyncio.Event()
        return effects

    async def _change(self) -> None:
        if self._crash is None:
            await self._moved.wait()
        if self._crash is not None:
            raise self._crash

    def _ended(self, worker: asyncio.Task[None]) -> None:
        """A worker ends when its seat is lost; any other end is a bug, for callers to meet."""
        if not worker.cancelled() and worker.exception() is not None:
            self._crash = worker.exception()
            self._moved.set()

    def _staff(self) -> None:
        """Workers for every seat; those of lost seats end by themselves."""
        for name in self._roster.names():
            for number in range(PUSHES_IN_FLIGHT_MAX):
                worker = self._workers.get((name, number))
                if worker is None or worker.done():
                    work = self._work(name, number)
                    task = self._workers[name, number] = asyncio.create_task(work)
                    task.add_done_callback(self._ended)

    def _wake(self, name: str) -> None:
        self._wakes.setdefault(name, asyncio.Event()).set()

    def _wake_all(self) -> None:
        for wake in self._wakes.values():
            wake.set()

    async def _work(self, name: str, number: int) -> None:
        """Push to `name` while it has a seat. The first worker also asks and knocks."""
        while name in self._roster.names():
            wake = self._wakes.setdefault(name, asyncio.Event())
            wake.clear()
            try:
                if self._roster.may_try(name) and await self._turn(name, number):
                    continue
                wait_s = self._idle_s(name)
            except OperationFault as fault:
                _log.error("cannot go on with %s: %s", name, fault)
                wait_s = BACKOFF_S[-1]
            try:
                async with self._clock.timeout(wait_s):
                    await wake.wait()
            except TimeoutError:
                continue

    async def _turn(self, name: str, number: int) -> bool:
        """Do one thing for `name`; False when there was none."""
        return await self._push_one(name) or (number == 0 and await self._look_after(name))

    def _idle_s(self, name: str) -> float:
        """Elapsed seconds until something may be due at `name`."""
        now = self._clock.elapsed()
        retry_at = self._roster.health.retry_at(name)
        if retry_at > now:
            return retry_at - now
        due = self._fanout.next_due(name)
        return IDLE_S if due is None else min(max(due - now, 0.01), IDLE_S)

    async def _push_one(self, name: str) -> bool:
        """One push request to `name`; False when there is nothing to push."""
        batch = self._fanout.take(name)
        if batch is None:
            return False
        key = self._key_of(batch.tag)
        if key is None:
            self._feed(Refused(name, batch.blobs, "no-key"))
            return True
        bodies: dict[bytes, bytes] = {}
        try:
            bodies = await asyncio.to_thread(self._bodies, batch.blobs)
            if bodies:
                await self._push(name, key, batch, bodies)
        except PeerFault as fault:
            self._refused(name, batch, fault)
        except OperationFault as fault:
            if isinstance(fault, Refusal) and fault.code in DOUBTED:
                self.doubter.doubt(name, key, BlobClass(batch.blob_class), list(bodies.values()))
            self._bounced(name, batch, fault)
        except BaseException:
            self._feed(Bounced(name, batch.blobs))
            raise
        return True

    def _bodies(self, blobs: tuple[bytes, ...]) -> dict[bytes, bytes]:
        """Bodies still held; a blob may be released while this server was thought dead."""
        bodies = {blob: self._recent.get(blob) or self._outbox.body(blob) for blob in blobs}
        return {blob: body for blob, body in bodies.items() if body is not None}

    def _remember(self, parcel: Parcel) -> None:
        """Keep a body at hand until it is pushed, if that is soon: each server would read it."""
        self._recent[parcel.blob] = parcel.body
        self._recent_bytes += len(parcel.body)
        while self._recent_bytes > RECENT_BYTES_MAX:
            self._recent_bytes -= len(self._recent.pop(next(iter(self._recent))))

    def _forget(self, blobs: Iterable[bytes]) -> None:
        for blob in blobs:
            self._recent_bytes -= len(self._recent.pop(blob, b""))

    async def _push(
        self, name: str, key: SigningKey, batch: Batch, bodies: dict[bytes, bytes]
    ) -> None:
        async def push(session: Session) -> tuple[bytes, PushReply]:
            blob_class, blobs = BlobClass(batch.blob_class), list(bodies.values())
            reply = await session.push(blob_class, blobs, ids=list(bodies))
            return session.node, reply

        node, reply = await self._roster.call(name, key, push)
        self._keep(name, batch, reply, list(bodies.values()))
        self._outbox.copied(name, node, bodies)
        self._feed(Acked(name, node, tuple(bodies)))

    def _keep(self, name: str, batch: Batch, reply: PushReply, bodies: list[bytes]) -> None:
        """Keep the receipts; those for log blobs are shown to the other devices, once."""
        receipts = verify(Type.RECEIPT_BATCH, ReceiptBatch, reply.batch)
        pushed = [(len(body), read_header(body).born) for body in bodies]
        held = held_receipts(batch.tag, reply.batch, reply.receipts, pushed)
        log = batch.blob_class == BlobClass.LOG
        fresh = [h for h in held if log and h.receipt.blob not in self._notes]
        rest = [h for h in held if not log or h.receipt.blob in self._notes]
        accused = Accused(name, receipts.node, self._roster.slot, batch.tag)
        found = self._receipts.keep(receipts, fresh, log=log, noted=False)
        for evidence in (*found, *self._receipts.keep(receipts, rest, log=log)):
            sequence = evidence.receipts[0].receipt.sequence
            evidence = msgspec.structs.replace(evidence, record=self._roster.staple)
            detail = f"sequence {sequence} belongs to two blobs"
            self._findings.note(accused, Lie.CONFLICT, detail, self._clock.wall(), evidence)

    def _refused(self, name: str, batch: Batch, fault: PeerFault) -> None:
        """One bad blob refuses its whole batch: smaller batches find which."""
        if fault.code not in FOREVER:
            _log.warning("%s refuses a push: %s", name, fault)
            self._roster.leave_alone(name)
            self._feed(Bounced(name, batch.blobs))
        elif len(batch.blobs) == 1 or fault.code in ("quota", "forbidden"):
            _log.warning("%s refuses %d blobs for good: %s", name, len(batch.blobs), fault)
            self._feed(Refused(name, batch.blobs, fault.code))
        else:
            self._feed(Suspected(name, batch.blobs))

    def _bounced(self, name: str, batch: Batch, fault: OperationFault) -> None:
        if not fault.retryable and len(batch.blobs) > 1:
            self._feed(Suspected(name, batch.blobs))
            return
        if not fault.retryable:
            _log.error("%s", fault)
            self._feed(Refused(name, batch.blobs, "unreadable"))
            return
        if not isinstance(fault, Refusal):
            _log.info("push to %s failed: %s", name, fault)
        self._feed(Bounced(name, batch.blobs))

    async def _look_after(self, name: str) -> bool:
        """Ask a replica what it was filled with; knock at a server that does not answer."""
        asked = self._fanout.ask(name, self._clock.elapsed())
        for tag, blobs in asked:
            key = self._key_of(tag)
            if key is not None:
                await self._ask(name, key, blobs)
        if asked or not self._roster.troubled(name):
            return bool(asked)
        key = self._roster.key
        if key is not None and not await self._roster.ping(name, key):
            await self._roster.refresh(key)
        return False

    async def _ask(self, name: str, key: SigningKey, blobs: tuple[bytes, ...]) -> None:
        async def have(session: Session) -> tuple[bytes, list[bool]]:
            return session.node, await session.have(blobs)

        try:
            node, present = await self._roster.call(name, key, have)
        except HoldfastError:
            return
        here = tuple(blob for blob, flag in zip(blobs, present, strict=True) if flag)
        gone = tuple(blob for blob, flag in zip(blobs, present, strict=True) if not flag)
        self._outbox.copied(name, node, here)
        self._feed(Acked(name, node, here))
        self._feed(Lacking(name, gone))


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end, also when the caller is cancelled meanwhile; then it is, late."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(asyncio.shield(task), return_exceptions=True)
        raise
