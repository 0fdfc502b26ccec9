"""The simulated world: the same every time, judged from outside, and the judges have teeth."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from holdfast.limits import RED_FAILURE_S, SPAWN_PER_MIN_MAX
from holdfast.logic.fleet.rows import DebtRow
from holdfast.logic.fleet.tiers import Signal, Tiers
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import Dice
from holdfast.sim.world.absence import Absence
from holdfast.sim.world.chance import Chance
from holdfast.sim.world.crowd import Crowd
from holdfast.sim.world.day import Day, Plan, cohorts_agree
from holdfast.sim.world.fleet import Shape, World
from holdfast.sim.world.heal import Heal
from holdfast.sim.world.judges import Judge
from holdfast.sim.world.network import Network, NetworkOptions
from holdfast.sim.world.schedule import Schedule, Trace

SMALL = Shape(("amber", "birch", "cedar"), ("eu", "ap"), 3, 10)
HASH = """
from holdfast.rim.clock import SystemClock
from holdfast.sim.world.day import Day, Plan
print(Day(Plan(12, 600, 1.0, 7, provider_loss=True), SystemClock()).run().trace_hash)
"""


def day(seed: int = 1) -> Day:
    return Day(Plan(24, 500, 5.0, seed, provider_loss=True), SystemClock())


# --- The same every time -------------------------------------------------------------------------
def test_the_same_seed_gives_the_same_trace_under_any_hash_seed() -> None:
    hashes = set()
    for hash_seed in ("0", "1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", HASH],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        hashes.add(done.stdout.strip())
    assert len(hashes) == 1


def test_another_seed_gives_another_trace() -> None:
    hashes = [
        Day(Plan(12, 600, 0.2, seed, provider_loss=True), SystemClock()).run().trace_hash
        for seed in range(4)
    ]
    assert len(set(hashes)) == 4


def test_a_trace_refuses_what_has_no_order() -> None:
    with pytest.raises(TypeError):
        Trace().note(object())


def test_things_due_together_happen_in_the_order_they_were_asked_for() -> None:
    done: list[str] = []
    schedule = Schedule(0.0, Trace())
    for name in "abc":
        schedule.at(5.0, done.append, name)
    schedule.at(1.0, done.append, "first")
    schedule.run(5.0)
    assert done == ["first", "a", "b", "c"]
    assert schedule.now == 5.0


def test_the_calendar_keeps_to_the_order_of_one_long_list() -> None:
    """Things within a second, seconds apart, asked for while others happen, and after a jump."""
    dice, schedule = Dice(1), Schedule(100.25, Trace())
    done: list[float] = []

    def happen(left: int) -> None:
        done.append(schedule.now)
        for _ in range(left):
            schedule.after(dice.choice((-1.0, 0.0, 0.1, 0.9, 1.0, 7.3, 60.0)), happen, left - 1)

    for _ in range(20):
        schedule.at(100.0 + 5 * dice.random(), happen, 3)
    schedule.run(101.7)
    early = len(done)
    schedule.jump(1_000.5)
    schedule.run(1_400.0)
    assert 0 < early < len(done) == 20 * (1 + 3 + 6 + 6)
    assert done == sorted(done)
    assert done[0] >= 100.25
    assert not [at for at in done if 101.7 < at < 1_100.75]


# --- A day ---------------------------------------------------------------------------------------
def test_seed_004_4_4_a_day_with_a_provider_loss() -> None:
    """seed 004 §4.4: nobody falls below two; every seat is replaced; the debt is repaid."""
    report = day().run()
    assert report.held, report.complaint
    assert report.users_below_2 == report.false_spawns == report.diversity_violations == 0
    assert report.diversity_debt_peak > 0
    assert report.diversity_debt_end == 0
    assert report.spawns >= 8
    assert report.slow_nodes > 0
    assert report.forged_reports > 0
    assert report.spawns_peak_per_min <= SPAWN_PER_MIN_MAX


def test_users_as_cohorts_lead_to_the_same_tiers_and_spawns() -> None:
    assert cohorts_agree(3, SystemClock(), hours=0.6, relays=24, users=4_000)


def test_the_paths_that_users_remember_are_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at once and kept until something changes; at every contact they are what they were."""
    honest, compared = Crowd._contact, 0

    def checked(self, triple, slot, user, health, *, alone):  # type: ignore[no-untyped-def]
        nonlocal compared
        away = bool(slot.away[user])
        kept = triple.paths.get((slot.number, away))
        if kept is not None:
            compared += 1
            assert kept == self._look(triple, slot, away)
        honest(self, triple, slot, user, health, alone=alone)

    monkeypatch.setattr(Crowd, "_contact", checked)
    Day(Plan(24, 4_000, 1.0, 1, provider_loss=True), SystemClock()).run()
    assert compared > 500


