"""What the simulator found in the fleet machine, each as the smallest story that shows it."""

from __future__ import annotations

from tests.logic.fleet_world import World, failing, launched

from holdfast.limits import SPAWN_PER_MIN_MAX
from holdfast.logic.fleet import events
from holdfast.logic.fleet.model import Tier

NAME = "relay-eu-001"


def test_whatever_comes_first_after_a_stall_makes_nobody_silent() -> None:
    """HQ stood still for three minutes. An alert was taken before the first tick, every server
    counted as silent for good, and HQ froze over a fleet that was well (campaign, seed 16)."""
    world = launched()
    world.run(60)
    world.now += 180.0
    node = world.server(NAME).node
    world.step(failing(world.server("relay-eu-002").node, NAME, node, 60.0))
    world.step(events.Tick())
    assert "freeze.began" not in world.verbs()
    assert world.fleet.liveness.overdue(world.now) == set()


def test_the_spawn_budget_outlives_a_restart() -> None:
    """The orders of the last minute are in the rows: an HQ that dies at once may not begin anew."""
    world = World(regions=("eu",))
    world.step(events.Launch(world.providers, world.regions, per_region=SPAWN_PER_MIN_MAX // 2))
    ordered = 0
    for _ in range(6):
        ordered += sum(isinstance(task, events.Order) for task in world.outbox)
        world._deliver()
        world.now += 5.0
        world.restart()
        world.step(events.Tick())
    assert ordered <= SPAWN_PER_MIN_MAX


def test_a_new_hq_does_not_act_on_what_the_last_one_wrote_down() -> None:
    """HQ was down for nine minutes, a RED server came back meanwhile, and the new HQ ordered a
    machine for it before it had heard anybody (campaign, seed 1011)."""
    world = launched()
    node = world.server(NAME).node
    world.api_up.clear()
    world.kill(NAME)
    world.until(lambda: world.server(NAME).tier is Tier.RED, 400)
    created = len(world.created)
    world.revive(node)
    world.now += 540.0
    world.api_up.update(world.providers)
    world.restart()
    world.run(300)
    assert world.server(NAME).tier is Tier.GREEN
    assert world.server(NAME).node == node
    assert len(world.created) == created
