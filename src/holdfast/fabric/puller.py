"""Reading the log of one group: what is new on each server, by cursor or by id.

Routinely two relays are read (D13: caught up is what two relays agree on); replicas hold what
relays have expired, so a reader that was away for long, or begins, reads replicas too. Each page
is handled whole before its cursor moves; what cannot be read is put on record with its reason.

A parent that is missing after that is asked for everywhere: every server's ids are listed and what
is unknown is fetched. A parent that still does not turn up is a *named gap* (D18).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, Protocol

import msgspec

from holdfast.crypto.blob import unseal
from holdfast.crypto.era import Era
from holdfast.errors import HoldfastError, OperationFault, PeerFault
from holdfast.fabric import downloader
from holdfast.fabric.auditor import Auditor
from holdfast.fabric.database import DiskFault
from holdfast.fabric.readings import ABSENT, Readings, Taken
from holdfast.fabric.roster import Roster
from holdfast.fabric.session import Session
from holdfast.limits import PULL_ITEMS_MAX, RELAY_TTL_DAYS, STORED_QUORUM
from holdfast.limits.evidence import AUDIT_PERIOD_S, STRANGERS_MAX
from holdfast.logic.fleet.model import Role
from holdfast.logic.pool.cursors import CaughtUp, Moved, Spot
from holdfast.wire.evidence import is_note, unpack_note
from holdfast.wire.pool import BlobClass, Item

_log = logging.getLogger(__name__)

NEWEST_CHECKED = 100
"""So many of the newest known log blobs must be on a relay before it counts as level with us; of
those that relays still keep (D13)."""
DAY_S = 86_400
SEARCH_S: Final = 60.0
"""Elapsed seconds between searches for what is missing by a reader that only hears of news."""


class LogSink(Protocol):
    """Who folds the operations of one group."""

    def take(self, blob: bytes, payload: bytes) -> None:
        """Take one log payload for good: when this returns it need not be read again.

        Taking one twice is harmless. Raises PeerFault when it is no operation of this group.
        """
        ...

    def missing(self) -> Sequence[bytes]:
        """Operation ids that others name as parents and that are not here."""
        ...

    def name_gap(self, operation: bytes) -> None:
        """`operation` was asked for everywhere in vain."""
        ...


class Reading(msgspec.Struct, frozen=True):
    """What one reading brought. `servers` were read to their ends."""

    taken: int
    unread: int
    servers: tuple[str, ...]
    caught_up: bool
    gaps: int = 0


class Puller:
    """The log of one era of one group. One reading at a time: a cursor moves page by page."""

    def __init__(
        self,
        roster: Roster,
        era: Era,
        readings: Readings,
        sink: LogSink,
        auditor: Auditor | None = None,
    ) -> None:
        """`auditor` holds the servers to what they signed; without one they are only read."""
        self._auditor = auditor
        self._claimed: dict[bytes, int] = {}
        self._strangers: dict[bytes, set[str]] = {}
        """Blobs that did not open, and who listed them since the last audit of them."""
        self._audited_at: dict[str, float] = {}
        self._roster = roster
        self._era = era
        self._readings = readings
        self._sink = sink
        self._wall_s = roster.network.clock.wall
        self._elapsed = roster.network.clock.elapsed
        self.caught_up = CaughtUp(STORED_QUORUM)
        self._taken = self._unread = 0
        self._searched_at = float("-inf")
        self._reading = asyncio.Lock()

    async def read(self, *, everywhere: bool = False) -> Reading:
        """Read the relays, or with `everywhere` all six servers, and go after missing parents.

        Two relays would do to be caught up; the third is read because two may lie alike.

        Raises OperationFault when no server could be read.
        """
        async with self._reading:
            return await self._read_several(everywhere)

    async def _read_several(self, everywhere: bool) -> Reading:
        self._taken = self._unread = 0
        names = self._roster.ready() if everywhere else self._roster.ready(Role.RELAY)
        read: list[str] = []
        for name in names:
            if await self._try(name):
                read.append(name)
        if not everywhere and len(read) < STORED_QUORUM:
            read += [name for name in self._roster.ready(Role.REPLICA) if await self._try(name)]
        if not read:
            raise OperationFault("no server of the slot answers; it is tried again later")
        gaps = await self._search()
        await self._audit(read)
        return Reading(self._taken, self._unread, tuple(read), self.caught_up.yes, gaps)

    async def audit(self) -> None:
        """Hold every server that answers to what it signed, without reading first."""
        async with self._reading:
            await self._audit(self._roster.ready())

    async def read_one(self, name: str) -> Reading:
        """Read `name` alone, after its watch fired; now and then go after what is missing too.

        Raises OperationFault and PeerFault.
        """
        async with self._reading:
            self._taken = self._unread = 0
            await self._roster.call(name, self._era.access, lambda s: self._read(name, s))
            due = self._elapsed() - self._searched_at >= SEARCH_S
            gaps = await self._search() if due else 0
            audited_at = self._audited_at.get(name, float("-inf"))
            if self._elapsed() - audited_at >= AUDIT_PERIOD_S:
                await self._audit([name])
            return Reading(self._taken, self._unread, (name,), self.caught_up.yes, gaps)

    def take_in(self, bodies: Mapping[bytes, bytes]) -> int:
        """Take log blobs that came from no server; how many operations were new. Their ids are the
        caller's to check. Waits for no reading that is under way: servers may be long in coming.

        Raises PeerFault for the first that is none of ours: unlike a server's, what a device sends
        leaves no trace then.
        """
        taken: list[Taken] = []
        operations = 0
        try:
            for blob in self._readings.wanted(self._era.tag, bodies):
                opened = unseal(self._era, BlobClass.LOG, bodies[blob])
                operations += self._accept(blob, opened.payload)
                taken.append(Taken(blob, opened.born))
        finally:
            if taken:
                self._record(taken=taken)
        return operations

    async def _search(self) -> int:
        """Look elsewhere for blobs and parents that are missing; number of gaps named."""
        if await self._retry_absent() or self._sink.missing():
            self._searched_at = self._elapsed()
        return await self._chase() if self._sink.missing() else 0

    async def _audit(self, names: Sequence[str]) -> None:
        """Audit these servers at once; who is caught does not count for being caught up."""
        if self._auditor is None:
            return
        self._auditor.caught.clear()
        await asyncio.gather(*(self._audit_one(name) for name in names))
        await self._auditor.strangers(self._strangers)
        for showers in self._strangers.values():
            showers.clear()
        for name in self._auditor.caught:
            self.caught_up.read(name, to_the_end=False, lacking=0)

    async def _audit_one(self, name: str) -> None:
        self._audited_at[name] = self._elapsed()
        assert self._auditor is not None
        auditor = self._auditor

        async def work(session: Session) -> None:
            async def read_on() -> None:
                while await self._page(name, session):
                    pass

            claimed = self._claimed.pop(session.node + session.incarnation, 0)
            is_read = self._readings.cursors.at(self._spot(session)) is not None
            await auditor.audit(name, session, claimed, read_on if is_read else None)

        try:
            await self._roster.call(name, self._era.access, work)
        except DiskFault:
            raise
        except HoldfastError as error:
            _log.info("no audit of %s: %s", name, error)

    # --- one server ----------------------------------------------------------------------------
    async def _try(self, name: str) -> bool:
        try:
            await self._roster.call(name, self._era.access, lambda s: self._read(name, s))
        except DiskFault:
            raise
        except HoldfastError:
            return False
        return True

    async def _read(self, name: str, session: Session) -> None:
        """Read one server to its end, by cursor where there is one."""
        before = self._taken
        if self._readings.cursors.at(self._spot(session)) is None:
            await self._reconcile(name, session)
        while await self._page(name, session):
            pass
        if self._taken > before:
            self.caught_up.news()
        if name in self._roster.names(Role.RELAY):
            await self._compare(name, session)

    async def _compare(self, name: str, session: Session) -> None:
        """Whether this relay has the newest of what we know."""
        born_from = int(self._wall_s() // DAY_S) - RELAY_TTL_DAYS + 1
        newest = self._readings.newest(self._era.tag, born_from, NEWEST_CHECKED)
        present = await session.have(newest) if newest else []
        self.caught_up.read(name, to_the_end=True, lacking=present.count(False))

    def _spot(self, session: Session) -> Spot:
        return Spot(session.node, session.incarnation, self._era.tag)

    async def _page(self, name: str, session: Session) -> bool:
        """One page behind the cursor. Whether there is more."""
        spot = self._spot(session)
        after = self._readings.cursors.at(spot)
        if after is None:  # the store was restored meanwhile: another numbering (D14)
            await self._reconcile(name, session)
            return True
        reply, bodies = await session.pull(after, PULL_ITEMS_MAX, BlobClass.LOG)
        if self._spot(session) != spot:
            return True
        await self._handle(name, session, reply.items, bodies)
        store = session.node + session.incarnation
        self._claimed[store] = max(self._claimed.get(store, 0), reply.head)
        moved = self._readings.cursors.passed(spot, after, [i.sequence for i in reply.items])
        if moved is not None:
            self._record(moved=moved, shown=(spot, [item.blob for item in reply.items]))
        elif reply.more:
            raise PeerFault("a page that is empty and says more", code="order")
        return reply.more

    async def _reconcile(self, name: str, session: Session) -> None:
        """Compare by id, whole: there is no cursor for this store (D14)."""
        spot, head = self._spot(session), session.head
        after: tuple[int, bytes] | None = None
        while True:
            reply = await session.list(0, PULL_ITEMS_MAX, after)
            if self._spot(session) != spot:
                return
            logs = [item for item in reply.items if item.blob_class is BlobClass.LOG]
            await self._handle(name, session, logs, {})
            self._record(shown=(spot, [item.blob for item in logs]))
            if not reply.more or not reply.items:
                break
            after = (reply.born[-1], reply.items[-1].blob)
        self._record(moved=self._readings.cursors.reconciled(spot, head))

    async def _handle(
        self, name: str, session: Session, items: Sequence[Item], bodies: dict[bytes, bytes]
    ) -> None:
        """Take every item that is new here. Raises OperationFault when one cannot be got now."""
        for item in items:
            if item.blob in self._strangers:  # on record already, and shown by one more
                self._strangers[item.blob].add(name)
        new = self._readings.new(self._era.tag, (item.blob for item in items))
        lost: list[bytes] = []
        for start in range(0, len(new), downloader.IDS_PER_GET):
            batch = new[start : start + downloader.IDS_PER_GET]
            rest = [blob for blob in batch if blob not in bodies]
            fetched = await session.get(rest) if rest else {}
            for blob in batch:
                body = bodies.get(blob) or fetched.get(blob)
                if body is None:
                    lost.append(blob)
                else:
                    self._take(blob, body, name)
        if lost:  # named, then expired or withheld: another server may have it
            await self._fetch(lost)

    async def _fetch(self, blobs: Sequence[bytes]) -> None:
        async def take(blob: bytes, body: bytes) -> None:
            self._take(blob, body)

        missing: Sequence[bytes]
        try:
            missing = await downloader.fetch(self._roster, self._era.access, blobs, take)
        except DiskFault:
            raise
        except OperationFault:
            missing = self._readings.new(self._era.tag, blobs)
        # A device may have brought some meanwhile.
        faults = [(b, ABSENT) for b in self._readings.wanted(self._era.tag, missing)]
        self._unread += len(faults)
        self._record(faults=faults)

    def _take(self, blob: bytes, body: bytes, name: str = "") -> None:
        """Open and take one blob, or put it on record as unreadable. `name` listed it."""
        try:
            opened = unseal(self._era, BlobClass.LOG, body)
        except PeerFault as fault:
            if name:
                if blob not in self._strangers and len(self._strangers) >= STRANGERS_MAX:
                    del self._strangers[next(iter(self._strangers))]
                self._strangers.setdefault(blob, set()).add(name)
            self._unread += 1
            self._record(faults=[(blob, fault.code)])
            return
        try:
            self._taken += self._accept(blob, opened.payload)
        except PeerFault as fault:
            self._unread += 1
            self._record(faults=[(blob, fault.code)])
            return
        self._record(taken=[Taken(blob, opened.born)])

    def _accept(self, blob: bytes, payload: bytes) -> bool:
        """Hand a payload to who it is for; whether it is an operation of the log and no note of
        receipts. Raises PeerFault."""
        if not is_note(payload):
            self._sink.take(blob, payload)
            return True
        note = unpack_note(payload)
        if self._auditor is not None:
            self._auditor.hear(note)
        return False

    def _record(
        self,
        *,
        taken: Sequence[Taken] = (),
        faults: Sequence[tuple[bytes, str]] = (),
        moved: Moved | None = None,
        shown: tuple[Spot, Sequence[bytes]] | None = None,
    ) -> None:
        self._readings.record(
            self._era.tag, self._wall_s(), taken=taken, faults=faults, moved=moved, shown=shown
        )

    async def _retry_absent(self) -> bool:
        """Blobs that were named by a server and had from none may have turned up. Whether there
        were any."""
        unread = self._readings.unread(self._era.tag)
        absent = [row.blob for row in unread if row.fault == ABSENT]
        if absent:
            await self._fetch(absent)
        return bool(absent)

    # --- missing parents -----------------------------------------------------------------------
    async def _chase(self) -> int:
        """Look everywhere for missing parents; name what no server has. Number of gaps named.

        Only when every seat answered is a gap named: a server that is away may have it.
        """
        answered = 0
        for name in self._roster.ready():
            try:
                await self._roster.call(name, self._era.access, partial(self._reconcile, name))
                answered += 1
            except DiskFault:
                raise
            except HoldfastError:
                continue
            if not self._sink.missing():
                return 0
        if answered < len(self._roster.names()):
            return 0
        missing = tuple(self._sink.missing())
        for operation in missing:
            self._sink.name_gap(operation)
        return len(missing)
