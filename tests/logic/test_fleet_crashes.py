"""HQ dies at every boundary, is lied to, and is replayed: the end is always the same."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.logic.fleet_world import (
    START,
    World,
    counted_debts,
    debts,
    failing,
    launched,
)

from holdfast.logic.fleet import events
from holdfast.logic.fleet.model import Tier
from holdfast.logic.fleet.rows import IntentRow, IntentState, NodeState
from holdfast.logic.fleet.tiers import Witnessed

NAME = "relay-eu-001"
LAUNCH = 12


# --- Crashes -------------------------------------------------------------------------------------
def boundaries() -> int:
    world = World(regions=("eu",))
    launch_and_story(world)
    return world.boundaries


def launch_and_story(world: World) -> None:
    """Launch, one death, a provider lost and back: everything healing does."""
    world.step(events.Launch(world.providers, world.regions))
    world.until(world.is_whole, 3_000)
    world.kill("replica-eu-002")
    world.run(10)
    world.until(lambda: world.is_whole() and not world.fleet.state.down, 4_000)
    nodes = world.lose("amber")
    world.until(lambda: "amber" not in {r.provider for r in world.servers.values()}, 4_000)
    world.until(world.is_whole, 4_000)
    world.bring_back("amber", nodes)
    world.until(lambda: not world.fleet.state.debts, 9_000)
    world.until(world.is_whole, 4_000)
    world.run(300)


def check_story(world: World) -> None:
    """What must be true at the end, counted from outside HQ, however often it died."""
    assert counted_debts(world) == debts(world) == 0
    names = [intent.rsplit("-", 1)[0] for _, intent in world.created]
    assert Counter(names) == {
        "relay-eu-001": 3,
        "replica-eu-001": 3,
        "relay-eu-002": 1,
        "replica-eu-002": 2,
        "relay-eu-003": 1,
        "replica-eu-003": 1,
    }
    assert sum(map(len, world.machines.values())) == 6, "no machine is left over"
    seated = {row.node for row in world.servers.values()}
    for node, row in world.nodes.items():
        state = world.stored(node).state
        assert state is (NodeState.ACTIVE if node in seated else NodeState.RETIRED), row.name
    assert all(
        row.state in (IntentState.DONE, IntentState.FAILED)
        for row in world.rows.values()
        if isinstance(row, IntentRow)
    )


def test_the_story_without_a_crash() -> None:
    world = World(regions=("eu",))
    launch_and_story(world)
    check_story(world)
    assert world.restarts == 0


def crash_at_each(points: range) -> None:
    for crash_at in points:
        world = World(regions=("eu",), crash_at=crash_at)
        launch_and_story_again(world)
        assert world.restarts == 1, crash_at
        check_story(world)


def test_hq_restarted_between_two_steps_continues() -> None:
    """D25: HQ dies at a boundary of the story; the end is the same. Every thirteenth, here."""
    last = boundaries()
    assert last > 1_000
    crash_at_each(range(1, last + 1, 13))


@pytest.mark.campaign
@pytest.mark.parametrize("part", range(8))
def test_hq_restarted_between_any_two_steps_continues(part: int) -> None:
    """D25: HQ dies at every single boundary of the story, once each."""
    crash_at_each(range(1 + part, boundaries() + 1, 8))


def launch_and_story_again(world: World) -> None:
    """The story, with an operator who repeats the launch command if HQ died under it."""
    world.step(events.Launch(world.providers, world.regions))
    if world.restarts:
        world.step(events.Launch(world.providers, world.regions))
    launch_and_story(world)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=12))
def test_hq_restarted_many_times_continues(gaps: list[int]) -> None:
    world = World(regions=("eu",))
    queue = list(gaps)

    class Fragile(World):
        pass

    world.__class__ = Fragile
    step, count = World.step, 0

    def fragile(self: World, event: events.Event) -> None:
        nonlocal count
        count += 1
        step(self, event)
        if queue and count >= queue[0]:
            queue.pop(0)
            count = 0
            self.restart()

    Fragile.step = fragile  # type: ignore[method-assign]
    launch_and_story_again(world)
    check_story(world)


# --- Lies ----------------------------------------------------------------------------------------
@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_lying_minorities_and_forged_reports_spawn_nothing(random: object) -> None:
    """One liar among five peers, shouting anything about anyone, moves nothing past ORANGE."""
    world = launched(regions=("eu",))
    liar = world.server("relay-eu-003").node
    others = [row for row in world.servers.values() if row.node != liar]
    for _ in range(200):
        row = random.choice(others)  # type: ignore[attr-defined]
        kind = random.random()  # type: ignore[attr-defined]
        if kind < 0.5:
            said = failing(liar, row.name, row.node, 10_000.0)
        else:
            said = Witnessed(liar, row.name, row.node, Tier.RED, clients=10**6)
        world.step(said)
        world.run(5)
    assert Tier.RED not in world.tiers().values()
    assert len(world.created) == 6


# --- The same every time -------------------------------------------------------------------------
def test_the_trace_does_not_depend_on_hash_seeds() -> None:
    """Same events, same trace: what the simulator stands on."""
    script = (
        "import sys, hashlib; sys.path.insert(0, sys.argv[1])\n"
        "from tests.logic.test_fleet_crashes import World, launch_and_story\n"
        "w = World(regions=('eu',)); launch_and_story(w)\n"
        "text = repr(w.audit) + repr(w.rows)\n"
        "print(hashlib.sha256(text.encode()).hexdigest())\n"
    )
    root = str(Path(__file__).parents[2])
    digests = {
        subprocess.run(
            [sys.executable, "-c", script, root],
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(digests) == 1
    assert START > 0
