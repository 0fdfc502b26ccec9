"""Machines in their turn: planned rotation is draining on a schedule (seed 004 §6.3).

    waits (TurnRow) -> its node is told to go -> another is seated -> filled, the former retired

A turn begins for the server seated longest, at most `at_once` of them at a time, and only while
every server that shares a slot with it is well: of a slot one member turns at most. What follows is
the drain machine's. The standing order adds turns for machines older than it allows; machines that
others own are theirs to renew. All of it is in rows, so a restart goes on.
"""

from __future__ import annotations

import msgspec

from holdfast.crypto.pure import base32
from holdfast.limits.fleet import ROTATE_AT_ONCE_MAX
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.events import Rotate, ScheduleRotation
from holdfast.logic.fleet.model import OPERATOR, STORES, Tier
from holdfast.logic.fleet.rows import NodeState, RotationRow, ServerRow, ServerState, TurnRow
from holdfast.logic.fleet.slots import Slots
from holdfast.logic.fleet.state import FleetState


def may_rotate(server: ServerRow) -> bool:
    """Whether headquarters can put this server on a fresh machine: it serves on one of ours."""
    ours = server.role in STORES and server.owner == OPERATOR
    return ours and server.state is ServerState.ACTIVE and bool(server.node)


def older_than(state: FleetState, days: float, now: float) -> list[ServerRow]:
    """Servers that may rotate and whose machine is older than `days`, the oldest first."""
    limit_s = days * state.pace.day_s
    rows = [row for row in state.servers.values() if may_rotate(row)]
    return sorted(
        (row for row in rows if now - row.seated_at >= limit_s),
        key=lambda row: (row.seated_at, row.name),
    )


class Rotation:
    """The machine over all turns. `begun` collects names that have to leave now."""

    def __init__(self, state: FleetState, slots: Slots) -> None:
        self._state = state
        self._slots = slots
        self.begun: set[str] = set()

    # --- Orders ----------------------------------------------------------------------------------
    def ask(self, event: Rotate, now: float) -> list[Audit]:
        """These servers, each in its turn. Who waits for one already, or has begun it, keeps it."""
        asked = [
            name
            for name in event.names
            if name not in self._state.turns and may_rotate(self._state.servers[name])
        ]
        for name in asked:
            self._add(name, event.author, event.at_once, now)
        if not asked:
            return []
        detail = {"servers": asked, "author": event.author, "at_once": event.at_once}
        return [Audit("rotation.asked", "fleet", detail)]

    def schedule(self, event: ScheduleRotation, now: float) -> list[Audit]:
        """A new standing order, or the end of it: whose turn has not begun then stays."""
        state = self._state
        if event.every_days:
            row = RotationRow(event.every_days, event.at_once, event.author, now)
            state.put(row)
            order = {"every_days": row.every_days, "at_once": row.at_once}
            return [Audit("rotation.scheduled", "fleet", order | {"author": event.author})]
        if state.rotation is not None:
            state.drop_plan(state.rotation)
        waiting = [turn for turn in state.turns.values() if not turn.began_at]
        for turn in waiting:
            state.drop_plan(turn)
        detail = {"author": event.author, "dropped": [turn.name for turn in waiting]}
        return [Audit("rotation.unscheduled", "fleet", detail)]

    def _add(self, name: str, author: str, at_once: int, now: float) -> None:
        assert 0 < at_once <= ROTATE_AT_ONCE_MAX
        node = self._state.servers[name].node
        self._state.put(TurnRow(name, node, now, author, at_once))

    # --- Time ------------------------------------------------------------------------------------
    def tick(self, now: float) -> list[Audit]:
        """End the turns that are over, add those that are due, begin those that may."""
        audit: list[Audit] = []
        for turn in list(self._state.turns.values()):
            audit += self._look(turn, now)
        self._add_due(now)
        waiting = [turn for turn in self._state.turns.values() if not turn.began_at]
        waiting.sort(key=lambda turn: (self._state.servers[turn.name].seated_at, turn.name))
        running = len(self._state.turns) - len(waiting)
        for turn in waiting:
            if running < turn.at_once and self._may_begin(turn, now):
                audit.append(self._begin(turn, now))
                running += 1
        return audit

    def _look(self, turn: TurnRow, now: float) -> list[Audit]:
        server = self._state.servers[turn.name]
        if server.node == turn.node and server.state is ServerState.ACTIVE:
            return []
        former = self._state.nodes.get(turn.node)
        serves = former is not None and former.state is NodeState.ACTIVE
        if server.state is ServerState.ACTIVE and (serves or not self._state.is_filled(server)):
            return []
        self._state.drop_plan(turn)
        detail = {"node": base32(turn.node), "began": bool(turn.began_at)}
        took_s = round(now - turn.began_at, 1) if turn.began_at else 0.0
        return [Audit("rotation.ended", turn.name, detail | {"took_s": took_s})]

    def _add_due(self, now: float) -> None:
        """No more than may begin: the order of the rest is looked at again later."""
        order = self._state.rotation
        if order is None or len(self._state.turns) >= order.at_once:
            return
        due = [
            row
            for row in older_than(self._state, order.every_days, now)
            if row.name not in self._state.turns and not row.leaving
        ]
        for row in due[: order.at_once - len(self._state.turns)]:
            self._add(row.name, order.author, order.at_once, now)

    def _may_begin(self, turn: TurnRow, now: float) -> bool:
        state = self._state
        server = state.servers[turn.name]
        moving = any(slot in state.moves for slot in state.slots_of.get(turn.name, ()))
        well = self._is_settled(server) and all(
            self._is_settled(state.servers[name]) for name in state.peers(turn.name)
        )
        return well and not moving and self._slots.may_change(turn.name, now)

    def _is_settled(self, server: ServerRow) -> bool:
        well = server.state is ServerState.ACTIVE and server.tier is Tier.GREEN
        whole = self._state.is_filled(server) and not server.leaving
        return well and whole and server.name not in self._state.spawn_of

    def _begin(self, turn: TurnRow, now: float) -> Audit:
        state = self._state
        server = state.servers[turn.name]
        state.put(msgspec.structs.replace(turn, began_at=now))
        state.put(msgspec.structs.replace(server, leaving=True, draining=True))
        self.begun.add(turn.name)
        age_days = (now - server.seated_at) / state.pace.day_s
        detail = {"node": base32(turn.node), "author": turn.author, "age_days": round(age_days, 2)}
        return Audit("rotation.began", turn.name, detail)
