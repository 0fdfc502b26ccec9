"""The partition guard (D29): when everything looks dead at once, the one who looks is suspect.

If at least half of the relays and replicas, over at least two providers, is silent or RED, HQ
freezes: it says so and spawns nothing. It goes on watching, answering and serving DNS. The freeze
lifts when servers of at least two providers have spoken since it began, when the fleet no longer
looks dead, or when an operator confirms that it really is. Once lifted it does not come back before
the fleet has looked alive again. Entries and cores neither count nor testify: they probe nobody,
come and go with their owners, and say themselves where they stand.

`UNFROZEN -> FROZEN -> CLEARED -> UNFROZEN`; the row in the control store is FROZEN or CLEARED, so a
restart neither thaws a freeze nor forgets that it was lifted. Only a fleet that looks alive deletes
the row, and a machine that has not yet listened for as long as silence takes cannot tell.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from holdfast.limits import FREEZE_FRACTION, FREEZE_PROVIDERS_MIN
from holdfast.logic.fleet.liveness import Liveness
from holdfast.logic.fleet.rows import FreezeRow
from holdfast.logic.fleet.state import FleetState


class Thaw(StrEnum):
    """Why a freeze ended."""

    ANSWERED = "servers of two providers answer"
    ALIVE = "the fleet no longer looks dead"
    CONFIRMED = "an operator confirmed the loss"


class Guard:
    """The machine: `look` at every tick, `heard` on every sign of life."""

    def __init__(self, state: FleetState, liveness: Liveness, now: float) -> None:
        self._state = state
        self._liveness = liveness
        self._hears_from = now + state.pace.silent_s
        self._answered: set[str] = set()

    @property
    def freeze(self) -> FreezeRow | None:
        """The freeze that holds now; one that was lifted is none."""
        row = self._state.freeze
        return None if row is None or row.cleared else row

    @property
    def frozen(self) -> bool:
        return self.freeze is not None

    def heard(self, name: str) -> None:
        """A seated server spoke to HQ directly."""
        if self.frozen and name in self._state.storing:
            self._answered.add(self._state.servers[name].provider)

    def confirm(self) -> Thaw | None:
        """The operator says that the loss is real."""
        return self._lift(Thaw.CONFIRMED) if self.frozen else None

    def look(self, now: float) -> FreezeRow | Thaw | None:
        """The freeze that begins now, or the reason why it ends, or None for no change."""
        dead, fleet, providers = self._dead(now)
        looks_dead = dead >= FREEZE_FRACTION * fleet and len(providers) >= FREEZE_PROVIDERS_MIN
        if not looks_dead and now > self._hears_from:
            return self._alive()
        if self.frozen:
            enough = len(self._answered) >= FREEZE_PROVIDERS_MIN
            return self._lift(Thaw.ANSWERED) if enough else None
        if not looks_dead or self._state.freeze is not None:  # lifted already
            return None
        row = FreezeRow(since=now, dead=dead, fleet=fleet, providers=tuple(sorted(providers)))
        self._answered.clear()
        self._state.put(row)
        return row

    def _lift(self, reason: Thaw) -> Thaw:
        assert self._state.freeze is not None
        self._state.put(msgspec.structs.replace(self._state.freeze, cleared=True))
        return reason

    def _alive(self) -> Thaw | None:
        was_frozen = self.frozen
        if self._state.freeze is not None:
            self._state.drop_freeze()
        return Thaw.ALIVE if was_frozen else None

    def _dead(self, now: float) -> tuple[int, int, set[str]]:
        storing = self._state.storing
        dead = (self._state.down | self._liveness.overdue(now)) & storing
        return len(dead), len(storing), {self._state.servers[name].provider for name in dead}
