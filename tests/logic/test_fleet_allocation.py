"""Who gets which seat, and where replacements go: the seed's assignment rules (seed 004 §6.1)."""

from __future__ import annotations

from itertools import combinations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.logic.fleet_world import NETWORK, World, launched

from holdfast.errors import UsageError
from holdfast.limits import SLOTS_PER_TRIPLE
from holdfast.logic.fleet import events
from holdfast.logic.fleet.allocation import (
    Candidate,
    Piles,
    choose_replacement,
    conflicts,
    debtors,
    distance,
    has_headroom,
    nearest,
    pick,
    slot_debtors,
    violations,
)
from holdfast.logic.fleet.events import Granted
from holdfast.logic.fleet.model import OPERATOR, Load, Role, Tier
from holdfast.logic.fleet.rows import (
    IntentRow,
    IntentState,
    ProviderRow,
    ServerRow,
    ServerState,
)
from holdfast.logic.fleet.slots import slot_id
from holdfast.logic.fleet.state import FleetState
from holdfast.logic.fleet.topology import plan_launch


def server(
    index: int, provider: str, owner: str = OPERATOR, region: str = "eu", role: Role = Role.RELAY
) -> ServerRow:
    return ServerRow(
        name=f"{role}-{region}-{index:03d}",
        role=role,
        region=region,
        provider=provider,
        owner=owner,
        state=ServerState.ACTIVE,
        node=bytes([index % 256]) * 32,
        seated_at=float(index),
    )


servers = st.builds(
    server,
    st.integers(0, 999),
    st.sampled_from(["amber", "birch", "cedar", "dune", "elm"]),
    st.sampled_from([OPERATOR, OPERATOR, "ann", "bob"]),
    st.sampled_from(["eu", "ap"]),
)
fleets = st.lists(servers, max_size=24, unique_by=lambda row: row.name)


# --- pick ----------------------------------------------------------------------------------------
@settings(max_examples=300, deadline=None)
@given(fleets)
def test_seed_004_6_1_diversity_whenever_it_can_be_had(rows: list[ServerRow]) -> None:
    """seed 004 §6.1: no two of one provider (nor owner), if any three servers allow it."""
    chosen = pick([Candidate(row) for row in rows], "eu")
    if len(rows) < 3:
        assert chosen is None
        return
    assert chosen is not None
    best = min(conflicts(triple) for triple in combinations(rows, 3))
    assert conflicts(chosen) == best


def test_seed_004_6_1_near_before_far() -> None:
    rows = [
        server(n, p, region=r)
        for n, (p, r) in enumerate(
            [("amber", "ap"), ("amber", "eu"), ("birch", "ap"), ("birch", "eu"), ("cedar", "ap")]
        )
    ]
    chosen = pick([Candidate(row) for row in rows], "eu")
    assert chosen is not None
    assert sorted(row.region for row in chosen) == ["ap", "eu", "eu"]


def test_seed_004_6_1_least_loaded_of_a_provider() -> None:
    candidates = [
        Candidate(server(index, provider), groups=groups)
        for index, (provider, groups) in enumerate(
            [("amber", 9), ("amber", 3), ("birch", 7), ("cedar", 5), ("cedar", 6)]
        )
    ]
    chosen = pick(candidates, "eu")
    assert chosen is not None
    assert sorted(row.name for row in chosen) == ["relay-eu-001", "relay-eu-002", "relay-eu-003"]


def test_seed_004_6_1_headroom_and_health_before_load() -> None:
    full = Load(stored_bytes=95, free_bytes=5)
    sick = msgspec.structs.replace(server(2, "amber"), tier=Tier.ORANGE)
    candidates = [
        Candidate(server(0, "amber"), load=full),
        Candidate(server(1, "amber"), groups=1_000),
        Candidate(sick),
        Candidate(server(3, "birch")),
        Candidate(server(4, "cedar"), silent=True),
        Candidate(server(5, "cedar"), groups=50),
    ]
    chosen = pick(candidates, "eu")
    assert chosen is not None
    assert sorted(row.name for row in chosen) == ["relay-eu-001", "relay-eu-003", "relay-eu-005"]


def test_jurisdictions_differ_where_they_can() -> None:
    candidates = [
        Candidate(server(index, provider), jurisdiction=place)
        for index, (provider, place) in enumerate(
            [("amber", "de"), ("birch", "de"), ("cedar", "fi"), ("dune", "ch")]
        )
    ]
    chosen = pick(candidates, "eu")
    assert chosen is not None
    assert {row.provider for row in chosen} >= {"cedar", "dune"}


