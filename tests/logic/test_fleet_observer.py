"""The relay-side half of detection, at the seed's exact boundaries."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.limits import (
    GROUPS_MAX,
    PROBE_IDLE_PERIOD_S,
    PROBE_PERIOD_S,
    REGIONS_MAX,
    REPORTERS_MAX,
)
from holdfast.logic.fleet.model import Tier
from holdfast.logic.fleet.observer import (
    Active,
    AlertOut,
    Observer,
    Peer,
    Peers,
    Probed,
    Reported,
    StartProbing,
    StopProbing,
    Tick,
    unix_s,
)

SLOT, OTHER_SLOT = b"s" * 16, b"t" * 16
NODE, NEXT_NODE = b"n" * 32, b"m" * 32
NAME = "relay-eu-002"


def tag(index: int) -> bytes:
    return index.to_bytes(32, "big")


def observer(active: int = 1_000, *, region: str = "eu", peer_region: str = "eu") -> Observer:
    """An observer with one peer and `active` tags on the shared slot at time 0."""
    machine = Observer(region)
    machine.step(Peers((Peer(NAME, NODE, peer_region, (SLOT,)),)), 0.0)
    for index in range(active):
        machine.step(Active(tag(index), SLOT), 0.0)
    return machine


def alerts(effects) -> list[AlertOut]:
    return [item for item in effects.send if isinstance(item, AlertOut)]


def probe(machine: Observer, at: float, ok: bool = False):
    return machine.step(Probed(NAME, NODE, ok, at), at)


# --- seed 004 §4.1 -------------------------------------------------------------------------------
def test_seed_004_4_1_more_than_ten_unique_clients() -> None:
    """seed 004 §4.1: ten clients are not enough, the eleventh makes YELLOW."""
    machine = observer()
    for index in range(10):
        machine.step(Reported(tag(index), NAME, "eu"), 1.0)
    assert machine.tier(NAME) is Tier.GREEN
    effects = machine.step(Reported(tag(10), NAME, "ap"), 2.0)
    assert machine.tier(NAME) is Tier.YELLOW
    assert effects.send[0] == StartProbing(NAME, NODE, PROBE_PERIOD_S)
    (alert,) = alerts(effects)
    assert alert.clients == 11
    assert alert.regions == ("ap", "eu")
    assert alert.first_reported_at == 1.0


def test_seed_004_4_1_the_same_client_counts_once() -> None:
    """seed 004 §4.1: unique clients."""
    machine = observer()
    for second in range(100):
        machine.step(Reported(tag(1), NAME, "eu"), float(second))
    assert machine.tier(NAME) is Tier.GREEN


@pytest.mark.parametrize(("at", "tier"), [(119.0, Tier.YELLOW), (121.0, Tier.GREEN)])
def test_seed_004_4_1_within_two_minutes(at: float, tier: Tier) -> None:
    """seed 004 §4.1: at 119 s the first report still counts, at 121 s it has left the window."""
    machine = observer()
    for index in range(10):
        machine.step(Reported(tag(index), NAME, "eu"), 0.0)
    machine.step(Reported(tag(10), NAME, "eu"), at)
    assert machine.tier(NAME) is tier


def test_seed_004_4_1_yellow_clears_by_itself_and_says_so() -> None:
    machine = observer()
    for index in range(11):
        machine.step(Reported(tag(index), NAME, "eu"), 0.0)
    assert not alerts(machine.step(Tick(), 29.0))
    assert [alert.tier for alert in alerts(machine.step(Tick(), 30.0))] == [Tier.YELLOW]
    effects = machine.step(Tick(), 121.0)
    assert [alert.tier for alert in alerts(effects)] == [Tier.GREEN]
    assert StartProbing(NAME, NODE, PROBE_IDLE_PERIOD_S) in effects.send
    assert not machine.step(Tick(), 200.0).send


# --- ADR 0002: small relays ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("active", "needed"), [(0, 2), (5, 2), (10, 2), (11, 3), (50, 10), (51, 11), (5_000, 11)]
)
def test_small_relay_needs_a_fifth_of_the_active_tags(active: int, needed: int) -> None:
    """ADR 0002: a fifth of those active, two at least, never more than the seed's eleven."""
    machine = observer(active)
    for index in range(needed - 1):
        machine.step(Reported(tag(index), NAME, "eu"), 1.0)
    assert machine.tier(NAME) is Tier.GREEN
    machine.step(Reported(tag(needed), NAME, "eu"), 1.0)
    assert machine.tier(NAME) is Tier.YELLOW