# --- Judges have teeth ---------------------------------------------------------------------------
def test_a_spawn_for_a_living_server_is_judged_false(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: HQ that believes a single doubt orders machines for nothing."""
    honest = Tiers._signal

    def gullible(self, server, fresh, now):  # type: ignore[no-untyped-def]
        signal = honest(self, server, fresh, now)
        return Signal.CONFIRMED if signal is Signal.WATCHED else signal

    monkeypatch.setattr(Tiers, "_signal", gullible)
    report = day().run()
    assert report.false_spawns > 0
    assert not report.held


def test_two_dead_relays_of_a_slot_are_below_two() -> None:
    world = World(SMALL, 1)
    for server in [s for s in world.standing() if s.name.startswith("relay-eu")][:2]:
        world.kill(server)
    assert world.crowd.below_two_max == 16 * SMALL.users_per_slot


def test_a_debt_that_is_not_written_down_is_a_violation() -> None:
    world = World(SMALL, 1)
    judge = Judge(world)
    world.lose_provider("amber")
    world.schedule.run(world.schedule.now + 1_200.0)
    assert judge.debts_now() > 0
    assert judge.violations_silent == 0
    for key, row in list(world.hq.rows.items()):
        if isinstance(row, DebtRow):
            del world.hq.rows[key]
    world.schedule.run(world.schedule.now + 60.0)
    assert judge.violations_silent > 0


def test_a_freeze_over_a_fleet_that_is_well_is_judged_false() -> None:
    """Half of the share that makes HQ doubt itself is enough to doubt for."""
    world = World(SMALL, 1)
    judge = Judge(world)
    standing = world.standing()
    world.hq.on_freeze()
    assert judge.false_freezes == 1
    world.hq_cut_at = world.schedule.now
    world.hq.on_freeze()
    assert judge.false_freezes == 1, "HQ has just been cut off: its heartbeats are late"
    world.hq_cut_at = float("-inf")
    for server in standing[: len(standing) // 2]:
        world.kill(server)
    world.hq.on_freeze()
    assert judge.false_freezes == 1, "half of the fleet is out"


# --- The network ---------------------------------------------------------------------------------
def network(packet_loss_probability: float = 0.0) -> Network:
    options = NetworkOptions(packet_loss_probability=packet_loss_probability)
    return Network(options, Chance(1, Trace()))


def test_loss_costs_time_before_it_costs_the_call() -> None:
    lossy = network(packet_loss_probability=0.2)
    trips = [lossy.call(1, 2, 0.0, 10.0) for _ in range(2_000)]
    late = [trip.returns for trip in trips if trip.returns is not None and trip.returns > 0.2]
    assert len(late) > 400
    assert sum(trip.returns is None for trip in trips) < 20


def test_a_request_may_arrive_whose_reply_does_not() -> None:
    cut = network()
    pairs = cut.block([2], [1])
    trip = cut.call(1, 2, 0.0, 10.0)
    assert trip.arrives is not None
    assert trip.returns is None
    cut.unblock(pairs)
    assert cut.call(1, 2, 0.0, 10.0).returns is not None


def test_a_clogged_path_delivers_afterwards() -> None:
    clogged = network()
    clogged.clog(1, 2, 8.0)
    assert clogged.way(1, 2, 5.0, 10.0) == pytest.approx(3.02)
    assert clogged.way(1, 2, 5.0, 2.0) is None


# --- Nobody at home ------------------------------------------------------------------------------
def test_the_fleet_serves_while_headquarters_is_gone_and_the_grace_rule_is_why() -> None:
    """D6: certificates of 90 days, renewed at day 30, and a stale list that stops nothing."""
    kept = Absence(10.0, 8.0, 1, gone_from_day=1.0)
    kept.run()
    assert kept.handshakes > 0
    assert kept.failed == 0
    assert kept.lost() == 0
    refused = Absence(10.0, 12.0, 1, gone_from_day=1.0, grace=False)
    refused.run()
    assert refused.failed > 0


# --- Ten thousand deaths -------------------------------------------------------------------------
def test_one_spawn_for_each_death() -> None:
    report = Heal(12, 1, per_region=24).run()
    assert report.held
    assert report.deaths == 12
    assert report.sim_red_p50_s >= RED_FAILURE_S
    assert report.sim_restored_max_s <= 540.0, "ADR 0008: nine minutes at most"