def test_one_provider_alone_is_used_and_counted() -> None:
    rows = [server(index, "amber") for index in range(4)]
    chosen = pick([Candidate(row) for row in rows], "eu")
    assert chosen is not None
    assert conflicts(chosen) == 3
    assert len(debtors(chosen)) == 2


@pytest.mark.parametrize(
    ("load", "room"),
    [
        (Load(), True),
        (Load(free_bytes=10, stored_bytes=90), True),
        (Load(free_bytes=9, stored_bytes=91), False),
        (Load(free_bytes=90, writable=False), False),
    ],
)
def test_headroom(load: Load, room: bool) -> None:
    assert has_headroom(load) is room


def test_seed_004_11_4_regions_without_servers_go_to_the_nearest() -> None:
    """seed 004 §11.4: Africa and the Middle East to Europe, India and Oceania to Asia Pacific."""
    for home, expected in {
        "eu": "eu",
        "af": "eu",
        "me": "eu",
        "us": "eu",
        "sa": "eu",
        "ap": "ap",
        "oc": "ap",
        "in": "ap",
        "mars": "ap",
    }.items():
        assert nearest(home, ["eu", "ap"]) == expected
    assert nearest("eu", []) is None
    assert distance("eu", "eu") == 0 < distance("eu", "ap") < distance("eu", "mars")


# --- choose_replacement --------------------------------------------------------------------------
def up(state: FleetState, *names: str) -> list[str]:
    return [name for name in state.providers if name in names]


def test_a_replacement_stays_where_it_was_when_it_can() -> None:
    state = launched().fleet.state
    place = choose_replacement(
        state.servers["relay-eu-001"], state, state.providers, owner=OPERATOR
    )
    assert place is not None
    assert (place.provider, place.region, place.conflicts) == ("amber", "eu", 0)


def test_a_replacement_that_cannot_be_diverse_is_counted_as_debt_to_come() -> None:
    """ADR 0003: three providers, one lost."""
    state = launched().fleet.state
    server = state.servers["relay-eu-001"]
    place = choose_replacement(server, state, up(state, "birch", "cedar"), owner=OPERATOR)
    assert place is not None
    assert place.provider in ("birch", "cedar")
    assert place.conflicts == SLOTS_PER_TRIPLE


def test_a_fourth_provider_is_better_than_debt() -> None:
    state = launched().fleet.state
    state.put(ProviderRow(name="dune", regions=("ap",)))
    server = state.servers["relay-eu-001"]
    place = choose_replacement(server, state, up(state, "birch", "cedar", "dune"), owner=OPERATOR)
    assert place is not None
    assert (place.provider, place.region, place.conflicts) == ("dune", "ap", 0)


def test_a_provider_to_avoid_is_the_last_choice_but_a_choice() -> None:
    state = launched().fleet.state
    server = state.servers["relay-eu-001"]
    place = choose_replacement(server, state, state.providers, avoid=["amber"], owner=OPERATOR)
    assert place is not None
    assert place.provider != "amber"
    place = choose_replacement(server, state, ["amber"], avoid=["amber"], owner=OPERATOR)
    assert place is not None
    assert place.provider == "amber"
    assert choose_replacement(server, state, [], owner=OPERATOR) is None


def test_machines_that_are_ordered_together_mind_each_other() -> None:
    """Two relays of the same slots are lost: the second knows where the first will stand."""
    state = launched().fleet.state
    state.put(ProviderRow(name="dune", regions=("eu",)))
    first, second = (state.servers[f"relay-eu-00{n}"] for n in (1, 2))
    intent = IntentRow(id="i1", term=1, action="spawn", name=first.name, role=first.role,
                       provider="dune", region="eu", reason="heal", state=IntentState.ORDERED,
                       created_at=0.0)  # fmt: skip
    state.put(intent)
    place = choose_replacement(second, state, up(state, "dune"), owner=OPERATOR)
    assert place is not None
    assert place.conflicts == SLOTS_PER_TRIPLE
    place = choose_replacement(second, state, up(state, "amber", "dune"), owner=OPERATOR)
    assert place is not None
    assert (place.provider, place.conflicts) == ("amber", 0)


# --- Debt ----------------------------------------------------------------------------------------
@settings(max_examples=200, deadline=None)
@given(st.lists(servers, min_size=3, max_size=3, unique_by=lambda row: row.name))
def test_who_owes_is_exactly_what_is_in_the_way(rows: list[ServerRow]) -> None:
    owing = debtors(rows)
    kept = [row for row in rows if row not in owing]
    assert conflicts(kept) == 0
    assert bool(owing) == bool(conflicts(rows))
    for row in owing:
        assert conflicts([*kept, row]) > 0, "it cannot stay beside those who do"


