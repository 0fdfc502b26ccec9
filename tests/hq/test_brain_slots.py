"""Slots that are looked at only where something changed are shown as if all had been."""

from __future__ import annotations

import msgspec
from tests.logic.fleet_world import World, launch

from holdfast.hq.brain_slots import SlotViews
from holdfast.logic.fleet import events
from holdfast.logic.fleet.rows import DebtRow
from holdfast.logic.fleet.state import FleetState


def same(known: SlotViews, state: FleetState) -> None:
    fresh = SlotViews()
    assert known.views(state) == fresh.views(state)
    assert all(known.groups(name) == fresh.groups(name) for name in state.servers)


def test_through_the_loss_of_a_provider() -> None:
    """Launch, groups, a loss, healing, debts and their repayment: after every step of time."""
    world = World()
    launch(world)
    known, seen = SlotViews(), set()
    for _ in range(12):
        world.step(events.Allocate("eu"))
    state = world.fleet.state
    same(known, state)
    world.lose(world.providers[0])
    for step in range(120):
        world.run(10)
        same(known, state)
        seen |= {(view.relays, view.replicas, bool(view.debts)) for view in known.views(state)}
        if step == 80:
            world.bring_back(world.providers[0])
    assert {relays for relays, _, _ in seen} >= {2, 3}
    assert {owes for _, _, owes in seen} == {False, True}, "a story in which nothing happens"


def test_nothing_new_is_the_same_tuple() -> None:
    world = World()
    launch(world)
    state = world.fleet.state
    known = SlotViews()
    first = known.views(state)
    assert known.views(state) is first
    (slot, *_) = state.slots.values()
    state.put(msgspec.structs.replace(slot, groups=slot.groups + 5))
    assert known.views(state) is not first
    same(known, state)
    state.put(DebtRow(slot.slot, slot.relays[0], "alder", 1.0))
    same(known, state)
    state.drop_debt(state.debts[slot.slot, slot.relays[0]])
    same(known, state)
