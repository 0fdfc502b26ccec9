"""Machines that stand by (ADR 0045): ordered ahead, called by name, replaced, given back."""

from __future__ import annotations

import pytest
from tests.logic.fleet_world import PROVIDERS, World, launched

from holdfast.limits import STANDBY_SILENT_S
from holdfast.logic.fleet import events
from holdfast.logic.fleet.model import Tier
from holdfast.logic.fleet.rows import IntentState

NAME = "relay-eu-001"
LAUNCH = 12
PLACES = 6


def standing(world: World) -> int:
    """How many would answer a call."""
    return world.fleet.healing.standbys.count(world.now)[0]


def with_standbys(per_place: int = 1) -> World:
    world = launched()
    world.step(events.KeepStandbys(per_place))
    world.until(lambda: standing(world) == per_place * PLACES, 300)
    return world


def test_every_place_where_servers_are_keeps_what_the_operator_asks() -> None:
    world = with_standbys(2)
    assert len(world.created) == LAUNCH + 2 * PLACES
    assert {provider for provider, _ in world.created[LAUNCH:]} == set(PROVIDERS)
    world.run(3_600)
    assert len(world.created) == LAUNCH + 2 * PLACES, "who asks every few seconds is not replaced"
    assert not world.lines("machine.unknown")


def test_seed_004_4_3_a_dead_server_is_replaced_by_who_stands_by() -> None:
    """seed 004 §4.3: no machine is made between RED and the seat; one is ordered in its stead."""
    world = with_standbys()
    dead = world.server(NAME).node
    world.kill(NAME)
    world.until(lambda: world.server(NAME).tier is Tier.RED, 400, 1.0)
    took_s = world.until(lambda: world.server(NAME).node != dead, 30, 1.0)
    assert took_s <= 3
    assert world.lines("server.seated")[-1].detail["provider"] == "amber"
    assert len(world.called) == 1
    assert world.lines("spawn.intended")[-1].detail["standby"] is True
    world.until(lambda: world.is_whole() and standing(world) == PLACES, 600)
    assert len(world.created) == LAUNCH + PLACES + 1, "one machine for one death, as ever"
    world.run(100_000, 60.0)
    assert not world.lines("machine.unknown"), "a machine that stood by stays known for good"


def test_a_seat_without_a_standby_at_its_place_is_healed_by_an_order() -> None:
    world = with_standbys()
    for machine in [m for m in world.machines["amber"] if m.startswith("standby")]:
        world.dumb.add(machine)
    world.run(STANDBY_SILENT_S + 5)
    dead = world.server(NAME).node
    world.kill(NAME)
    world.until(lambda: world.server(NAME).node != dead, 500)
    assert not world.called


def test_who_is_called_and_does_not_come_costs_seconds_and_is_reaped() -> None:
    world = with_standbys()
    dead = world.server(NAME).node
    world.kill(NAME)
    world.until(lambda: world.server(NAME).tier is Tier.RED, 400, 1.0)
    (called,) = [i for i in world.fleet.state.intents.values() if i.warm]
    world.dumb.add(called.id)
    took_s = world.until(lambda: world.server(NAME).node != dead, 200, 1.0)
    assert took_s <= STANDBY_SILENT_S + 3 * world.spawn_s
    world.until(lambda: ("amber", called.id) in world.deleted, 300)
    world.until(lambda: world.is_whole() and standing(world) == PLACES, 900)


def test_silence_is_found_out_and_the_machine_replaced() -> None:
    world = with_standbys()
    lost = next(m for m in world.machines["birch"] if m.startswith("standby"))
    world.dumb.add(lost)
    world.until(lambda: ("birch", lost) in world.deleted, 1_000)
    world.until(lambda: standing(world) == PLACES, 1_000)


def test_what_nobody_wants_any_more_is_given_back() -> None:
    world = with_standbys(2)
    world.step(events.KeepStandbys(1))
    world.until(lambda: len(world.deleted) == PLACES, 300)
    world.step(events.KeepStandbys(0))
    world.until(lambda: len(world.deleted) == 2 * PLACES, 300)
    assert sum(len(machines) for machines in world.machines.values()) == LAUNCH
    assert world.is_whole()


def test_a_new_headquarters_relies_on_nobody_it_has_not_heard() -> None:
    world = with_standbys()
    world.restart()
    assert standing(world) == 0
    world.run(60)
    assert standing(world) == PLACES
    assert len(world.created) == LAUNCH + PLACES


def test_a_lost_provider_is_healed_by_standbys_elsewhere_as_far_as_they_go() -> None:
    """seed 004 §4.4: its own standbys are lost with it; those of others take what they can."""
    world = with_standbys()
    world.lose("cedar")
    for machine in list(world.machines["cedar"]):
        world.dumb.add(machine)
    world.until(lambda: "provider.lost" in world.verbs(), 600)
    world.until(world.is_whole, 3_000)
    assert world.called
    assert all(provider != "cedar" for provider, _ in world.called)


def test_a_recovery_before_the_call_leaves_the_standby_where_it_was() -> None:
    world = with_standbys()
    state = world.fleet.state
    world.api_up.clear()
    (ready, *_) = [i for i in state.intents.values() if i.action == "standby"]
    world.step(events.StandsBy(ready.id))
    healing = world.fleet.healing
    name = next(n for n in world.at(ready.provider) if f"-{ready.region}-" in n)
    world.fleet.healing.want(name, "heal", world.now)
    assert state.spawn_of[name] == ready.id
    healing.drop(name, "it is well again", world.now)
    assert name not in state.spawn_of
    assert state.intents[ready.id].action == "standby"
    assert state.intents[ready.id].state is IntentState.ORDERED


@pytest.mark.parametrize("crash_at", range(1, 40))
def test_a_crash_anywhere_ends_with_one_machine_for_each_seat(crash_at: int) -> None:
    world = with_standbys()
    world.kill(NAME)
    world.until(lambda: world.server(NAME).tier is Tier.RED, 400, 1.0)
    world.boundaries, world.crash_at = 0, crash_at
    world.until(lambda: world.is_whole() and standing(world) == PLACES, 3_000)
    world.run(1_200)
    assert sum(len(machines) for machines in world.machines.values()) == LAUNCH + PLACES


def test_a_headquarters_that_stood_still_gives_nobody_up() -> None:
    """Their questions went unheard, not unasked."""
    world = with_standbys()
    before = {name for machines in world.machines.values() for name in machines}
    world.now += 3_600
    world.run(600)
    assert {name for machines in world.machines.values() for name in machines} == before
    assert standing(world) == PLACES


def test_who_was_called_by_the_headquarters_before_may_still_come() -> None:
    world = with_standbys()
    dead = world.server(NAME).node
    world.kill(NAME)
    world.until(lambda: world.server(NAME).tier is Tier.RED, 400, 1.0)
    (called,) = [i for i in world.fleet.state.intents.values() if i.warm]
    world.dumb.add(called.id)
    world.run(2, 1.0)
    world.now += 3 * STANDBY_SILENT_S
    world.restart()
    world.run(5, 1.0)
    world.dumb.discard(called.id)
    world.until(lambda: world.server(NAME).node != dead, 30, 1.0)
    assert ("amber", called.id) not in world.deleted