def test_only_tags_on_shared_slots_count_as_active_and_only_for_a_while() -> None:
    machine = observer(40)
    for index in range(100, 200):
        machine.step(Active(tag(index), OTHER_SLOT), 0.0)
    alert = alerts(_yellow(machine, 1.0))[0]
    assert alert.clients_active == 40
    late = observer(40)
    alert = alerts(_yellow(late, 601.0))[0]
    assert alert.clients_active == 0


def _yellow(machine: Observer, at: float):
    for index in range(11):
        effects = machine.step(Reported(tag(index), NAME, "eu"), at)
        if alerts(effects):
            return effects
    raise AssertionError("no alert")


def test_two_failed_probes_make_yellow_with_no_client_in_sight() -> None:
    """ADR 0002: every peer is probed once a minute even when GREEN."""
    machine = Observer("eu")
    effects = machine.step(Peers((Peer(NAME, NODE, "eu", (SLOT,)),)), 0.0)
    assert effects.send == (StartProbing(NAME, NODE, PROBE_IDLE_PERIOD_S),)
    probe(machine, 0.0)
    assert machine.tier(NAME) is Tier.GREEN
    effects = probe(machine, 60.0)
    assert machine.tier(NAME) is Tier.YELLOW
    assert StartProbing(NAME, NODE, PROBE_PERIOD_S) in effects.send


# --- seed 004 §4.2 -------------------------------------------------------------------------------
def test_seed_004_4_2_three_consecutive_failures() -> None:
    """seed 004 §4.2: two checks are not enough, the third makes ORANGE."""
    machine = observer()
    probe(machine, 1.0)
    probe(machine, 31.0)
    assert machine.tier(NAME) is Tier.YELLOW
    effects = probe(machine, 61.0)
    assert machine.tier(NAME) is Tier.ORANGE
    (alert,) = alerts(effects)
    assert (alert.probe_ok, alert.probe_failures, alert.first_failed_at) == (False, 3, 1.0)


def test_seed_004_4_2_one_success_resets() -> None:
    """seed 004 §4.2: consecutive means that a success between starts again."""
    machine = observer()
    for at in (1.0, 31.0):
        probe(machine, at)
    effects = probe(machine, 61.0, ok=True)
    assert [alert.tier for alert in alerts(effects)] == [Tier.GREEN]
    for at in (91.0, 121.0):
        probe(machine, at)
    assert machine.tier(NAME) is Tier.YELLOW
    probe(machine, 151.0)
    assert machine.tier(NAME) is Tier.ORANGE


def test_failures_in_one_instant_are_one_failure() -> None:
    machine = observer()
    for step in range(50):
        probe(machine, 1.0 + step / 10)
    assert machine.tier(NAME) is Tier.GREEN


def test_seed_004_4_2_region_specific_failure_stays_yellow() -> None:
    """seed 004 §4.2: ORANGE needs evidence from more than one region where more are known."""
    machine = observer(region="eu", peer_region="ap")
    for at in (1.0, 31.0, 61.0):
        probe(machine, at)
    assert machine.tier(NAME) is Tier.YELLOW
    machine.step(Reported(tag(1), NAME, "ap"), 62.0)
    assert machine.tier(NAME) is Tier.ORANGE


