"""Healing end to end over the pure machine: deaths, losses, debts, crashes, lies and panics."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import msgspec
import pytest
from tests.logic.fleet_world import (
    GOOD,
    PROVIDERS,
    World,
    counted_debts,
    debts,
    launch,
    launched,
)

from holdfast.limits import RECORD_CHANGE_S_MIN, SPAWN_PER_MIN_MAX
from holdfast.logic.fleet import events
from holdfast.logic.fleet.model import OPERATOR, Role, Tier
from holdfast.logic.fleet.rows import IntentRow, NodeRow, NodeState
from holdfast.logic.fleet.slots import redundancy

NAME = "relay-eu-001"
LAUNCH = 12


def copies_min(world: World) -> tuple[int, int]:
    counts = [redundancy(world.fleet.state, row) for row in world.fleet.state.slots.values()]
    return min(relays for relays, _ in counts), min(replicas for _, replicas in counts)


# --- Launch --------------------------------------------------------------------------------------
def test_seed_004_11_1_launch_topology() -> None:
    """seed 004 §11.1: a relay and a replica in each region at each provider, one machine each."""
    world = launched()
    assert len(world.created) == LAUNCH
    assert Counter(provider for provider, _ in world.created) == dict.fromkeys(PROVIDERS, 4)
    assert world.server("relay-ap-003").provider == "cedar"
    assert len(world.fleet.state.slots) == 32
    assert debts(world) == counted_debts(world) == 0
    assert copies_min(world) == (3, 3)


def test_launching_twice_orders_nothing_more() -> None:
    world = launched()
    world.step(events.Launch(world.providers, world.regions))
    world.run(300)
    assert len(world.created) == LAUNCH


def test_a_launch_with_two_providers_owes_diversity_and_says_so() -> None:
    world = launched(providers=("amber", "birch"), regions=("eu",))
    assert debts(world) == counted_debts(world) == 32
    (line,) = world.lines("slots.created")
    assert line.detail["in_debt"]


def test_a_third_provider_repays_the_debt_of_a_launch_with_two() -> None:
    world = launched(providers=("amber", "birch"), regions=("eu",))
    world.providers += ("cedar",)
    world.machines["cedar"] = {}
    world.api_up.add("cedar")
    world.step(events.Launch(world.providers, world.regions))
    world.until(lambda: debts(world) == 0, 6_000)
    assert counted_debts(world) == 0


def test_a_provider_that_delivers_nothing_is_passed_over() -> None:
    """A launch that times out at one provider goes to another, with the debt that costs."""
    world = World(regions=("eu",))
    world.stuck.add("birch")
    launch(world)
    assert all(row.provider != "birch" for row in world.servers.values())
    assert debts(world) == counted_debts(world) > 0
    assert len(world.machines["birch"]) == 0, "what never joined was given back"


# --- One death -----------------------------------------------------------------------------------
def test_seed_004_4_3_one_death_is_one_spawn() -> None:
    """seed 004 §4.3: spawn, DNS, records, audit; recovered within 9 minutes of the death."""
    world = launched()
    dead = world.server(NAME).node
    world.kill(NAME)
    world.until(lambda: world.server(NAME).tier is Tier.RED, 400)
    took_s = world.until(lambda: world.server(NAME).node != dead, 400)
    assert took_s <= 60
    world.until(world.is_whole, 600)
    assert len(world.created) == LAUNCH + 1
    seated = world.lines("server.seated")[-1]
    assert seated.detail["was"] == "red"
    assert seated.detail["failed_s"] >= 300
    assert seated.detail["provider"] == "amber"
    assert world.dns[NAME] == world.server(NAME).node
    assert world.lines("dns.pointed")[-1].subject == NAME
    assert world.stored(dead).state is NodeState.RETIRED
    assert [provider for provider, _ in world.deleted] == ["amber"]
    assert debts(world) == 0


def test_the_former_disk_is_kept_until_its_successor_is_filled() -> None:
    world = launched()
    world.fill_s = 3_600.0
    replica = "replica-eu-001"
    world.kill(replica)
    world.until(lambda: "server.red" in world.verbs(), 400)
    world.run(1_800)
    assert world.server(replica).tier is Tier.GREEN
    assert not world.deleted
    world.until(lambda: bool(world.deleted), 3_600)
    assert world.server(replica).filled


def test_d4_at_most_one_seat_per_role_changes_in_ten_minutes() -> None:
    """D4: two relays of a slot die together; clients could not follow both changes at once."""
    world = launched()
    world.kill("relay-eu-001", "relay-eu-002")
    world.until(world.is_whole, 3_000)
    changes: dict[bytes, list[tuple[float, int]]] = {}
    for at, row in world.records:
        nodes = tuple(seat.node for seat in row.seats[:3])
        changes.setdefault(row.slot, []).append((at, hash(nodes)))
    moved = 0
    for history in changes.values():
        times = [
            at
            for (at, now), (_, before) in zip(history[1:], history, strict=False)
            if now != before
        ]
        gaps = [b - a for a, b in pairwise(times)]
        assert all(gap >= RECORD_CHANGE_S_MIN for gap in gaps)
        moved += len(times)
    assert moved == 32, "both seats of sixteen slots"


def test_records_change_at_most_one_relay_and_one_replica_at_once() -> None:
    world = launched()
    world.kill("relay-eu-001", "relay-eu-002", "replica-eu-001", "replica-eu-003")
    world.step(events.Confirm("operator"))
    world.until(world.is_whole, 4_000)
    last: dict[bytes, tuple[bytes, ...]] = {}
    for _, row in world.records:
        nodes = tuple(seat.node for seat in row.seats)
        if row.slot in last:
            kept = [a == b for a, b in zip(nodes, last[row.slot], strict=True)]
            assert sum(kept[:3]) >= 2
            assert sum(kept[3:]) >= 2
        last[row.slot] = nodes


def test_addresses_that_move_are_recorded_at_once() -> None:
    world = launched()
    server = world.server(NAME)
    moved = ("127.0.9.9:443",)
    row = world.nodes[server.node]
    world.fleet.state.learn(msgspec.structs.replace(row, addresses=moved))
    world.step(events.Beat(server.node, GOOD, moved, True))
    assert all(NAME not in _behind(world, slot) for slot in world.fleet.state.slots_of[NAME])
    world.run(5)
    assert world.dns[NAME] == server.node
    assert world.server(NAME).addresses == moved
    assert world.server(NAME).filled
    records = len(world.records)
    for step in range(20):  # one that cannot make up its mind is not followed at every turn
        world.step(events.Beat(server.node, GOOD, (f"127.0.9.{step}:443",), True))
    assert len(world.records) == records


def _behind(world: World, slot: bytes) -> list[str]:
    row = world.fleet.state.slots[slot]
    return [s.name for s in row.seats if s.addresses != world.server(s.name).addresses]


# --- Flapping ------------------------------------------------------------------------------------
@pytest.mark.parametrize("period_s", [100, 200, 310, 340])
def test_flapping_costs_at_most_one_spawn(period_s: int) -> None:
    """N toggles of one node cost at most one spawn: its successor is not the one that flaps."""
    world = launched(spawn_s=120.0)
    node = world.server(NAME).node
    for _ in range(10):
        world.died_at[node] = world.now
        world.alive.discard(node)
        world.run(period_s)
        if world.stored(node).state is NodeState.RETIRED:
            break
        world.revive(node)
        world.run(period_s)
    world.until(world.is_whole, 1_000)
    assert len(world.created) <= LAUNCH + 1


def test_an_order_not_yet_given_is_dropped_when_the_server_recovers() -> None:
    world = launched()
    node = world.server(NAME).node
    world.api_up.clear()
    for row in list(world.fleet.state.providers.values()):
        world.fleet.state.put(msgspec.structs.replace(row, state="lost"))
    world.kill(NAME)
    world.run(420)
    assert world.server(NAME).tier in (Tier.RED, Tier.BLACK)
    assert world.fleet.healing.spawn(NAME) is None
    world.revive(node)
    world.run(240)
    assert world.server(NAME).tier is Tier.GREEN
    assert world.server(NAME).node == node
    assert len(world.created) == LAUNCH


# --- Provider loss and debt ----------------------------------------------------------------------
def test_seed_004_4_4_provider_loss_and_return() -> None:
    """seed 004 §4.4, ADR 0003: all seats replaced, debt while it lasts, nothing owed afterwards."""
    world = launched()
    nodes = world.lose("amber")
    world.until(lambda: Tier.BLACK in world.tiers().values(), 400)
    assert not world.fleet.guard.frozen, "a third of the fleet at one provider is no panic"
    world.until(world.is_whole, 2_000)
    assert len(world.created) == LAUNCH + 4
    assert sorted(Counter(row.provider for row in world.servers.values()).values()) == [6, 6]
    assert debts(world) == counted_debts(world) == 64
    assert world.lines("debt.recorded")

    world.bring_back("amber", nodes)
    world.until(lambda: "provider.back" in world.verbs(), 600)
    assert all(world.stored(node).state is NodeState.RETIRED for node in nodes), "fenced"
    lowest = [copies_min(world)]

    def repaid() -> bool:
        lowest.append(copies_min(world))
        return debts(world) == 0

    world.until(repaid, 6_000)
    world.until(world.is_whole, 2_000)
    assert counted_debts(world) == 0
    assert len(world.created) == LAUNCH + 8
    assert min(relays for relays, _ in lowest) >= 2
    assert min(replicas for _, replicas in lowest) >= 2
    world.run(120)
    assert len(world.machines["amber"]) == 4, "the returned machines were reaped"
    assert sum(map(len, world.machines.values())) == LAUNCH
    assert world.lines("debt.repaid")


def test_debts_are_repaid_one_seat_at_a_time_per_slot_and_role() -> None:
    world = launched(providers=("amber", "birch", "cedar", "dune"), regions=("eu",))
    slots = world.fleet.state.slots.values()
    assert debts(world) == 0
    world.lose("amber")
    world.lose("birch")
    world.step(events.Tick())
    world.run(120)
    world.step(events.Confirm("operator"))
    world.until(lambda: world.is_whole(), 5_000)
    owed = counted_debts(world)
    assert owed == debts(world) > 0
    world.bring_back("amber")
    world.bring_back("birch")
    busiest = 0

    def repaid() -> bool:
        nonlocal busiest
        for row in slots:
            for names in (row.relays, row.replicas):
                moving = [n for n in names if n in world.fleet.state.spawn_of]
                busiest = max(busiest, len(moving))
        return debts(world) == 0

    world.until(repaid, 10_000)
    assert busiest == 1


def test_a_provider_whose_machines_die_but_whose_api_answers_waits_five_minutes() -> None:
    world = launched()
    nodes = world.lose("amber")
    world.api_up.add("amber")
    world.until(lambda: "provider.lost" in world.verbs(), 400)
    lost_s = world.until(lambda: "provider.back" in world.verbs(), 600)
    assert lost_s >= 295
    assert not any(node in world.alive for node in nodes)


def test_the_first_red_of_a_dying_provider_is_not_ordered_from_it() -> None:
    world = launched()
    world.lose("amber")
    world.until(world.is_whole, 3_000)
    assert [provider for provider, _ in world.created[LAUNCH:]].count("amber") == 0


# --- Gray, leaving, revoked ----------------------------------------------------------------------
def test_d28_a_server_that_stays_gray_is_replaced_while_it_serves() -> None:
    world = launched()
    node = world.server(NAME).node
    world.gray.add(node)
    world.run(290)
    assert world.server(NAME).tier is Tier.ORANGE
    assert len(world.created) == LAUNCH
    world.until(lambda: world.server(NAME).node != node, 200)
    assert node in world.alive
    assert world.stored(node).state is NodeState.ACTIVE, "it serves stragglers until then"
    world.until(lambda: world.stored(node).state is NodeState.RETIRED, 400)
    assert world.server(NAME).filled
    world.until(world.is_whole, 400)
    assert len(world.created) == LAUNCH + 1
    assert len(world.deleted) == 1


def test_a_node_that_leaves_is_replaced_first() -> None:
    world = launched()
    node = world.server(NAME).node
    world.step(events.Left(node, "moving house"))
    assert world.server(NAME).draining
    world.until(lambda: world.server(NAME).node != node, 200)
    assert node in world.alive
    world.until(world.is_whole, 400)
    assert len(world.created) == LAUNCH + 1


def test_a_revoked_node_loses_its_seat_at_once_and_for_good() -> None:
    world = launched()
    node = world.server(NAME).node
    world.step(events.Revoked(node))
    assert world.server(NAME).tier is Tier.RED
    world.until(lambda: world.server(NAME).node != node, 120)
    assert world.stored(node).state is NodeState.REVOKED
    world.run(600)
    assert world.stored(node).state is NodeState.REVOKED
    assert len(world.created) == LAUNCH + 1


def test_a_former_node_that_renews_does_not_take_the_seat_back() -> None:
    world = launched()
    former = world.nodes[world.server(NAME).node]
    world.step(events.Left(former.node, "moving house"))
    world.until(lambda: world.server(NAME).node != former.node, 200)
    newcomer = world.server(NAME).node
    assert world.stored(former.node).state is NodeState.ACTIVE
    renewed = msgspec.structs.replace(former, serial="renewed")
    world.rows[world.key(renewed)] = renewed
    world.step(events.Joined(renewed))
    assert world.server(NAME).node == newcomer
    world.restart()
    assert world.server(NAME).node == newcomer
    world.until(world.is_whole, 600)
    assert world.stored(former.node).state is NodeState.RETIRED


# --- Fences --------------------------------------------------------------------------------------
def test_d25_what_joins_second_on_an_intent_is_reaped() -> None:
    world = launched()
    first = world.nodes[world.server(NAME).node]
    twin = msgspec.structs.replace(first, node=b"2" * 32, joined_at=world.now)
    world.join_row(twin)
    assert world.server(NAME).node == first.node
    assert world.stored(twin.node).state is NodeState.RETIRED
    assert any(isinstance(row, IntentRow) and row.action == "reap" for row in world.rows.values())


def test_a_join_on_an_intent_nobody_knows_is_retired() -> None:
    world = launched()
    first = world.nodes[world.server(NAME).node]
    stray = msgspec.structs.replace(first, node=b"3" * 32, intent="relay-eu-001-zzzzzzzzzz")
    world.join_row(stray)
    assert world.server(NAME).node == first.node
    assert world.stored(stray.node).state is NodeState.RETIRED


def test_somebodys_own_machine_takes_the_name_its_token_gave() -> None:
    world = launched()
    row = NodeRow(
        node=b"4" * 32,
        identity=b"",
        name="relay-eu-004",
        role=Role.RELAY,
        region="eu",
        provider="home",
        owner="ann",
        addresses=("127.0.4.4:443",),
        serial="4",
        cert_expires_at=0,
        joined_at=world.now,
    )
    world.join_row(row)
    assert world.server("relay-eu-004").owner == "ann"
    world.restart()
    assert world.server("relay-eu-004").node == row.node
    world.step(events.Left(row.node, "enough"))
    world.until(lambda: world.server("relay-eu-004").node != row.node, 300)
    assert world.server("relay-eu-004").owner == OPERATOR
    world.until(lambda: world.stored(row.node).state is NodeState.RETIRED, 400)
    assert not world.deleted, "nobody deletes a machine HQ never ordered"


def test_a_second_volunteer_of_one_name_takes_no_seat_that_serves() -> None:
    """D4: clients would see a seat change that nothing called for."""
    world = launched()
    first = world.nodes[world.server(NAME).node]
    second = msgspec.structs.replace(first, node=b"5" * 32, intent="", joined_at=world.now)
    world.join_row(second)
    assert world.server(NAME).node == first.node
    assert world.stored(second.node).state is NodeState.RETIRED
    world.kill(NAME)
    world.until(lambda: world.server(NAME).tier is Tier.RED, 600)
    third = msgspec.structs.replace(second, node=b"6" * 32, joined_at=world.now)
    world.join_row(third)
    assert world.server(NAME).node == third.node, "a dead seat is free"


def test_a_machine_nobody_ordered_is_reported_and_left_alone() -> None:
    """seed 004 §5.4: HQ detects unexpected spawns."""
    world = launched()
    world.machines["birch"]["crypto-miner"] = world.now
    world.run(120)
    (line,) = world.lines("machine.unknown")
    assert (line.subject, line.detail["resource"]) == ("birch", "crypto-miner")
    assert "crypto-miner" in world.machines["birch"]


def test_a_machine_that_nobody_gave_back_is_missed_once() -> None:
    """seed 004 §5.4: HQ detects unexpected kills too; what it reaps itself is not one."""
    world = launched()
    gone = next(iter(world.machines["birch"]))
    moment = world.machines["birch"].pop(gone)
    world.run(70)
    (line,) = world.lines("machine.vanished")
    assert line.subject == "birch"
    assert line.detail == {"resource": gone, "server": gone.rpartition("-")[0]}
    world.machines["birch"][gone] = moment  # the provider's list was wrong
    world.run(70)
    assert len(world.lines("machine.vanished")) == 1
    world.kill(NAME)
    world.until(lambda: "machine.reaped" in world.verbs(), 2_000)
    world.run(120)
    assert len(world.lines("machine.vanished")) <= 2, "at most the one that died by itself"


def test_a_machine_that_appears_after_its_reap_is_reaped_again() -> None:
    world = launched()
    world.kill(NAME)
    world.stuck.add("amber")
    world.until(lambda: "spawn.failed" in world.verbs(), 2_000)
    ghost = world.lines("spawn.failed")[0].detail["intent"]
    world.until(lambda: ("amber", ghost) in world.deleted, 600)
    world.machines["amber"][ghost] = world.now  # the provider was only slow
    world.run(90)
    assert ghost not in world.machines["amber"]


# --- Budget and backoff --------------------------------------------------------------------------
def test_spawns_are_budgeted() -> None:
    world = World(providers=tuple(f"p{n}" for n in range(8)), regions=tuple("abcdefgh"))
    world.step(events.Launch(world.providers, world.regions))
    planned = len(world.servers)
    assert planned == 128
    world.run(1, 1)
    assert len(world.created) == SPAWN_PER_MIN_MAX
    world.run(58, 1)
    assert len(world.created) == SPAWN_PER_MIN_MAX
    world.run(130, 1)
    assert len(world.created) == planned


def test_an_unreachable_provider_is_tried_three_times_then_another() -> None:
    world = launched()
    world.api_up.discard("amber")
    world.kill(NAME)
    world.until(lambda: world.server(NAME).tier is Tier.RED, 400)
    world.until(world.is_whole, 1_500)
    assert world.server(NAME).provider != "amber"
    assert debts(world) == counted_debts(world) == 16


def test_all_providers_unreachable_is_waited_out() -> None:
    world = launched()
    world.api_up.clear()
    world.kill(NAME)
    world.run(3_600, 10)
    assert len(world.created) == LAUNCH
    world.api_up.update(PROVIDERS)
    world.until(world.is_whole, 1_500)
    assert len(world.created) == LAUNCH + 1


def test_finished_intents_are_forgotten_after_a_day() -> None:
    world = launched()
    world.kill(NAME)
    world.until(world.is_whole, 2_000)
    assert len(world.fleet.state.intents) >= LAUNCH
    world.run(2 * 86_400, 600)
    assert world.fleet.state.intents == {}
    assert set(world.tiers().values()) == {Tier.GREEN}
    assert len(world.created) == LAUNCH + 1
