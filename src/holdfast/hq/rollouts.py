"""Drives `logic.fleet.rollout` while this process leads: looks at the fleet, writes, tells.

Rows are durable before anybody is told: nodes learn of them from the store, as of everything else
(`hq.desired`). What nodes say of releases comes with their heartbeats and is soft state. A fault of
the store, and a lost lead, leave the rows as they were; the machine is then built anew from them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from holdfast.crypto.pure import base32_decode
from holdfast.errors import OperationFault, UsageError
from holdfast.hq.audit import AuditLog
from holdfast.hq.brain import Brain
from holdfast.hq.brain_view import FleetView, ServerView
from holdfast.limits.upgrade import (
    AT_ONCE_MAX,
    DOUBT_REAL_S_MIN,
    DOUBT_S,
    OVERDUE_REAL_S_MIN,
    OVERDUE_S,
    SOAK_S,
)
from holdfast.logic.effects import Effects
from holdfast.logic.fleet.model import STORES, NodeId
from holdfast.logic.fleet.pace import pace as fleet_pace
from holdfast.logic.fleet.rollout import Pace, Rollout, Seen, Word
from holdfast.logic.fleet.rollout_rows import (
    PLACES,
    ROLLOUT,
    PlaceRow,
    RolloutRow,
    RolloutState,
    default_release,
)
from holdfast.logic.fleet.rows import SLOTS, ServerState, SlotRow
from holdfast.logic.fleet.tiers import is_gray
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import ControlStore, Operation, Put
from holdfast.rim.entropy import Entropy
from holdfast.wire.codec import pack
from holdfast.wire.hq import Heartbeat

TURN_S: Final = 5.0
TURN_REAL_S_MIN: Final = 0.2
_PIECE: Final = 100
"""Rows of one transaction."""
_log = logging.getLogger("holdfast.hq.rollouts")


class Told(NamedTuple):
    """What a node said of releases in its last heartbeat, and when, Unix seconds."""

    at: float
    release: bytes
    proved: bool
    refused: bytes
    refused_why: str
    deferred_until: float
    version: str


class Rollouts:
    """See the module. `beat` counts at once; everything else once `run` has loaded the rows."""

    def __init__(
        self,
        store: ControlStore,
        brain: Brain,
        audit: AuditLog,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        """`store` is fenced by the term."""
        self._store = store
        self._brain = brain
        self._audit = audit
        self._clock = clock
        self._entropy = entropy
        self._told: dict[NodeId, Told] = {}
        self._started = clock.wall() - clock.elapsed() / clock.scale
        """As the brain counts time: by the wall at start, on by elapsed time."""
        self._began = self._looked_at = self._now()
        self._machine: Rollout | None = None
        self._turn = asyncio.Lock()
        scale, fleet = clock.scale, fleet_pace(clock.scale)
        self._listen_s = max(fleet.silent_s, fleet.evidence_s)
        self._pace = Pace(
            doubt_s=max(DOUBT_S / scale, DOUBT_REAL_S_MIN),
            overdue_s=max(OVERDUE_S / scale, OVERDUE_REAL_S_MIN),
            watch_s=fleet.red_s + fleet.evidence_s,
        )

    # --- Asked -----------------------------------------------------------------------------------
    def beat(self, node: NodeId, beat: Heartbeat) -> None:
        """What a heartbeat says of releases."""
        self._told[node] = Told(
            self._now(),
            beat.release,
            beat.proved,
            beat.refused,
            beat.refused_why[:200],
            beat.deferred_until,
            beat.version[:40],
        )

    def told(self, node: str) -> Told | None:
        """What a node (base32) said last."""
        return self._told.get(base32_decode(node)) if node else None

    async def current(self) -> tuple[RolloutRow | None, dict[str, PlaceRow]]:
        """The rollout under way, or the last, and what each server is to run."""
        async with self._turn:
            machine = await self._loaded()
            return machine.row, {name: machine.place(name) for name in machine.places}

    @property
    def passed_over(self) -> int:
        """How many servers wait and cannot be ordered."""
        return len(self._machine.passed_over) if self._machine is not None else 0

    async def check_over(self) -> None:
        """Raises UsageError while one is under way: servers must not change their places then."""
        row, _ = await self.current()
        if row is not None and row.state not in (RolloutState.DONE, RolloutState.BACKED):
            raise UsageError(
                f"an upgrade is under way ({row.state}) and no server may move meanwhile; wait for"
                " it, or take it back: holdfast hq upgrade status"
            )

    def servers(self) -> list[ServerView]:
        """Servers that may run releases: those of the pool that are in service."""
        return _servers(self._brain.view())

    # --- Orders ----------------------------------------------------------------------------------
    async def start(
        self,
        release: bytes,
        canary: str,
        author: str,
        *,
        at_once: int,
        soak_s: float | None,
        halting: bool,
        required_at: float,
    ) -> RolloutRow:
        """Send a release through the fleet. `soak_s` is the network's. Raises UsageError."""
        regions = sorted({server.region for server in self.servers()})
        canary = canary or next(iter(regions), "")
        if canary not in regions:
            raise UsageError(f"no server stands in {canary!r}; there is {', '.join(regions)}")
        if not 1 <= at_once <= AT_ONCE_MAX or not (soak_s is None or soak_s >= 0):
            raise UsageError(f"--at-once is 1 to {AT_ONCE_MAX}, --soak-s not below 0")
        state = self._brain.fleet.state
        if state.rebalance is not None or state.turns:
            raise UsageError(
                "servers move just now; first holdfast hq rebalance --stop, or let the turns end"
                " that holdfast hq rotate schedule show lists"
            )
        async with self._turn:
            machine = await self._loaded()
            row = RolloutRow(
                id=self._entropy.bytes(4).hex(),
                release=release,
                back_to=default_release(machine.row),
                canary=canary,
                state=RolloutState.CANARY,
                author=author,
                started_at=self._now(),
                at_once=at_once,
                soak_s=(SOAK_S if soak_s is None else soak_s) / self._clock.scale,
                halting=halting,
                required_at=required_at,
            )
            await self._do(machine, lambda: machine.start(row))
        return row

    async def order(self, word: Word, author: str, reason: str = "") -> None:
        """Halt, resume or back. Raises UsageError when there is nothing to be so ordered."""
        async with self._turn:
            machine = await self._loaded()
            await self._do(machine, lambda: machine.order(word, author, reason))

    async def defer(self, name: str, until: float, author: str) -> None:
        """Pass a server over until then. Raises UsageError for one that is none."""
        if name not in {server.name for server in self.servers()}:
            raise UsageError(f"no server {name} is in service; see: holdfast hq servers")
        async with self._turn:
            machine = await self._loaded()
            await self._do(machine, lambda: machine.defer(name, until, author))

    # --- The loop --------------------------------------------------------------------------------
    async def run(self) -> None:
        """Until cancelled, or until this term is over."""
        while True:
            try:
                await self.turn()
            except OperationFault as fault:
                if not fault.retryable:
                    raise
                _log.warning("rollout: %s", fault)
            await self._clock.sleep(max(TURN_S, TURN_REAL_S_MIN * self._clock.scale))

    async def turn(self) -> None:
        """Look once. Nothing is decided while headquarters suspects itself, nor before it has
        listened for as long as silence and evidence take."""
        async with self._turn:
            machine = await self._loaded()
            if machine.row is None or machine.row.state is RolloutState.BACKED:
                return
            view, now = self._brain.view(), self._now()
            stood_still = now - self._looked_at > self._listen_s
            self._looked_at = now
            if view.frozen or stood_still:
                self._began = now
                machine.listen_anew(now)
            if now - self._began < self._listen_s:
                return
            seen = await self._see(machine, machine.row, view, now)
            await self._do(machine, lambda: machine.step(seen, now))

    def _now(self) -> float:
        return self._started + self._clock.elapsed() / self._clock.scale

    async def _see(
        self, machine: Rollout, row: RolloutRow, view: FleetView, now: float
    ) -> list[Seen]:
        """The servers as the brain has them; their slots only while servers are ordered."""
        slots: dict[str, set[bytes]] = {}
        if row.state is not RolloutState.DONE:
            for kv in (await self._store.range(SLOTS)).items:
                slot = msgspec.msgpack.decode(kv.value, type=SlotRow)
                for name in slot.relays + slot.replicas:
                    slots.setdefault(name, set()).add(slot.slot)
        return [
            self._one(machine, each, slots.get(each.name, set()), now) for each in _servers(view)
        ]

    def _one(self, machine: Rollout, server: ServerView, slots: set[bytes], now: float) -> Seen:
        place = machine.places.get(server.name) or PlaceRow(server.name)
        told = self.told(server.node)
        if told is not None and told.at < machine.ordered_at(place, now):
            told = None  # it has not heard of the order
        seen = Seen(
            name=server.name,
            region=server.region,
            slots=frozenset(slots),
            tier=server.tier,
            silent=server.silent,
            gray=is_gray(server.load),
            filled=server.filled or not server.slots,  # without slots it never says that it is
            moving=server.draining or bool(server.spawn),
            seated_at=server.seated_at,
            faults_share=server.load.faults_share,
        )
        if told is None:
            return seen
        return msgspec.structs.replace(
            seen,
            release=told.release,
            proved=told.proved,
            refused=told.refused,
            refused_why=told.refused_why,
            deferred_until=told.deferred_until,
        )

    # --- Rows ------------------------------------------------------------------------------------
    async def _loaded(self) -> Rollout:
        if self._machine is None:
            kv = await self._store.get(ROLLOUT)
            row = msgspec.msgpack.decode(kv.value, type=RolloutRow) if kv else None
            places = [
                msgspec.msgpack.decode(item.value, type=PlaceRow)
                for item in (await self._store.range(PLACES)).items
            ]
            by_name = {place.name: place for place in places}
            self._machine = Rollout(self._pace, row, by_name, self._began)
        return self._machine

    async def _do(self, machine: Rollout, decide: Callable[[], Effects]) -> None:
        """Decide, write, tell. A write that fails makes the machine anew."""
        try:
            effects = decide()
            await self._save(effects.persist)
        except OperationFault:
            self._machine = None
            raise
        if effects.audit:
            await self._audit(effects.audit)
            for line in effects.audit:
                self._brain.show(line)

    async def _save(self, changes: Sequence[tuple[str, RolloutRow | PlaceRow]]) -> None:
        """In pieces where there are many; any prefix of them is a state to go on from."""
        operations: list[Operation] = [Put(key, pack(row)) for key, row in changes]
        for start in range(0, len(operations), _PIECE):
            await self._store.txn([], operations[start : start + _PIECE])


def _servers(view: FleetView) -> list[ServerView]:
    return [
        server
        for server in view.servers
        if server.state is ServerState.ACTIVE and server.node and server.role in STORES
    ]
