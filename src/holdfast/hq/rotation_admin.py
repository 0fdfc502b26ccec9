"""The operator's verbs about the age of machines: planned rotation (seed 004 §6.3).

| method and path                      | shape               |
|--------------------------------------|---------------------|
| GET    /admin/v1/rotation            | -> RotationView     |
| PUT    /admin/v1/rotation            | Schedule -> Done    |
| DELETE /admin/v1/rotation            | -> Done             |
| POST   /admin/v1/servers/{name}/rotate | -> Done           |
| POST   /admin/v1/rotate              | MassRotate -> Done  |

Several at once, and a standing order, are for two persons; ending it is for one.
"""

from __future__ import annotations

from typing import Any

from holdfast.errors import UsageError
from holdfast.hq.parts import Parts
from holdfast.hq.verbs import READERS, RUNNERS, Asked, Done, Verb
from holdfast.limits.control import DRAIN_NAMES_MAX, DRAINS_ALONE_MAX
from holdfast.limits.fleet import ROTATE_AT_ONCE_MAX, ROTATE_DAYS_MAX, ROTATE_DAYS_MIN
from holdfast.logic.fleet.events import Rotate, ScheduleRotation
from holdfast.logic.fleet.model import OPERATOR
from holdfast.logic.fleet.rotation import may_rotate, older_than
from holdfast.wire.codec import Message


class Schedule(Message):
    """Machines older than `every_days` of the network's time, `at_once` at a time."""

    every_days: float
    at_once: int = 1


class MassRotate(Message):
    """These servers, or all whose machine is older than so many days; one of the two."""

    names: tuple[str, ...] = ()
    older_than_days: float = 0.0
    at_once: int = 1


class Turn(Message):
    """`began_at` is 0 while it waits."""

    name: str
    author: str
    asked_at: float
    began_at: float


class RotationView(Message):
    """`every_days` 0: no standing order. `due` are servers that it has not come to yet."""

    every_days: float
    at_once: int
    author: str
    since: float
    turns: tuple[Turn, ...]
    due: tuple[str, ...]
    oldest_days: float


class RotationVerbs:
    """The handlers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def verbs(self) -> tuple[Verb, ...]:
        return (
            Verb("GET", "/rotation", READERS, self.show),
            Verb("PUT", "/rotation", RUNNERS, self.schedule, Schedule, second=True),
            Verb("DELETE", "/rotation", RUNNERS, self.off),
            Verb("POST", "/servers/{name}/rotate", RUNNERS, self.rotate),
            Verb("POST", "/rotate", RUNNERS, self.rotate_many, MassRotate, second=True),
        )

    async def show(self, _asked: Asked, _body: Any) -> RotationView:
        fleet = self._parts.acting().fleet
        state, row = fleet.state, fleet.state.rotation
        ours = older_than(state, 0.0, fleet.now)
        due = older_than(state, row.every_days, fleet.now) if row else []
        oldest_s = fleet.now - ours[0].seated_at if ours else 0.0
        return RotationView(
            every_days=row.every_days if row else 0.0,
            at_once=row.at_once if row else 0,
            author=row.author if row else "",
            since=row.since if row else 0.0,
            turns=tuple(
                Turn(turn.name, turn.author, turn.asked_at, turn.began_at)
                for turn in state.turns.values()
            ),
            due=tuple(server.name for server in due if server.name not in state.turns),
            oldest_days=round(oldest_s / state.pace.day_s, 2),
        )

    async def schedule(self, asked: Asked, body: Schedule) -> Done:
        if not ROTATE_DAYS_MIN <= body.every_days <= ROTATE_DAYS_MAX:
            raise UsageError(f"every_days from {ROTATE_DAYS_MIN:g} to {ROTATE_DAYS_MAX:g}")
        _check_at_once(body.at_once)
        order = ScheduleRotation(asked.author, body.every_days, body.at_once)
        await self._parts.acting().order(order)
        return Done("fleet")

    async def off(self, asked: Asked, _body: Any) -> Done:
        await self._parts.acting().order(ScheduleRotation(asked.author, 0.0))
        return Done("fleet")

    async def rotate(self, asked: Asked, _body: Any) -> Done:
        name = asked.path_params["name"]
        turns = self._parts.acting().fleet.state.turns
        if name not in turns and len(turns) >= DRAINS_ALONE_MAX:
            raise UsageError(
                f"{len(turns)} servers wait for their turn already; order more than that together, "
                "so that a second operator sees it: holdfast hq rotate NAME NAME"
            )
        return await self._ask((name,), asked.author, 1)

    async def rotate_many(self, asked: Asked, body: MassRotate) -> Done:
        _check_at_once(body.at_once)
        if bool(body.names) == bool(body.older_than_days):
            raise UsageError("name servers, or say how old machines must be: one of the two")
        if body.names:
            return await self._ask(body.names, asked.author, body.at_once)
        if body.older_than_days < ROTATE_DAYS_MIN:
            raise UsageError(f"older_than_days from {ROTATE_DAYS_MIN:g}")
        fleet = self._parts.acting().fleet
        rows = older_than(fleet.state, body.older_than_days, fleet.now)
        if not rows:
            raise UsageError(f"no machine of ours is older than {body.older_than_days:g} days")
        return await self._ask(tuple(row.name for row in rows), asked.author, body.at_once)

    async def _ask(self, names: tuple[str, ...], author: str, at_once: int) -> Done:
        """Every name is looked at before the first turn is written. Raises UsageError."""
        if len(names) > DRAIN_NAMES_MAX:
            raise UsageError(f"at most {DRAIN_NAMES_MAX} servers in one order")
        brain = self._parts.acting()
        await self._parts.rolling().check_over()
        for name in names:
            server = brain.fleet.state.servers.get(name)
            if server is not None and server.owner != OPERATOR:
                raise UsageError(f"{name} is {server.owner}'s machine; its owner renews it")
            if server is None or not may_rotate(server):
                raise UsageError(
                    f"no relay or replica {name} is in service; see: holdfast hq servers"
                )
        await brain.order(Rotate(names, author, at_once))
        return Done(", ".join(names))


def _check_at_once(at_once: int) -> None:
    if not 0 < at_once <= ROTATE_AT_ONCE_MAX:
        raise UsageError(f"at_once from 1 to {ROTATE_AT_ONCE_MAX}")
