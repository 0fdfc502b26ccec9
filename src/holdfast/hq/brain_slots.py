"""The slots as they are shown, kept up to date by what changed.

A fleet of 3,000 servers has 60,000 slots, and looking at each takes most of a second of HQ's loop.
A slot's copies change only with its row, its debts, or how one of its six servers serves, so only
those are looked at anew. While nothing changed, `views` gives the same tuple again.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from holdfast.limits import RELAYS_PER_SLOT, REPLICAS_PER_SLOT
from holdfast.logic.fleet.model import NodeId, SlotId
from holdfast.logic.fleet.rows import SlotRow
from holdfast.logic.fleet.slots import redundancy
from holdfast.logic.fleet.state import DOWN, FleetState


class SlotView(msgspec.Struct, frozen=True):
    """A slot: how many of its three relays serve, and how many of its replicas serve filled."""

    slot: str
    region: str
    version: int
    groups: int
    relays: int
    replicas: int
    debts: int


_Serving = tuple[NodeId, bool]
"""The node that serves, empty while it is down, and whether it is filled."""


class SlotViews:
    """Ask with the same or a later state of the fleet each time, or with one loaded anew."""

    def __init__(self) -> None:
        self._rows: dict[SlotId, SlotRow] = {}
        self._views: dict[SlotId, SlotView] = {}
        self._serving: dict[str, _Serving] = {}
        self._debts: Counter[SlotId] = Counter()
        self._groups: Counter[str] = Counter()
        self._shown: tuple[SlotView, ...] = ()
        self.relays_min, self.replicas_min = RELAYS_PER_SLOT, REPLICAS_PER_SLOT
        """Of the poorest slot as of the last `views`; the full number when there is none."""

    def views(self, state: FleetState) -> tuple[SlotView, ...]:
        """Every slot, by id."""
        dirty = self._changed(state)
        for slot in dirty:
            self._look(state, slot)
        if dirty:
            self._shown = tuple(self._views[slot] for slot in sorted(self._views))
            self.relays_min = min((s.relays for s in self._shown), default=RELAYS_PER_SLOT)
            self.replicas_min = min((s.replicas for s in self._shown), default=REPLICAS_PER_SLOT)
        return self._shown

    def groups(self, name: str) -> int:
        """Groups in all slots of a server, as of the last `views`."""
        return self._groups[name]

    def _changed(self, state: FleetState) -> set[SlotId]:
        dirty = {slot for slot, row in state.slots.items() if self._rows.get(slot) is not row}
        dirty |= self._rows.keys() - state.slots.keys()
        serving: dict[str, _Serving] = {}
        for name, server in state.servers.items():
            now = (b"" if server.tier in DOWN else server.node, server.filled)
            serving[name] = now
            if self._serving.get(name) != now:
                dirty.update(state.slots_of.get(name, ()))
        debts = Counter(slot for slot, _ in state.debts)
        if debts != self._debts:
            both = debts.keys() | self._debts.keys()
            dirty.update(slot for slot in both if debts[slot] != self._debts[slot])
        self._serving, self._debts = serving, debts
        return dirty

    def _look(self, state: FleetState, slot: SlotId) -> None:
        old, row = self._rows.pop(slot, None), state.slots.get(slot)
        if old is not None:
            for name in old.relays + old.replicas:
                self._groups[name] -= old.groups
        if row is None:
            self._views.pop(slot, None)
            return
        for name in row.relays + row.replicas:
            self._groups[name] += row.groups
        relays, replicas = redundancy(state, row)
        self._rows[slot] = row
        self._views[slot] = SlotView(
            slot=slot.hex(),
            region=row.region,
            version=row.version.n,
            groups=row.groups,
            relays=relays,
            replicas=replicas,
            debts=self._debts[slot],
        )
