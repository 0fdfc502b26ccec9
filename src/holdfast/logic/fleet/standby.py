"""Machines that stand by: ordered, booted, and without a name until a seat needs one (ADR 0045).

    ordered -> heard: its agent asks headquarters every few seconds whether it is needed
    heard   -> a spawn: `Healing.want` gives the very same intent a name, its token with it
    silent  -> failed and reaped, and another is ordered

A standby is bound to a place, a region of a provider, because machines cannot move. The operator
says how many each place keeps; places are where servers of the pool are. Who was heard is soft: a
new headquarters waits to be asked again before it relies on anybody.
"""

from __future__ import annotations

import msgspec

from holdfast.logic.effects import Audit
from holdfast.logic.fleet.model import ACCESS, OPERATOR
from holdfast.logic.fleet.rows import IntentRow, IntentState, ServerState, StandbyRow
from holdfast.logic.fleet.state import FleetState

Place = tuple[str, str]
"""(provider, region)."""


def standby_name(provider: str, region: str) -> str:
    """How a place is called where a server would have its name."""
    return f"standby at {provider}, {region}"


class Standbys:
    """What stands by, what is lacking, who may be called."""

    def __init__(self, state: FleetState) -> None:
        self._state = state
        self._heard: dict[str, float] = {}
        self._noticed: dict[str, float] = {}  # by this headquarters, heard or not
        self._looked_at = 0.0
        self._deaf_s = 0.0

    def want(self, per_place: int) -> list[Audit]:
        """Keep so many from now on."""
        assert per_place >= 0
        if per_place == self._state.standby.per_place:
            return []
        self._state.put(StandbyRow(per_place))
        return [Audit("standby.wanted", "fleet", {"per_place": per_place})]

    @property
    def concern(self) -> bool:
        """Whether any are wanted, or left."""
        return bool(self._state.standby.per_place) or bool(self._by_place())

    def heard(self, intent: str, now: float) -> None:
        """Its machine asked whether it is needed."""
        if intent in self._state.open:
            self._heard[intent] = now - self._deaf_s

    def ready(self, provider: str, region: str, now: float) -> IntentRow | None:
        """A machine of that place which would hear us at once: the one that waits longest."""
        for intent in self._standing():
            here = (intent.provider, intent.region) == (provider, region)
            if here and self._is_fresh(intent, now):
                return intent
        return None

    def stand_down(self, intent: IntentRow) -> IntentRow:
        """The seat does not need it after all: as it stood before it was called."""
        return msgspec.structs.replace(
            intent,
            action="standby",
            name="",
            reason="standby",
            state=IntentState.ORDERED,
            replaces=b"",
            warm=False,
        )

    def lacking(self) -> list[Place]:
        """The places that keep too few, once for each machine they lack."""
        kept = self._by_place()
        wanted = self._state.standby.per_place
        lacking: list[Place] = []
        for place in self._places():
            lacking += [place] * (wanted - len(kept.get(place, ())))
        return lacking

    def surplus(self) -> list[IntentRow]:
        """Those that no place wants, the newest first."""
        places, surplus = set(self._places()), []
        for place, standing in sorted(self._by_place().items()):
            wanted = self._state.standby.per_place if place in places else 0
            surplus += standing[wanted:]
        return surplus

    def lost(self, now: float) -> list[tuple[IntentRow, str]]:
        """Those that never asked, or have not for too long; and why they are given up."""
        lost = []
        if self._looked_at and now - self._looked_at > self._state.pace.standby_silent_s:
            self._deaf_s += now - self._looked_at  # we stood still, or were frozen: not their fault
        self._looked_at, heard_now = now, now - self._deaf_s
        for intent in self._standing():
            since = self._noticed.setdefault(intent.id, heard_now)
            silent_s = heard_now - max(since, self._heard.get(intent.id, since))
            if silent_s >= self._state.pace.spawn_timeout_s:
                lost.append((intent, "nobody asks from there"))
        for known in (self._heard, self._noticed):
            for key in known.keys() - self._state.open.keys():
                del known[key]
        return lost

    def count(self, now: float) -> tuple[int, int]:
        """(machines that would hear us at once, machines that were ordered)."""
        standing = self._standing()
        return sum(self._is_fresh(intent, now) for intent in standing), len(standing)

    def _is_fresh(self, intent: IntentRow, now: float) -> bool:
        heard_at = self._heard.get(intent.id)
        silent_s = self._state.pace.standby_silent_s
        return heard_at is not None and now - self._deaf_s - heard_at < silent_s

    def _standing(self) -> list[IntentRow]:
        """Ordered and not called yet, the oldest first."""
        intents = (self._state.intents[key] for key in self._state.open)
        return [i for i in intents if i.action == "standby" and i.state is IntentState.ORDERED]

    def _by_place(self) -> dict[Place, list[IntentRow]]:
        kept: dict[Place, list[IntentRow]] = {}
        for key in self._state.open:
            intent = self._state.intents[key]
            if intent.action == "standby":
                kept.setdefault((intent.provider, intent.region), []).append(intent)
        return kept

    def _places(self) -> list[Place]:
        """Where servers of the operator's serve, at providers to order from."""
        found = {
            (row.provider, row.region)
            for row in self._state.servers.values()
            if row.state is ServerState.ACTIVE and row.owner == OPERATOR and row.role not in ACCESS
        }
        return sorted(
            (name, region)
            for name, region in found
            if self._state.is_up(name) and region in self._state.providers[name].regions
        )