# --- seed 004 §4.3 -------------------------------------------------------------------------------
@pytest.mark.parametrize(("last", "tier"), [(300.0, Tier.ORANGE), (301.0, Tier.RED)])
def test_seed_004_4_3_five_minutes_of_continuous_failure(last: float, tier: Tier) -> None:
    """seed 004 §4.3: at 299 s since the first failure ORANGE, at 300 s this server says RED."""
    machine = observer()
    for at in range(1, 272, 30):
        probe(machine, float(at))
    probe(machine, last)
    assert machine.tier(NAME) is tier


def test_silence_of_the_prober_is_no_confirmation() -> None:
    """RED takes a failed probe at five minutes, not five minutes without a probe."""
    machine = observer()
    for at in (1.0, 31.0, 61.0):
        probe(machine, at)
    machine.step(Tick(), 10_000.0)
    assert machine.tier(NAME) is Tier.ORANGE


# --- Forged reports ------------------------------------------------------------------------------
@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5_000), st.floats(0.1, 20.0)), max_size=200))
def test_forged_reports_alone_never_pass_yellow(reports: list[tuple[int, float]]) -> None:
    """seed 004 §9.1: a healthy relay answers probes whatever clients claim."""
    machine, now = observer(10), 0.0
    for index, gap in reports:
        now += gap
        machine.step(Reported(tag(index), NAME, f"region-{index}"), now)
        probe(machine, now, ok=True)
        assert machine.tier(NAME) in {Tier.GREEN, Tier.YELLOW}


def test_memory_is_bounded_under_a_flood() -> None:
    machine = observer(0)
    for index in range(20_000):
        machine.step(Reported(tag(index), NAME, f"r{index}"), 1.0)
        machine.step(Reported(tag(index), f"made-up-{index}", "eu"), 1.0)
        machine.step(Active(tag(index), SLOT), 1.0)
        machine.step(Active(tag(index), tag(index)[:16]), 1.0)
    assert len(machine._watches) == 1
    assert len(machine._watches[NAME].reports) == REPORTERS_MAX
    assert len(machine._regions_at) == REGIONS_MAX
    assert len(machine._active) == GROUPS_MAX
    machine.step(Active(tag(30_000), SLOT), 700.0)
    assert len(machine._active) == 1


# --- Peers ---------------------------------------------------------------------------------------
def test_a_replacement_starts_with_a_clean_sheet() -> None:
    machine = observer()
    for at in (1.0, 31.0, 61.0):
        probe(machine, at)
    effects = machine.step(Peers((Peer(NAME, NEXT_NODE, "eu", (SLOT,)),)), 70.0)
    assert effects.send == (StartProbing(NAME, NEXT_NODE, PROBE_IDLE_PERIOD_S),)
    assert machine.tier(NAME) is Tier.GREEN
    assert not machine.step(Probed(NAME, NODE, False, 61.0), 71.0).send, (
        "a late probe of the old node"
    )


def test_a_peer_that_leaves_is_probed_no_more() -> None:
    machine = observer()
    assert machine.step(Peers(()), 1.0).send == (StopProbing(NAME),)
    assert machine.tier(NAME) is Tier.GREEN
    assert not machine.step(Reported(tag(1), NAME, "eu"), 2.0).send


def test_alerts_repeat_every_thirty_seconds_while_not_green() -> None:
    machine = observer()
    probe(machine, 1.0)
    effects = probe(machine, 31.0)
    assert effects.timers == (61.0,)
    assert len(alerts(machine.step(Tick(), 60.0))) == 0
    assert len(alerts(machine.step(Tick(), 61.0))) == 1
    assert len(alerts(probe(machine, 61.5))) == 1, "ORANGE: a change is told at once"


def test_unix_time_of_a_scaled_moment() -> None:
    assert unix_s(0.0, 500.0, 1_000.0, 10.0) == 0.0
    assert unix_s(400.0, 500.0, 1_000.0, 10.0) == 990.0