def test_the_newcomer_owes() -> None:
    """Who came second into the shared domain is the one to move."""
    rows = [server(1, "amber"), server(2, "birch"), server(9, "amber")]
    assert [row.name for row in debtors(rows)] == ["relay-eu-009"]


def test_debts_and_the_independent_count_agree() -> None:
    world = launched(providers=("amber", "birch"))
    state = world.fleet.state
    owing = sum(len(slot_debtors(state, row)) for row in state.slots.values())
    assert owing == len(state.debts) == violations(state.slots.values(), state.servers) == 64


# --- Slots ---------------------------------------------------------------------------------------
def grant(world: object, region: str) -> bytes:
    effects = world.fleet.step(events.Allocate(region), world.now)  # type: ignore[attr-defined]
    (granted,) = [item for item in effects.send if isinstance(item, Granted)]
    assert granted.slot is not None
    return granted.slot


def test_slots_fill_evenly_and_stay_in_their_region() -> None:
    world = launched()
    given = [grant(world, "eu") for _ in range(SLOTS_PER_TRIPLE * 5)]
    rows = [world.fleet.state.slots[slot] for slot in set(given)]
    assert {row.region for row in rows} == {"eu"}
    assert {row.groups for row in rows} == {5}
    assert world.fleet.state.slots[grant(world, "in")].region == "ap"


def test_a_slot_with_a_sick_server_is_the_last_choice() -> None:
    world = launched()
    world.step(events.Beat(world.server("relay-eu-001").node, Load(writable=False)))
    assert world.fleet.state.slots[grant(world, "eu")].region == "eu", "there is no better one"


def test_no_slot_yet_is_an_answer() -> None:
    world = launched(regions=("eu",))
    world.fleet.slots._heaps.clear()
    effects = world.fleet.step(events.Allocate("eu"), world.now)
    assert effects.send == (Granted(None),)


def test_slot_ids_repeat_after_a_crash_and_differ_otherwise() -> None:
    names = tuple("abcdef")
    ids = {slot_id(NETWORK, names, index) for index in range(SLOTS_PER_TRIPLE)}
    assert len(ids) == SLOTS_PER_TRIPLE
    assert slot_id(NETWORK, names, 3) in ids
    assert slot_id(b"m" * 16, names, 3) not in ids
    assert all(len(slot) == 16 for slot in ids)


# --- Topology ------------------------------------------------------------------------------------
def test_a_launch_needs_providers_and_regions() -> None:
    for providers, regions in (([], ["eu"]), (["amber"], []), (["amber"], ["E U"])):
        with pytest.raises(UsageError):
            plan_launch(providers, regions)


def test_a_fourth_provider_gets_a_fourth_server() -> None:
    names = [row.name for row in plan_launch(["a", "b", "c", "d"], ["eu"])]
    assert names.count("relay-eu-004") == 1
    assert len(names) == 8


# --- Many at once --------------------------------------------------------------------------------
def test_many_groups_at_once_lie_as_one_by_one() -> None:
    one, many = launched(), launched()
    for _ in range(1_000):
        one.fleet.slots.allocate("eu", lambda name: True)
    many.step(events.Populate("eu", 400))
    many.step(events.Populate("eu", 600))
    counts = [
        sorted(row.groups for row in world.fleet.state.slots.values() if row.region == "eu")
        for world in (one, many)
    ]
    assert counts[0] == counts[1]
    assert sum(counts[0]) == 1_000


def test_many_unfit_slots_do_not_hide_the_fit_ones() -> None:
    """More than LOOK_MAX slots with a full server stood first in line, for ever the emptiest, and
    groups went to them (found by `bench allocate`)."""
    world = World(regions=("eu",), providers=("amber", "birch", "cedar"))
    world.step(events.Launch(world.providers, world.regions, per_region=12))
    world.until(world.is_whole, 6_000)
    full = {n for n in world.servers if int(n[-3:]) <= 9}
    rows = [world.fleet.slots.allocate("eu", lambda name: name not in full) for _ in range(200)]
    assert all(row is not None and not full & {*row.relays, *row.replicas} for row in rows)


def test_unequal_providers_leave_nothing_that_cannot_be_diverse() -> None:
    """The largest piles first: cut from the small ones first, the rest of the largest stands
    beside itself."""
    shares = {"amber": 12, "birch": 12, "cedar": 6, "dogwood": 3, "elm": 3}
    providers = [provider for provider, count in shares.items() for _ in range(count)]
    candidates = [Candidate(server(n, provider)) for n, provider in enumerate(providers)]
    piles = Piles(candidates, "eu")
    while (found := piles.pick()) is not None:
        assert conflicts(found) == 0
        piles.take(found)
