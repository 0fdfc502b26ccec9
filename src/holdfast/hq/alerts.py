"""The alerts of the headquarters that leads: looks at its parts, and keeps what is open.

| key             | row                                                                      |
|-----------------|--------------------------------------------------------------------------|
| /alerts/<hash>  | `logic.fleet.alarm.AlertRow`                                             |
| /alerts-read    | sequence of the audit log up to which events were looked for, decimal    |

Open alerts survive a restart and a change of the lead, with who acknowledged them. An event is read
from the audit log once, in order, by whoever leads when its turn comes; its alert and the new
position are one transaction.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from holdfast.crypto.pure import base32, base32_decode, hash_bytes
from holdfast.errors import OperationFault, PeerFault
from holdfast.hq.audit import audit_rows, head_of
from holdfast.hq.brain import Brain
from holdfast.hq.brain_view import FleetView, ServerView
from holdfast.hq.operators import Operators
from holdfast.hq.parts import Parts
from holdfast.limits.operating import (
    ALERT_LOOK_REAL_S_MIN,
    ALERT_LOOK_S,
    AUDIT_ROWS_PER_LOOK,
)
from holdfast.logic.audit import AUDIT_HEAD
from holdfast.logic.fleet.alarm import Alarm, AlertRow
from holdfast.logic.fleet.alerts import (
    EVENTS,
    Facts,
    Happened,
    ServerFacts,
    SnapshotFacts,
    Waiting,
)
from holdfast.logic.fleet.rows import AuditRow, IntentState, ServerState
from holdfast.rim.control.store import ControlStore, Delete, Operation, Put
from holdfast.rim.files import same_disk

ALERTS: Final = "/alerts/"
POSITION: Final = "/alerts-read"
_COPIES_LOW: Final = 2
_ROWS_PER_TXN: Final = 100
_log = logging.getLogger("holdfast.hq.alerts")


class AlertBook:
    """`await open()`, then `run` for as long as this process leads; `store` is fenced."""

    def __init__(
        self,
        parts: Parts,
        brain: Brain,
        store: ControlStore,
        directory: Path,
        operators: Operators,
    ) -> None:
        self._parts = parts
        self._brain = brain
        self._store = store
        self._directory = directory
        self._operators = operators
        self._alarm = Alarm()
        self._stale = False
        """A write failed: what is in memory may not be what is in the store."""
        self._position = 0
        self._owed: tuple[int, float] | None = None
        """Size of the log that no checkpoint covers yet, and since when."""
        self._now = self._wall = parts.clock.wall()
        self._elapsed = parts.clock.elapsed()

    async def open(self) -> None:
        """What was open when somebody last led. Raises OperationFault."""
        reply = await self._store.range(ALERTS)
        rows = [msgspec.msgpack.decode(kv.value, type=AlertRow) for kv in reply.items]
        self._alarm = Alarm(rows, self._parts.clock.scale)
        kv = await self._store.get(POSITION)
        if kv is None:
            self._position = head_of(await self._store.get(AUDIT_HEAD)).sequence
        else:
            self._position = int(kv.value)
        self._stale = False

    def rows(self) -> tuple[AlertRow, ...]:
        """What is open, as an operator should read it."""
        return self._alarm.rows()

    async def run(self) -> None:
        """Until cancelled. A fault of the store waits for the next look."""
        clock = self._parts.clock
        while True:
            try:
                await self.look()
            except OperationFault as fault:
                _log.warning("no look for alerts: %s", fault)
            await clock.sleep(max(ALERT_LOOK_S, ALERT_LOOK_REAL_S_MIN * clock.scale))

    async def look(self) -> None:
        """One look; what began and ended is durable when it returns. Raises OperationFault."""
        if self._stale:
            await self.open()
        happened, position = await self._read()
        facts = await self._facts(happened)
        change = self._alarm.look(facts)
        work: list[Operation] = [Put(_key(row.id), _encoded(row)) for row in change.begun]
        work += [Delete(_key(row.id)) for row in change.ended]
        if position != self._position:
            work.append(Put(POSITION, str(position).encode()))
        try:
            for start in range(0, len(work), _ROWS_PER_TXN):
                await self._store.txn([], work[start : start + _ROWS_PER_TXN])
        except BaseException:
            self._stale = True  # what is not durable has not happened
            raise
        self._position = position
        for row in change.begun:
            _log.warning("alert %s: %s %s; %s", row.kind, row.subject, row.what, row.step)
        for row in change.ended:
            _log.info("alert %s of %s has ended", row.kind, row.subject)

    async def acknowledge(self, id: str, by: str) -> AlertRow:
        """Somebody has seen it. Raises PeerFault when no such alert is open, OperationFault."""
        row = self._alarm.acknowledge(id, by, self._parts.clock.wall())
        if row is None:
            text = f"no alert {id[:80]!r} is open; see: holdfast hq alerts"
            raise PeerFault(text, code="not-found")
        await self._store.txn([], [Put(_key(row.id), _encoded(row))])
        return row

    # --- Facts -----------------------------------------------------------------------------------
    async def _read(self) -> tuple[tuple[Happened, ...], int]:
        """Events of the audit log that nobody looked at yet, and how far that is."""
        found, position, count = [], self._position, 0
        async for data in audit_rows(self._store, self._position):
            row = msgspec.msgpack.decode(data, type=AuditRow)
            position, count = row.sequence, count + 1
            if row.verb in EVENTS:
                detail = msgspec.json.decode(row.detail)
                found.append(Happened(row.verb, row.subject, detail))
            if count == AUDIT_ROWS_PER_LOOK:
                break
        return tuple(found), position

    async def _facts(self, happened: tuple[Happened, ...]) -> Facts:
        parts, view = self._parts, self._brain.view()
        # As the brain counts: a stepped clock neither begins nor ends anything.
        elapsed_s = parts.clock.elapsed() - self._elapsed
        self._now = self._wall + elapsed_s / parts.clock.scale
        low = [s for s in view.slots if min(s.relays, s.replicas) < _COPIES_LOW]
        freeze = view.freeze
        rows = await self._operators.pending()
        return Facts(
            at=self._now,
            servers=tuple(self._server(s) for s in view.servers if s.state is ServerState.ACTIVE),
            lost=tuple(p.name for p in view.providers if p.lost_at),
            debts=Counter(debt.provider for debt in view.debts),
            slots_low=len(low),
            groups_low=sum(slot.groups for slot in low),
            spawns_waiting=_waiting(view),
            frozen=freeze is not None,
            dead=freeze.dead if freeze else 0,
            fleet=freeze.fleet if freeze else 0,
            intermediate_expires_at=parts.authority.expires_at,
            checkpoint_late_s=self._checkpoint_late_s(),
            snapshots=tuple(self._snapshots()),
            waiting=tuple(Waiting(row.id, row.verb, row.author) for row in rows),
            credentials_due=await parts.credentials.due(),
            happened=happened,
        )

    def _server(self, view: ServerView) -> ServerFacts:
        row = self._parts.desired.node(base32_decode(view.node)) if view.node else None
        return ServerFacts(
            name=view.name,
            role=view.role,
            region=view.region,
            provider=view.provider,
            owner=view.owner,
            tier=view.tier,
            silent=view.silent,
            filled=view.filled,
            spawning=bool(view.spawn),
            load=view.load,
            cert_expires_at=row.cert_expires_at if row else 0.0,
        )

    def _checkpoint_late_s(self) -> float:
        """How long the log has been waiting to be cosigned by as many owners as clients ask for;
        elapsed seconds, 0 where they ask for none."""
        parts = self._parts
        needed = parts.witnesses.current.needed if parts.witnesses.current else 0
        row = parts.checkpoints.cosigned
        covered = row.size if row is not None and len(row.owners) >= needed else 0
        if not needed or covered >= len(parts.log.tree):
            self._owed = None
            return 0.0
        if self._owed is None or covered >= self._owed[0]:
            self._owed = (len(parts.log.tree), self._now)
        return (self._now - self._owed[1]) * parts.clock.scale

    def _snapshots(self) -> Iterator[SnapshotFacts]:
        keeper = self._parts.keeper
        for kept in keeper.kept.values() if keeper is not None else ():
            away = kept.shelf == "pool" or not same_disk(self._directory, Path(kept.shelf))
            yield SnapshotFacts(kept.shelf, kept.at, kept.error, away)


def _waiting(view: FleetView) -> int:
    """Machines that HQ has decided on and not been able to order yet, at providers that answer."""
    return sum(
        intent.action == "spawn" and intent.state is IntentState.WRITTEN and not intent.attempts
        for intent in view.intents
    )


def _key(id: str) -> str:
    """Subjects may be paths or resource names of a provider: the key is their hash."""
    return ALERTS + base32(hash_bytes(id.encode())[:20])


def _encoded(row: AlertRow) -> bytes:
    return msgspec.msgpack.encode(row)
