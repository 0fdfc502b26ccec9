"""What headquarters does not do: spawn for a fleet it is cut off from (D29), or act on old news."""

from __future__ import annotations

import pytest
from tests.logic.fleet_world import World, counted_debts, debts, launched

from holdfast.crypto.pure import hash_bytes
from holdfast.logic.fleet import events
from holdfast.logic.fleet.model import Role, Tier
from holdfast.logic.fleet.rows import NodeRow

NAME = "relay-eu-001"
LAUNCH = 12


# --- Hearsay -------------------------------------------------------------------------------------
def test_a_seat_is_not_given_away_on_the_word_of_an_hq_before_this_one() -> None:
    """The server was RED, its successor ordered; HQ restarts, and both speak. The successor may
    have the seat, but as in a drain: the server serves until the other is filled."""
    world = launched(spawn_s=120.0)
    old = world.server(NAME).node
    world.kill(NAME)
    world.until(lambda: len(world.created) > LAUNCH, 900)
    world.revive(old)
    world.now += 80
    world.restart()
    world.run(85)
    assert "node.joined" in world.verbs()
    assert world.server(NAME).node == old
    world.run(400)
    (line,) = world.lines("node.retired")
    assert line.detail["why"] == "superseded"


# --- Freeze (D29) --------------------------------------------------------------------------------
def test_hq_cut_off_from_everybody_freezes_and_spawns_nothing() -> None:
    """D29: when everything looks dead at once, HQ suspects itself; it lifts when two answer."""
    world = launched()
    world.mute |= world.alive
    world.until(lambda: world.fleet.guard.frozen, 200)
    (line,) = world.lines("freeze.began")
    assert line.detail["dead"] == LAUNCH
    world.run(3_600, 30)
    assert world.fleet.guard.frozen
    assert len(world.created) == LAUNCH
    amber = {n for n in world.mute if world.nodes[n].provider == "amber"}
    world.mute -= amber
    world.run(60)
    assert world.fleet.guard.frozen, "one provider is not enough"
    world.mute.clear()
    world.run(60)
    assert not world.fleet.guard.frozen
    assert world.lines("freeze.ended")
    assert len(world.created) == LAUNCH
    assert set(world.tiers().values()) == {Tier.GREEN}


def test_a_freeze_survives_a_restart_and_an_operator_lifts_it() -> None:
    """D29: two of three providers really die; only a person can tell."""
    world = launched()
    world.lose("amber")
    world.lose("birch")
    world.until(lambda: world.fleet.guard.frozen, 200)
    world.run(900)
    world.restart()
    assert world.fleet.guard.frozen
    world.run(300)
    assert len(world.created) == LAUNCH
    world.step(events.Confirm("ann"))
    assert not world.fleet.guard.frozen
    assert world.lines("freeze.ended")[-1].detail["author"] == "ann"
    world.until(world.is_whole, 4_000)
    assert {row.provider for row in world.servers.values()} == {"cedar"}
    assert counted_debts(world) == debts(world) == 128


def test_what_the_operator_confirmed_survives_a_restart() -> None:
    """D29: another HQ that takes the lead must not freeze again over the same loss."""
    world = launched()
    world.lose("amber")
    world.lose("birch")
    world.until(lambda: world.fleet.guard.frozen, 200)
    world.step(events.Confirm("ann"))
    assert world.fleet.guard.freeze is None, "shown as no freeze"
    world.restart()
    assert not world.fleet.guard.frozen
    world.until(world.is_whole, 4_000)
    assert len(world.lines("freeze.began")) == 1
    world.run(300)
    assert world.fleet.state.freeze is None, "the fleet looks alive: the next loss freezes anew"


def test_a_restart_takes_silence_it_cannot_know_of_for_no_sign_of_life() -> None:
    """A new HQ has not waited long enough to call anybody silent; that is not ALIVE."""
    world = launched()
    world.mute |= world.alive
    world.until(lambda: world.fleet.guard.frozen, 200)
    world.step(events.Confirm("ann"))
    world.restart()
    world.run(600)
    assert len(world.lines("freeze.began")) == 1


def test_an_hq_that_was_asleep_does_not_blame_the_fleet() -> None:
    """A stalled process or a suspended laptop: nobody was silent, HQ was deaf."""
    world = launched()
    world.now += 3_600.0
    world.step(events.Tick())
    world.run(120)
    assert not world.lines("freeze.began")
    world.mute |= world.alive
    world.until(lambda: world.fleet.guard.frozen, 200)


def entry(world: World, number: int) -> bytes:
    """Somebody's entry joins."""
    node = hash_bytes(b"entry%d" % number)
    row = NodeRow(node=node, identity=b"", name=f"entry-eu-{number:03d}", role=Role.ENTRY,
                  region="eu", provider="home", owner="bob", addresses=("10.0.0.1:1",),
                  serial=f"e{number}", cert_expires_at=0, joined_at=world.now,
                  cell="c")  # fmt: skip
    world.join_row(row)
    return node


@pytest.mark.parametrize("retired", [0, 8])
def test_entries_neither_hide_a_cut_nor_lift_a_freeze(retired: int) -> None:
    """D29: HQ and all of amber on one side of a cut; everybody lives. An entry beside them knows
    nothing of relays, and those that went long ago are no fleet."""
    world = launched()
    entry(world, 100)
    for number in range(retired):
        node = entry(world, number)
        world.run(5)
        world.step(events.Retire(node, "done"))
        world.alive.discard(node)
    world.run(400)
    far = {n for n in world.alive if world.nodes[n].provider in ("birch", "cedar")}
    world.mute |= far
    world.died_at |= dict.fromkeys(far, world.now)  # so say those of amber
    world.run(900)
    assert world.fleet.guard.frozen
    assert len(world.created) == LAUNCH


def test_half_of_one_provider_is_no_freeze() -> None:
    world = launched(providers=("amber", "birch"), regions=("eu",))
    world.lose("amber")
    world.run(600)
    assert not world.lines("freeze.began")
