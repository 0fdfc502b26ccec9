"""The operator's verbs about load: slots are moved until it is even (seed 004 §6.2).

| method and path           | shape                  |
|---------------------------|------------------------|
| GET    /admin/v1/rebalance| -> Rebalancing         |
| POST   /admin/v1/rebalance| RebalanceOrder -> Done |
| DELETE /admin/v1/rebalance| -> Done                |

No rule is broken for an even load and nobody waits for it, so one operator may ask. Which slot goes
where is decided in `logic.fleet.balance`, when in `logic.fleet.rebalance`.
"""

from __future__ import annotations

from typing import Any

from holdfast.errors import UsageError
from holdfast.hq.parts import Parts
from holdfast.hq.verbs import READERS, RUNNERS, Asked, Done, Verb
from holdfast.limits.fleet import MOVES_PER_MIN, MOVES_PER_MIN_MAX
from holdfast.logic.fleet.events import Rebalance, StopRebalance
from holdfast.logic.fleet.model import Role
from holdfast.wire.codec import Message


class RebalanceOrder(Message):
    """How many slots may move in a minute of the network's time."""

    moves_per_min: int = MOVES_PER_MIN


class PlannedMove(Message):
    """`slot` in hex; `load` is its groups and one."""

    slot: str
    role: Role
    former: str
    name: str
    load: int
    repays: bool


class MoveUnderWay(Message):
    slot: str
    former: str
    name: str
    began_at: float


class Rebalancing(Message):
    """`planned` is what is left to do if all goes well. Imbalances are fullest over mean, of the
    worst role and region."""

    on: bool
    author: str
    since: float
    moves_per_min: int
    moved: int
    under_way: tuple[MoveUnderWay, ...]
    planned: tuple[PlannedMove, ...]
    imbalance: float
    imbalance_planned: float


class RebalanceVerbs:
    """The handlers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def verbs(self) -> tuple[Verb, ...]:
        return (
            Verb("GET", "/rebalance", READERS, self.show),
            Verb("POST", "/rebalance", RUNNERS, self.start, RebalanceOrder),
            Verb("DELETE", "/rebalance", RUNNERS, self.stop),
        )

    async def show(self, _asked: Asked, _body: Any) -> Rebalancing:
        fleet = self._parts.acting().fleet
        row, plan = fleet.state.rebalance, fleet.rebalancing.plan()
        return Rebalancing(
            on=row is not None,
            author=row.author if row else "",
            since=row.since if row else 0.0,
            moves_per_min=row.moves_per_min if row else 0,
            moved=row.moved if row else 0,
            under_way=tuple(
                MoveUnderWay(move.slot.hex(), move.former, move.name, move.began_at)
                for move in fleet.state.moves.values()
            ),
            planned=tuple(
                PlannedMove(m.slot.hex(), m.role, m.former, m.name, m.load, m.repays)
                for m in plan.moves
            ),
            imbalance=round(plan.before, 3),
            imbalance_planned=round(plan.after, 3),
        )

    async def start(self, asked: Asked, body: RebalanceOrder) -> Done:
        if not 0 < body.moves_per_min <= MOVES_PER_MIN_MAX:
            raise UsageError(f"moves_per_min from 1 to {MOVES_PER_MIN_MAX}")
        await self._parts.rolling().check_over()
        await self._parts.acting().order(Rebalance(asked.author, body.moves_per_min))
        return Done("fleet")

    async def stop(self, asked: Asked, _body: Any) -> Done:
        brain = self._parts.acting()
        if brain.fleet.state.rebalance is None:
            raise UsageError("nothing is being rebalanced; see: holdfast hq rebalance --dry-run")
        await brain.order(StopRebalance(asked.author))
        return Done("fleet")
