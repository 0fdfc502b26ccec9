"""A release on its way through the fleet: canary, soak, halt, back (ADR 0041)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.errors import UsageError
from holdfast.logic.fleet.model import Tier
from holdfast.logic.fleet.rollout import TABLE, Pace, Rollout, Seen, Word
from holdfast.logic.fleet.rollout_rows import (
    Phase,
    PlaceRow,
    RolloutRow,
    RolloutState,
    default_release,
)

OLD, NEW = b"", b"n" * 32
PACE = Pace(doubt_s=90.0, overdue_s=1_000.0, watch_s=390.0)
SOAK_S = 300.0
SLOTS = {"eu": b"e" * 16, "ap": b"a" * 16}


def rollout_row(**changes: Any) -> RolloutRow:
    row = RolloutRow("r1", NEW, OLD, "eu", RolloutState.CANARY, "ann", 0.0, 1, SOAK_S)
    return replace(row, **changes)


class Fleet:
    """Servers that obey, each after a while, and the machine that tells them."""

    def __init__(self, each: int = 3, **changes: Any) -> None:
        self.seen = {
            f"relay-{region}-{n:03}": Seen(
                f"relay-{region}-{n:03}", region, frozenset({slot}), Tier.GREEN, release=OLD
            )
            for region, slot in SLOTS.items()
            for n in range(each)
        }
        self.rollout = Rollout(PACE, None)
        self.rollout.start(rollout_row(**changes))
        self.now = 1_000.0
        self.upgraded: list[str] = []
        self.verbs: list[str] = []
        self.busy_max = 0
        self.ill: Callable[[Seen], Seen] = lambda server: server
        """What the new release does to a server."""

    def phases(self) -> dict[str, Phase]:
        return {n: p.phase for n, p in self.rollout.places.items()}

    def obey(self) -> None:
        for name, place in self.rollout.places.items():
            server = self.seen.get(name)
            if server and place.ordered_at and server.release != place.release:
                new = replace(server, release=place.release, refused=b"")
                self.seen[name] = self.ill(new) if place.release == NEW else self._cured(new)
                if place.release == NEW:
                    self.upgraded.append(name)

    @staticmethod
    def _cured(server: Seen) -> Seen:
        return replace(server, tier=Tier.GREEN, faults_share=0.0, gray=False, silent=False)

    def turn(self, seconds: float = 30.0) -> None:
        self.now += seconds
        effects = self.rollout.step(list(self.seen.values()), self.now)
        self.verbs += [line.verb for line in effects.audit]
        phases = self.phases().values()
        self.busy_max = max(self.busy_max, sum(p is Phase.ORDERED for p in phases))
        self.obey()

    def until(self, state: RolloutState, turns: int = 500) -> None:
        for _ in range(turns):
            if self.state is state:
                return
            self.turn()
        raise AssertionError(f"{self.state} and not {state}: {self.phases()}")

    @property
    def state(self) -> RolloutState:
        assert self.rollout.row is not None
        return self.rollout.row.state


def test_the_canary_region_goes_first_and_then_one_server_after_another() -> None:
    fleet = Fleet()
    fleet.until(RolloutState.DONE)
    assert [name[6:8] for name in fleet.upgraded] == ["eu"] * 3 + ["ap"] * 3
    assert fleet.busy_max == 1
    assert set(fleet.phases().values()) == {Phase.KEPT}
    assert fleet.now - 1_000 >= 6 * SOAK_S, "each soaks"
    assert default_release(fleet.rollout.row) == NEW, "who joins later runs it too"


def test_never_two_servers_of_one_slot() -> None:
    fleet = Fleet(at_once=6)
    fleet.until(RolloutState.DONE)
    assert fleet.busy_max == 1, "a region is one slot here"


def test_servers_of_different_slots_go_together() -> None:
    fleet = Fleet(at_once=2)
    for index, (name, server) in enumerate(fleet.seen.items()):
        fleet.seen[name] = replace(server, slots=frozenset({bytes([index]) * 16}))
    fleet.until(RolloutState.DONE)
    assert fleet.busy_max == 2


def test_a_slot_that_lacks_a_server_is_left_alone() -> None:
    fleet = Fleet()
    lame = "relay-eu-002"
    fleet.seen[lame] = replace(fleet.seen[lame], tier=Tier.RED)
    for _ in range(100):
        fleet.turn()
    assert fleet.upgraded == []
    fleet.seen[lame] = replace(fleet.seen[lame], tier=Tier.GREEN)
    fleet.until(RolloutState.DONE)


REGRESSIONS: dict[str, Callable[[Seen], Seen]] = {
    "refused it": lambda s: replace(s, release=OLD, refused=NEW, refused_why="it died"),
    "is red": lambda s: replace(s, tier=Tier.RED),
    "cannot write": lambda s: replace(s, gray=True),
    "is silent": lambda s: replace(s, silent=True),
    "of its requests": lambda s: replace(s, faults_share=0.5),
    "not well on it": lambda s: replace(s, filled=False),
    "well on it in time": lambda s: replace(s, proved=False),
    "does not run it": lambda s: replace(s, release=OLD),
}


@pytest.mark.parametrize("why", REGRESSIONS)
def test_a_regression_stops_at_the_first_server_and_is_taken_back(why: str) -> None:
    """The issue: a poison configuration stops at the canary."""
    fleet = Fleet()
    fleet.ill = REGRESSIONS[why]
    fleet.until(RolloutState.BACKED)
    assert set(fleet.upgraded) == {"relay-eu-000"}
    assert fleet.rollout.row is not None
    assert why in fleet.rollout.row.reason
    assert fleet.rollout.places["relay-eu-000"].release == OLD
    assert default_release(fleet.rollout.row) == OLD


def test_control_without_the_halt_rule_the_poison_spreads() -> None:
    fleet = Fleet(halting=False)
    fleet.ill = lambda s: replace(s, faults_share=0.9)
    fleet.until(RolloutState.DONE)
    assert len(set(fleet.upgraded)) == 6


def test_a_late_regression_takes_back_what_was_kept() -> None:
    fleet = Fleet()
    fleet.until(RolloutState.ROLLING)
    fleet.seen["relay-eu-001"] = replace(fleet.seen["relay-eu-001"], tier=Tier.RED)
    fleet.until(RolloutState.BACKED)
    assert {server.release for server in fleet.seen.values()} == {OLD}


def test_a_doubt_that_passes_only_starts_the_soak_again() -> None:
    fleet = Fleet(soak_s=300.0)
    fleet.turn()
    fleet.turn()
    first = "relay-eu-000"
    fleet.seen[first] = replace(fleet.seen[first], silent=True)
    fleet.turn(30.0)
    fleet.turn(30.0)
    fleet.seen[first] = replace(fleet.seen[first], silent=False)
    fleet.turn(30.0)
    fleet.turn(290.0)
    assert fleet.phases()[first] is Phase.ORDERED, "the soak began when the doubt was over"
    fleet.turn(20.0)
    assert fleet.phases()[first] is Phase.KEPT


def test_faults_are_held_against_what_they_were_before() -> None:
    fleet = Fleet()
    for name, server in fleet.seen.items():
        fleet.seen[name] = replace(server, faults_share=0.3)
    fleet.until(RolloutState.DONE)


def test_an_owner_defers_and_holds_nobody_up() -> None:
    fleet = Fleet()
    late = "relay-eu-001"
    fleet.seen[late] = replace(fleet.seen[late], deferred_until=50_000.0)
    fleet.until(RolloutState.DONE)
    assert late not in fleet.upgraded
    assert len(fleet.upgraded) == 5
    fleet.now = 50_000.0
    fleet.turn()
    assert fleet.state is RolloutState.ROLLING
    fleet.until(RolloutState.DONE)
    assert fleet.upgraded[-1] == late


def test_a_required_release_overrules_an_operators_deferral_and_no_owners() -> None:
    fleet = Fleet(required_at=20_000.0)
    owners, operators = "relay-ap-000", "relay-ap-001"
    fleet.seen[owners] = replace(fleet.seen[owners], deferred_until=90_000.0)
    fleet.rollout.defer(operators, 90_000.0, "ann")
    fleet.until(RolloutState.DONE)
    assert {owners, operators}.isdisjoint(fleet.upgraded)
    fleet.now = 20_000.0
    fleet.turn()
    fleet.until(RolloutState.DONE)
    assert operators in fleet.upgraded
    assert owners not in fleet.upgraded


def test_halt_resume_and_back_are_an_operators_words() -> None:
    fleet = Fleet()
    fleet.turn()
    fleet.rollout.order(Word.HALT, "ann")
    before = list(fleet.upgraded)
    for _ in range(50):
        fleet.turn()
    assert fleet.upgraded == before
    fleet.rollout.order(Word.RESUME, "ann")
    fleet.until(RolloutState.DONE)
    fleet.rollout.order(Word.GO_BACK, "ann", "we liked the old one")
    fleet.until(RolloutState.BACKED)
    assert {server.release for server in fleet.seen.values()} == {OLD}
    with pytest.raises(UsageError, match="backed"):
        fleet.rollout.order(Word.RESUME, "ann")


@pytest.mark.parametrize("tier", [Tier.YELLOW, Tier.ORANGE])
def test_what_one_peer_says_is_no_regression(tier: Tier) -> None:
    """One witness can make a server ORANGE (seed 004 §4.2), never RED (§4.3)."""
    fleet = Fleet()
    fleet.ill = lambda s: replace(s, tier=tier)
    fleet.until(RolloutState.DONE)
    assert fleet.now - 1_000 >= 6 * PACE.watch_s, "but each is watched until the tiers know"


def test_a_short_soak_does_not_outrun_the_tiers() -> None:
    fleet = Fleet(soak_s=60.0)
    fleet.ill = lambda s: replace(s, tier=Tier.YELLOW)
    first = "relay-eu-000"
    for _ in range(10):
        fleet.turn()
    fleet.seen[first] = replace(fleet.seen[first], tier=Tier.RED)
    fleet.until(RolloutState.BACKED)
    assert fleet.upgraded == [first]


def test_who_is_ordered_and_puts_it_off_waits_and_is_never_overdue() -> None:
    fleet = Fleet()
    late = "relay-eu-000"
    fleet.ill = lambda s: replace(s, release=OLD) if s.name == late else s
    fleet.turn()
    assert fleet.phases() == {late: Phase.ORDERED}
    fleet.seen[late] = replace(fleet.seen[late], deferred_until=50_000.0)
    fleet.until(RolloutState.DONE)
    assert (fleet.phases()[late], fleet.rollout.places[late].release) == (Phase.WAITING, OLD)
    assert "rollout.regression" not in fleet.verbs


def test_nobody_is_ordered_who_was_not_heard() -> None:
    """It may defer: only its heartbeats say so."""
    fleet = Fleet()
    for name, server in fleet.seen.items():
        fleet.seen[name] = replace(server, release=None)
    for _ in range(10):
        fleet.turn()
    assert not fleet.phases()


def test_a_new_process_counts_deadlines_anew() -> None:
    fleet = Fleet()
    fleet.turn()
    first = "relay-eu-000"
    fleet.seen[first] = replace(fleet.seen[first], release=None)
    fleet.now += PACE.overdue_s + SOAK_S
    fleet.rollout = Rollout(PACE, fleet.rollout.row, fleet.rollout.places, began=fleet.now)
    fleet.rollout.step(list(fleet.seen.values()), fleet.now + 1.0)
    assert fleet.state is RolloutState.CANARY
    fleet.now += PACE.overdue_s + SOAK_S
    fleet.rollout.step(list(fleet.seen.values()), fleet.now)
    assert fleet.state is RolloutState.BACK, "its own time counts"


@pytest.mark.parametrize(
    "changes", [{"filled": False}, {"tier": Tier.RED}, {"moving": True}, {"release": None}]
)
def test_the_unfit_are_passed_over_and_hold_nobody_up(changes: dict[str, Any]) -> None:
    fleet = Fleet()
    for index, (name, server) in enumerate(fleet.seen.items()):
        fleet.seen[name] = replace(server, slots=frozenset({bytes([index]) * 16}))
    unfit = "relay-eu-001"
    well = fleet.seen[unfit]
    fleet.seen[unfit] = replace(well, **changes)
    for _ in range(200):
        fleet.turn()
    assert set(fleet.upgraded) == set(fleet.seen) - {unfit}
    assert fleet.state is RolloutState.ROLLING, "and it is not done without it"
    assert fleet.rollout.passed_over == {unfit}
    fleet.seen[unfit] = well
    fleet.until(RolloutState.DONE)
    assert not fleet.rollout.passed_over


def test_on_the_way_back_no_second_server_of_a_slot_is_taken() -> None:
    fleet = Fleet()
    fleet.until(RolloutState.DONE)
    ill = "relay-eu-001"
    fleet.seen[ill] = replace(fleet.seen[ill], silent=True, tier=Tier.RED)
    fleet.ill = lambda s: s
    fleet.rollout.order(Word.GO_BACK, "ann")

    def back() -> set[str]:
        return {n for n, phase in fleet.phases().items() if phase is Phase.BACK}

    fleet.rollout.step(list(fleet.seen.values()), fleet.now)
    assert back() == {ill}, "the ill first"
    for _ in range(60):  # it never answers
        fleet.now += 30.0
        fleet.rollout.step(list(fleet.seen.values()), fleet.now)
        for name in back() - {ill}:
            fleet.seen[name] = replace(fleet.seen[name], release=OLD)
    eu = {name for name in fleet.seen if "-eu-" in name} - {ill}
    assert {fleet.seen[name].release for name in eu} == {NEW}
    assert {s.release for s in fleet.seen.values() if s.region == "ap"} == {OLD}

    # That cannot end: another release may cut it short, and takes back what this one left.
    third = b"t" * 32
    fleet.rollout.start(rollout_row(id="r2", release=third))
    fleet.rollout.step(list(fleet.seen.values()), fleet.now)
    fleet.seen[ill] = replace(fleet.seen[ill], silent=False, tier=Tier.GREEN, release=OLD)
    fleet.rollout.order(Word.GO_BACK, "ann")
    fleet.until(RolloutState.BACKED)
    assert {server.release for server in fleet.seen.values()} == {OLD}


def test_who_went_back_by_itself_ends_the_way_back_whatever_else_is_down() -> None:
    fleet = Fleet()
    fleet.ill = REGRESSIONS["refused it"]
    fleet.turn()
    mate = "relay-eu-001"
    fleet.seen[mate] = replace(fleet.seen[mate], tier=Tier.RED)
    fleet.until(RolloutState.BACKED)


def test_whoever_is_away_on_the_way_back_finds_the_old_release() -> None:
    fleet = Fleet()
    fleet.until(RolloutState.DONE)
    away = fleet.seen.pop("relay-ap-002")
    fleet.rollout.order(Word.GO_BACK, "ann")
    fleet.until(RolloutState.BACKED)
    assert fleet.rollout.places[away.name].release == OLD


def test_a_place_of_another_rollout_is_waiting() -> None:
    """A start is one row: no crash leaves half of it."""
    fleet = Fleet()
    fleet.until(RolloutState.DONE)
    effects = fleet.rollout.start(rollout_row(id="r2", release=b"t" * 32, back_to=NEW))
    assert len(effects.persist) == 1
    assert {fleet.rollout.place(name).phase for name in fleet.seen} == {Phase.WAITING}
    assert {fleet.rollout.place(name).release for name in fleet.seen} == {NEW}


def test_one_rollout_at_a_time_and_only_to_something_else() -> None:
    fleet = Fleet()
    with pytest.raises(UsageError, match="canary"):
        fleet.rollout.start(rollout_row(id="r2"))
    fleet.until(RolloutState.DONE)
    with pytest.raises(UsageError, match="already"):
        fleet.rollout.start(rollout_row(id="r2", back_to=NEW))


def test_a_server_that_joins_after_the_rollout_is_no_news() -> None:
    fleet = Fleet()
    fleet.until(RolloutState.DONE)
    fleet.seen["relay-eu-009"] = replace(
        fleet.seen["relay-eu-000"], name="relay-eu-009", release=NEW
    )
    fleet.turn()
    assert fleet.state is RolloutState.DONE
    assert fleet.rollout.places["relay-eu-009"] == PlaceRow(
        "relay-eu-009", NEW, Phase.KEPT, rollout="r1"
    )


def test_every_state_has_a_way_on_but_the_last() -> None:
    assert {state for state, _ in TABLE} == set(RolloutState) - {RolloutState.BACKED}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=60), st.integers(1, 6))
def test_whatever_fails_when_two_of_a_slot_never_change_at_once(
    story: list[tuple[int, int]], at_once: int
) -> None:
    """Also when HQ starts anew from the rows in the middle."""
    fleet = Fleet(at_once=at_once)
    names = sorted(fleet.seen)
    for index, what in story:
        name = names[index]
        if what == 0:
            fleet.seen[name] = replace(fleet.seen[name], tier=Tier.RED)
        elif what == 1:
            fleet.seen[name] = replace(fleet.seen[name], tier=Tier.GREEN, gray=False)
        elif what == 2:
            fleet.seen[name] = replace(fleet.seen[name], gray=True)
        elif what == 3:
            fleet.rollout = Rollout(PACE, fleet.rollout.row, fleet.rollout.places)
        fleet.turn()
        for phase in (Phase.ORDERED, Phase.BACK):
            moving = [n for n, p in fleet.rollout.places.items() if p.phase is phase]
            fresh = [n for n in moving if fleet.now - fleet.rollout.places[n].ordered_at < 1_000]
            slots = [slot for n in fresh for slot in fleet.seen[n].slots]
            assert len(slots) == len(set(slots)), f"two of a slot are {phase}"
            assert len(fresh) <= at_once
