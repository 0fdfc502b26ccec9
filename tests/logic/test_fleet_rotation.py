"""Machines are renewed in their turn, the oldest first, one of a slot at most (seed 004 §6.3)."""

from __future__ import annotations

import msgspec
import pytest
from tests.logic.fleet_world import World, launched, role_names

from holdfast.logic.fleet import events
from holdfast.logic.fleet.model import Role
from holdfast.logic.fleet.rotation import may_rotate, older_than
from holdfast.logic.fleet.rows import TurnRow

DAY_S = 86_400.0
RELAYS = ("relay-eu-001", "relay-eu-002", "relay-eu-003")


def aged(**options: object) -> World:
    """A launched region whose relays are of different age: 002 the oldest, then 003, then 001."""
    world = launched(regions=("eu",), **options)
    for name, days in (("relay-eu-002", 40), ("relay-eu-003", 35), ("relay-eu-001", 31)):
        row = msgspec.structs.replace(world.server(name), seated_at=world.now - days * DAY_S)
        world.fleet.state.put(row)
    world.step(events.Tick())
    return world


def watch(world: World, seconds: float) -> None:
    """Let time go by; of every slot one member at most is away from its place."""
    end = world.now + seconds
    while world.fleet.state.turns:
        assert world.now < end, "it comes to its end"
        world.run(5)
        state = world.fleet.state
        for row in state.slots.values():
            names = row.relays + row.replicas
            turning = [n for n in names if n in state.turns and state.turns[n].began_at]
            assert len(turning) <= 1
        assert not state.down


def test_named_servers_turn_oldest_first_and_one_after_another() -> None:
    world = aged()
    before = {name: world.server(name).node for name in RELAYS}
    world.step(events.Rotate(RELAYS, "ann", 2))
    watch(world, 9_000)
    began = [line.subject for line in world.lines("rotation.began")]
    assert began == ["relay-eu-002", "relay-eu-003", "relay-eu-001"]
    assert all(world.server(name).node != before[name] for name in RELAYS)
    assert len(world.deleted) == 3
    ended = [line.subject for line in world.lines("rotation.ended")]
    assert ended == began
    assert not [row for row in world.rows.values() if isinstance(row, TurnRow)]
    world.run(2_000)
    assert len(world.created) == 6 + 3, "each once"


def test_servers_of_different_slots_turn_together_up_to_the_number_asked_for() -> None:
    for at_once, together in ((1, 1), (2, 2)):
        world = launched(regions=("eu", "ap"))
        world.step(events.Rotate(("relay-eu-001", "relay-ap-001"), "ann", at_once))
        world.run(10)
        assert len(world.lines("rotation.began")) == together


def test_the_standing_order_takes_who_is_old_and_nobody_else() -> None:
    world = aged()
    world.step(events.ScheduleRotation("ann", 33.0, 1))
    world.run(10)
    world.until(lambda: not world.fleet.state.turns, 9_000)
    world.until(lambda: len(world.lines("rotation.ended")) == 2, 9_000)
    world.run(3_000)
    assert [line.subject for line in world.lines("rotation.began")] == list(RELAYS[1:])
    assert world.fleet.state.rotation is not None
    world.step(events.ScheduleRotation("ben", 0.0))
    assert world.fleet.state.rotation is None
    for name in RELAYS:
        old = msgspec.structs.replace(world.server(name), seated_at=world.now - 400 * DAY_S)
        world.fleet.state.put(old)
    world.run(2_000)
    assert len(world.lines("rotation.began")) == 2


def test_an_order_that_is_off_leaves_the_turn_that_has_begun() -> None:
    world = aged()
    world.step(events.Rotate(RELAYS, "ann", 1))
    world.run(10)
    world.step(events.ScheduleRotation("ann", 0.0))
    assert list(world.fleet.state.turns) == ["relay-eu-002"]
    watch(world, 3_000)
    assert len(world.lines("rotation.ended")) == 1


def test_nobody_turns_beside_a_peer_that_is_not_well() -> None:
    world = aged()
    world.kill("replica-eu-001")
    world.run(120)
    world.step(events.Rotate(RELAYS[:1], "ann", 1))
    world.run(60)
    assert not world.lines("rotation.began")
    world.until(lambda: not world.fleet.state.turns, 9_000)
    assert world.server("replica-eu-001").filled
    assert len(world.lines("rotation.ended")) == 1


def test_who_died_meanwhile_has_had_its_turn() -> None:
    world = aged()
    world.step(events.Rotate(RELAYS, "ann", 1))
    world.run(10)
    world.kill("relay-eu-002")
    world.until(lambda: len(world.lines("rotation.ended")) == 3, 12_000)
    assert len(world.created) == 6 + 3


@pytest.mark.parametrize("at", range(1, 40, 3))
def test_a_headquarters_that_dies_anywhere_goes_on(at: int) -> None:
    world = aged()
    world.boundaries, world.crash_at = 0, at
    order = events.Rotate(RELAYS[:2], "ann", 1)
    world.step(order)
    if len(world.fleet.state.turns) < 2:
        world.step(order)  # it died before that was durable: asked again
    watch(world, 9_000)
    assert world.restarts == 1
    assert len(world.created) == 6 + 2


def test_machines_of_others_are_theirs() -> None:
    world = aged()
    state = world.fleet.state
    state.put(msgspec.structs.replace(world.server("relay-eu-002"), owner="ann"))
    assert not may_rotate(world.server("relay-eu-002"))
    names = [row.name for row in older_than(state, 30.0, world.now)]
    assert names == ["relay-eu-003", "relay-eu-001"]
    world.step(events.Rotate(("relay-eu-002",), "ann", 1))
    assert not state.turns
    assert world.server("relay-eu-002").role is Role.RELAY


def test_a_server_without_slots_turns_as_well() -> None:
    world = launched(providers=("amber", "birch", "cedar", "dune"), regions=("eu",))
    (spare,) = [
        n for n in role_names(world, "eu", Role.RELAY) if not world.fleet.state.slots_of.get(n)
    ]
    before = world.server(spare).node
    world.step(events.Rotate((spare,), "ann", 1))
    watch(world, 3_000)
    assert world.server(spare).node != before
    assert len(world.deleted) == 1
