"""Moving slots until loads are even, gradually and under the slots' clients (seed 004 §6.2, D4).

    wanted -> seat given, record changed (MoveRow written) -> filled there -> let go (row dropped)

`balance` says which slot goes where. This machine says when: a budget of moves a minute; no second
change of a slot while one is under way, nor within ten minutes of the last; no slot with a server
that is down, leaving, being replaced or not filled; a few slots into one server at a time. The new
server is in the record at once, so that it takes what is written from then on; the former one keeps
its sessions and is read from until the new one says it is filled (ADR 0017).

All of it is in rows: a headquarters that starts again goes on. The budget too: a move is under way
for longer than the minute that the budget looks back on.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from holdfast.crypto.pure import base32
from holdfast.limits.fleet import BALANCE_DEBTS_MAX, BALANCE_GOAL, MOVES_INTO_MAX, MOVES_SHOWN_MAX
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.allocation import Candidate
from holdfast.logic.fleet.balance import Ledger, Move, Plan, plan_moves
from holdfast.logic.fleet.events import Rebalance
from holdfast.logic.fleet.model import SlotId, Tier
from holdfast.logic.fleet.rows import MoveRow, RebalanceRow, ServerRow, ServerState
from holdfast.logic.fleet.slots import Slots
from holdfast.logic.fleet.state import FleetState


class Rebalancing:
    """The machine over all moves. `settled` collects names whose former machine may go now."""

    def __init__(
        self, state: FleetState, slots: Slots, candidate: Callable[[str], Candidate]
    ) -> None:
        self._state = state
        self._slots = slots
        self._candidate = candidate
        self._look_at = 0.0
        self._idle_since = 0.0
        self.settled: set[str] = set()
        for move in list(state.moves.values()):
            if not self._is_recorded(move):
                state.drop_plan(move)  # its second half was never written: it did not happen

    # --- Orders ----------------------------------------------------------------------------------
    def plan(self) -> Plan:
        """What there would be to do."""
        return plan_moves(self._state, self._candidate, MOVES_SHOWN_MAX)

    def start(self, event: Rebalance, now: float) -> list[Audit]:
        """Begin, or go on at another pace."""
        known = self._state.rebalance
        pace = {"author": event.author, "moves_per_min": event.moves_per_min}
        self._look_at = now
        if known is not None:
            self._state.put(msgspec.structs.replace(known, **pace))
            return [Audit("rebalance.paced", "fleet", pace)]
        before = Ledger(self._state, self._candidate).imbalance()
        self._state.put(RebalanceRow(now, event.author, event.moves_per_min, before))
        return [Audit("rebalance.began", "fleet", pace | {"imbalance": round(before, 3)})]

    def stop(self, author: str) -> list[Audit]:
        """No more moves."""
        row = self._state.rebalance
        return [] if row is None else [self._end(row, f"stopped by {author}")]

    # --- Time ------------------------------------------------------------------------------------
    def tick(self, now: float) -> list[Audit]:
        """Let go what is filled elsewhere, and make the moves that may be made now."""
        audit: list[Audit] = []
        for move in list(self._state.moves.values()):
            audit += self._look(move, now)
        row = self._state.rebalance
        if row is None or now < self._look_at:
            return audit
        self._look_at = now + self._state.pace.rebalance_s
        return audit + self._go_on(row, now)

    def _look(self, move: MoveRow, now: float) -> list[Audit]:
        """Whether the seat's new server, whatever machine it is on by now, is filled."""
        server = self._state.servers[move.name]
        early = now < move.began_at + self._state.pace.let_go_s
        if early or not server.filled or move.slot in self._slots.due:
            return []
        self._state.drop_plan(move)
        self.settled |= {move.former, move.name}
        detail = {"slot": move.slot.hex(), "former": move.former}
        return [
            Audit("slot.moved", move.name, detail | {"filled_s": round(now - move.began_at, 1)})
        ]

    def _go_on(self, row: RebalanceRow, now: float) -> list[Audit]:
        state, audit = self._state, list[Audit]()
        recent = sum(
            now - move.began_at < state.pace.spawn_window_s for move in state.moves.values()
        )
        ledger: Ledger | None = None
        for _ in range(row.moves_per_min - recent):
            ledger = ledger or self._ledger(now)
            move = ledger.choose(lambda slot: self._may_change(slot, now), self._may_take)
            if move is None:
                break
            ledger.take(move)
            audit.append(self._begin(move, now))
            row = msgspec.structs.replace(row, moved=row.moved + 1)
            state.put(row)
        if audit or state.moves:
            self._idle_since = 0.0
        elif self._is_over(now):
            audit.append(self._end(row, "no move is left"))
        return audit

    def _is_over(self, now: float) -> bool:
        """Loads are even; or no move has been legal for as long as a slot rests between two: who
        was silent or doubted for a moment may take some after all."""
        ledger = self._ledger(now)
        if ledger.choose() is not None:
            self._idle_since = 0.0
            return False
        self._idle_since = self._idle_since or now
        idle_s = now - self._idle_since
        return ledger.imbalance() <= BALANCE_GOAL or idle_s >= self._state.pace.record_change_s

    def _ledger(self, now: float) -> Ledger:
        turn = int(now / self._state.pace.rebalance_s)
        return Ledger(self._state, self._candidate, turn * BALANCE_DEBTS_MAX)

    def _begin(self, move: Move, now: float) -> Audit:
        """The move's row comes first: a crash may keep it and lose the rest, never the reverse."""
        state = self._state
        former, server = state.servers[move.former], state.servers[move.name]
        state.put(
            MoveRow(move.slot, move.role, move.former, former.node, move.name, server.node, now)
        )
        state.put(msgspec.structs.replace(server, filled=False))
        self._slots.give(move.slot, move.former, move.name, now)
        detail = {"slot": move.slot.hex(), "from": move.former, "node": base32(server.node)}
        return Audit("slot.moving", move.name, detail | {"repays": move.repays})

    def _end(self, row: RebalanceRow, why: str) -> Audit:
        self._state.drop_plan(row)
        after = Ledger(self._state, self._candidate).imbalance()
        detail = {"why": why, "moved": row.moved}
        return Audit(
            "rebalance.ended",
            "fleet",
            detail | {"before": round(row.before, 3), "after": round(after, 3)},
        )

    # --- When ------------------------------------------------------------------------------------
    def _may_change(self, slot: SlotId, now: float) -> bool:
        """Clients would follow, nothing else is under way, and everybody in it is well."""
        state = self._state
        row = state.slots[slot]
        if slot in state.moves or slot in self._slots.due:
            return False
        changed_at = max(row.relays_changed_at, row.replicas_changed_at)
        wait_s = state.pace.record_change_s + state.pace.follow_s
        if changed_at and now < changed_at + wait_s:
            return False
        return all(self._is_settled(state.servers[name]) for name in row.relays + row.replicas)

    def _is_settled(self, server: ServerRow) -> bool:
        """In service, filled but for what was just moved there, and nobody doubts it."""
        well = server.state is ServerState.ACTIVE and server.tier is Tier.GREEN
        whole = self._state.is_filled(server) or self._coming(server) > 0
        return (
            well
            and whole
            and not server.leaving
            and server.name not in self._state.spawn_of
            and self._state.is_member(server.node)
        )

    def _may_take(self, name: str) -> bool:
        server = self._state.servers[name]
        return self._is_settled(server) and self._coming(server) < MOVES_INTO_MAX

    def _coming(self, server: ServerRow) -> int:
        """Slots that this node is filling because they were moved to it."""
        return sum(move.node == server.node for move in self._state.moves.values())

    def _is_recorded(self, move: MoveRow) -> bool:
        row = self._state.slots.get(move.slot)
        return row is not None and move.name in row.relays + row.replicas
