"""HQ's side of detection at the seed's exact boundaries: who may accuse, and what it amounts to."""

from __future__ import annotations

import msgspec
import pytest
from tests.logic.fleet_world import World, failing, launched

from holdfast.crypto.pure import hash_bytes
from holdfast.logic.fleet import events
from holdfast.logic.fleet.model import OPERATOR, Load, Role, Tier
from holdfast.logic.fleet.rows import NodeRow, NodeState, ServerRow
from holdfast.logic.fleet.tiers import (
    TRANSITIONS,
    Signal,
    Witnessed,
    count_independent,
    independent,
)

NAME = "relay-eu-001"
"""At amber; its slot peers: -002 at birch, -003 at cedar, relays and replicas alike."""


def witness(world: World, name: str) -> bytes:
    return world.server(name).node


def accuse(world: World, by: str, failed_s: float, name: str = NAME) -> None:
    """The server `by` has failed to reach `name` for `failed_s`."""
    world.step(failing(witness(world, by), name, world.server(name).node, failed_s))


def quiet(world: World, name: str = NAME) -> World:
    """`name` is dead and has been silent for as long as a failure must last."""
    world.kill(name)
    world.died_at.clear()  # peers say only what the test makes them say
    world.run(330)
    return world


@pytest.fixture
def world() -> World:
    return quiet(launched())


# --- seed 004 §4.1 -------------------------------------------------------------------------------
def test_seed_004_4_1_yellow_is_watched_and_nothing_is_done(world: World) -> None:
    """seed 004 §4.1: dashboard indicator, logged, no infrastructure action."""
    before = len(world.created)
    said = Witnessed(
        witness(world, "relay-eu-002"),
        NAME,
        world.server(NAME).node,
        Tier.YELLOW,
        clients=11,
        clients_active=500,
        regions=("ap", "eu"),
    )
    world.step(said)
    assert world.server(NAME).tier is Tier.YELLOW
    (line,) = world.lines("server.yellow")
    assert line.detail["clients"] == 11
    assert line.detail["regions"] == ["ap", "eu"]
    world.run(30)
    assert len(world.created) == before


def test_seed_004_9_1_a_hundred_thousand_forged_alerts_spawn_nothing(world: World) -> None:
    """seed 004 §9.1: without probes behind them, reports never get past YELLOW."""
    before = len(world.created)
    node = world.server(NAME).node
    witnesses = [witness(world, peer) for peer in world.fleet.state.peers(NAME)]
    for index in range(100_000):
        said = Witnessed(
            witnesses[index % len(witnesses)],
            NAME,
            node,
            Tier.RED,  # they may call it what they like
            clients=index,
            regions=("eu", "ap", "us"),
        )
        world.now += 0.01
        world.step(said)
    assert world.server(NAME).tier is Tier.YELLOW
    world.run(60)
    assert len(world.created) == before


# --- seed 004 §4.2 -------------------------------------------------------------------------------
@pytest.mark.parametrize(("failed_s", "tier"), [(59.0, Tier.YELLOW), (60.0, Tier.ORANGE)])
def test_seed_004_4_2_three_failed_checks(world: World, failed_s: float, tier: Tier) -> None:
    """seed 004 §4.2: two failed checks are YELLOW, the third makes ORANGE."""
    accuse(world, "relay-eu-002", failed_s)
    assert world.server(NAME).tier is tier


def test_seed_004_4_2_orange_prepares_a_replacement_and_orders_none(world: World) -> None:
    """seed 004 §4.2: selects provider and region, does not provision."""
    before = len(world.created)
    accuse(world, "relay-eu-002", 90)
    (line,) = world.lines("spawn.prepared")
    assert line.detail == {"provider": "amber", "region": "eu"}
    world.run(60)
    assert len(world.created) == before


def test_seed_004_4_2_region_specific_evidence_stays_yellow(world: World) -> None:
    """seed 004 §4.2: with peers or clients in two regions, one region's word is not enough."""
    accuse_in(world, "relay-eu-002", 90, known=("ap", "eu"))
    assert world.server(NAME).tier is Tier.YELLOW


def accuse_in(world: World, by: str, failed_s: float, known: tuple[str, ...]) -> None:
    """As `accuse`, after another witness has said that clients of `known` regions report it."""
    node = world.server(NAME).node
    other = witness(world, "replica-eu-002")
    world.step(Witnessed(other, NAME, node, Tier.YELLOW, clients=20, regions=known))
    accuse(world, by, failed_s)


def test_seed_004_4_2_evidence_from_two_regions_makes_orange(world: World) -> None:
    node = world.server(NAME).node
    said = failing(witness(world, "relay-eu-002"), NAME, node, 90.0, regions=("ap",))
    world.step(said)
    assert world.server(NAME).tier is Tier.ORANGE


def test_seed_004_4_2_a_pool_of_one_region_can_still_reach_orange(world: World) -> None:
    """All peers and clients of this slot are in one region: its evidence is all there is."""
    accuse(world, "relay-eu-002", 90)
    assert world.server(NAME).tier is Tier.ORANGE


def test_seed_004_4_2_recovery_clears_orange(world: World) -> None:
    """seed 004 §4.2: the relay may still recover."""
    accuse(world, "relay-eu-002", 90)
    node = world.server(NAME).node
    said = Witnessed(witness(world, "relay-eu-002"), NAME, node, Tier.GREEN, probe_ok=True)
    world.step(said)
    assert world.server(NAME).tier is Tier.GREEN
    assert world.server(NAME).first_failed_at == 0.0


# --- seed 004 §4.3 -------------------------------------------------------------------------------
@pytest.mark.parametrize(("failed_s", "tier"), [(299.0, Tier.ORANGE), (300.0, Tier.RED)])
def test_seed_004_4_3_five_minutes(world: World, failed_s: float, tier: Tier) -> None:
    """seed 004 §4.3: 299 s of failure are ORANGE, 300 s are RED."""
    accuse(world, "relay-eu-002", failed_s)
    accuse(world, "relay-eu-003", failed_s)
    assert world.server(NAME).tier is tier


def test_seed_004_4_3_time_alone_matures_the_evidence(world: World) -> None:
    """seed 004 §4.3: the fifth minute may end between two alerts; a tick finds it."""
    for by in ("relay-eu-002", "relay-eu-003"):
        accuse(world, by, 290)
    world.run(9, 9)
    assert world.server(NAME).tier is Tier.ORANGE
    world.run(1, 1)
    assert world.server(NAME).tier is Tier.RED


def test_a_machine_that_just_got_the_seat_may_take_as_long_as_it_takes_to_start(
    world: World,
) -> None:
    """Where a drill's clock runs fast that is longer than its five minutes."""
    state = world.fleet.state
    state.pace = msgspec.structs.replace(state.pace, start_s=400.0)
    state.put(msgspec.structs.replace(world.server(NAME), seated_at=world.now))
    world.fleet.liveness.expect(NAME, world.now)
    world.run(399)
    for by in ("relay-eu-002", "relay-eu-003"):
        accuse(world, by, 360)
    assert world.server(NAME).tier is Tier.ORANGE
    world.run(1, 1)
    assert world.server(NAME).tier is Tier.RED


def test_seed_004_4_3_one_witness_is_not_enough(world: World) -> None:
    """seed 004 §4.3: multiple surviving relays confirm independently; one witness, however long."""
    for _ in range(40):
        accuse(world, "relay-eu-002", 10_000)
        world.run(30)
    assert world.server(NAME).tier is Tier.ORANGE


def test_seed_004_4_3_two_witnesses_of_one_provider_are_one(world: World) -> None:
    """seed 004 §4.3, D2: independent means different failure domains."""
    accuse(world, "relay-eu-002", 400)
    accuse(world, "replica-eu-002", 400)
    assert world.server(NAME).tier is Tier.ORANGE
    accuse(world, "replica-eu-003", 400)
    assert world.server(NAME).tier is Tier.RED


def test_seed_004_4_3_each_witness_counts_its_own_five_minutes(world: World) -> None:
    """A liar who claims an hour does not lend it to a witness of a one-minute blip."""
    accuse(world, "relay-eu-002", 3_600)
    accuse(world, "relay-eu-003", 60)
    assert world.server(NAME).tier is Tier.ORANGE


def test_seed_004_4_3_evidence_ages_out(world: World) -> None:
    """A witness that stops talking stops counting: after 90 s its word is gone."""
    accuse(world, "relay-eu-002", 400)
    world.now += 91.0
    accuse(world, "relay-eu-003", 400)
    assert world.server(NAME).tier is Tier.ORANGE
    accuse(world, "relay-eu-002", 491)
    assert world.server(NAME).tier is Tier.RED


def test_a_server_that_talks_to_hq_is_condemned_by_all_who_are_independent_of_it() -> None:
    """Three of five cannot reach it, two can: a path is cut between servers, and clients are
    served. Another machine would help nobody (found by the simulator, seed 1)."""
    world = launched()
    for by in ("relay-eu-002", "relay-eu-003", "replica-eu-002"):
        accuse(world, by, 400)
    assert world.server(NAME).tier is Tier.ORANGE
    accuse(world, "replica-eu-003", 400)
    assert world.server(NAME).tier is Tier.RED, "the fifth is of its own provider"


def test_who_spoke_while_it_is_said_to_have_failed_was_not_dead() -> None:
    """Two peers on the far side of a cut have counted for long, and now it reboots (found by the
    simulator, seed 14)."""
    world = launched()
    world.kill(NAME)
    world.died_at.clear()
    world.run(120)
    for by in ("relay-eu-002", "relay-eu-003"):
        accuse(world, by, 400)
    assert world.server(NAME).tier is Tier.ORANGE
    world.run(210)
    for by in ("relay-eu-002", "relay-eu-003"):
        accuse(world, by, 610)
    assert world.server(NAME).tier is Tier.RED, "silent for five minutes by now"


def test_a_red_server_that_has_answered_since_fails_anew(world: World) -> None:
    """Headquarters was down while it came back, and it reboots as they listen again (found by the
    simulator, seed 6)."""
    world.stuck.update(world.providers)
    for by in ("relay-eu-002", "relay-eu-003"):
        accuse(world, by, 400)
    assert world.server(NAME).tier is Tier.RED
    world.now += 900.0
    world.restart()
    world.run(80)
    for by in ("relay-eu-002", "relay-eu-003"):
        accuse(world, by, 200)
    assert world.server(NAME).tier is Tier.RED, "there are others to be heard"
    world.run(15)
    assert world.server(NAME).tier is Tier.ORANGE
    world.run(85)
    for by in ("relay-eu-002", "relay-eu-003"):
        accuse(world, by, 300)
    assert world.server(NAME).tier is Tier.RED


def test_a_server_that_talks_to_hq_is_condemned_by_a_majority_and_the_clients() -> None:
    """Service blocked while the heartbeat lives: clients say so, and most of the peers."""
    world = launched()
    node = world.server(NAME).node
    for by in ("relay-eu-002", "relay-eu-003", "replica-eu-002"):
        said = failing(witness(world, by), NAME, node, 400.0)
        world.step(msgspec.structs.replace(said, clients=11, clients_active=500))
    assert world.server(NAME).tier is Tier.RED


def test_clients_of_whom_only_one_witness_speaks_condemn_nobody() -> None:
    """Two peers are cut off from a server that serves, and a third lies: it has failed for hours,
    and a thousand clients say so. Clients tell everybody (found by the simulator, seed 1017)."""
    world = launched()
    node = world.server(NAME).node
    for by in ("relay-eu-002", "relay-eu-003"):
        accuse(world, by, 400)
    liar = witness(world, "replica-eu-002")
    said = failing(liar, NAME, node, 10_000.0)
    world.step(msgspec.structs.replace(said, clients=1_000))
    assert world.server(NAME).tier is Tier.ORANGE
    honest = failing(witness(world, "relay-eu-003"), NAME, node, 400.0)
    world.step(msgspec.structs.replace(honest, clients=11, clients_active=500))
    assert world.server(NAME).tier is Tier.RED, "two independent ones have heard them"


def test_as_many_who_reach_it_contradict(world: World) -> None:
    node = world.server(NAME).node
    reached = Witnessed(witness(world, "relay-eu-003"), NAME, node, Tier.YELLOW, probe_ok=True)
    world.step(reached)
    accuse(world, "relay-eu-002", 400)
    assert world.server(NAME).tier is Tier.YELLOW


def test_the_timer_survives_a_failover(world: World) -> None:
    """D27: a new HQ asks the witnesses again and counts from the same first failure."""
    for by in ("relay-eu-002", "relay-eu-003"):
        accuse(world, by, 200)
    first = world.server(NAME).first_failed_at
    assert first == world.now - 200
    world.restart()
    assert world.server(NAME).tier is Tier.ORANGE
    assert world.server(NAME).first_failed_at == first
    world.run(30, 30)
    for by in ("relay-eu-002", "relay-eu-003"):
        accuse(world, by, 230)
    world.run(69, 1)
    assert world.server(NAME).tier is Tier.ORANGE
    world.run(1, 1)
    assert world.server(NAME).tier is Tier.RED
    assert world.server(NAME).first_failed_at == first


def test_a_new_hq_does_not_clear_what_it_has_not_heard_of(world: World) -> None:
    """A RED server whose agent still beats stays RED until witnesses have had time to speak."""
    for by in ("relay-eu-002", "relay-eu-003"):
        accuse(world, by, 400)
    world.stuck.add("amber")
    world.restart()
    world.step(events.Beat(world.server(NAME).node, Load(free_bytes=1)))
    world.step(events.Tick())
    assert world.server(NAME).tier is Tier.RED


def test_a_new_hq_does_not_replace_what_is_only_doubted_now() -> None:
    """RED in the rows, ordered before, and back since: one witness still fails to reach it, two do
    reach it. Another machine would be for nothing (found by the simulator, seed 1011)."""
    world = launched()
    world.stuck.add("amber")
    for by in world.fleet.state.peers(NAME):
        accuse(world, by, 400)
    assert world.server(NAME).tier is Tier.RED
    world.restart()
    before = len(world.lines("spawn.intended"))
    for intent in list(world.fleet.state.intents.values()):
        if intent.action == "spawn":
            world.step(events.OrderFailed(intent.id, "no such machine", True))
    node = world.server(NAME).node
    accuse(world, "relay-eu-003", 130)
    for by in ("relay-eu-002", "replica-eu-002"):
        reached = Witnessed(witness(world, by), NAME, node, Tier.YELLOW, probe_ok=True)
        world.step(reached)
    world.step(events.Beat(node, Load(free_bytes=1)))
    world.run(20)
    assert world.server(NAME).tier is Tier.RED
    assert len(world.lines("spawn.intended")) == before
    for by in world.fleet.state.peers(NAME):
        accuse(world, by, 460)
    world.run(20)
    assert len(world.lines("spawn.intended")) == before + 1, "confirmed anew"


# --- Who may accuse -----------------------------------------------------------------------------
def test_only_slot_peers_of_the_present_node_may_accuse(world: World) -> None:
    node = world.server(NAME).node
    for said in (
        failing(b"?" * 32, NAME, node, 400),
        failing(witness(world, "relay-ap-002"), NAME, node, 400),
        failing(node, NAME, node, 400),
        failing(witness(world, "relay-eu-002"), NAME, b"?" * 32, 400),
        failing(witness(world, "relay-eu-002"), "relay-xx-999", node, 400),
    ):
        world.step(said)
    assert world.server(NAME).tier is Tier.GREEN


def test_a_revoked_witness_counts_for_nothing(world: World) -> None:
    outlaw = witness(world, "relay-eu-002")
    world.step(events.Revoked(outlaw))
    world.step(failing(outlaw, NAME, world.server(NAME).node, 400))
    assert world.server(NAME).tier is Tier.GREEN


# --- seed 004 §4.4 -------------------------------------------------------------------------------
def make_red(world: World, name: str, *by: str) -> None:
    for peer in by:
        accuse(world, peer, 400, name)
    assert world.server(name).tier in (Tier.RED, Tier.BLACK)


def test_seed_004_4_4_one_server_is_red_two_of_a_provider_are_black() -> None:
    """seed 004 §4.4: a second RED server of the same provider makes the provider lost."""
    world = launched()
    world.lose("amber")
    world.died_at.clear()
    world.run(330)
    make_red(world, NAME, "relay-eu-002", "relay-eu-003")
    assert world.fleet.state.providers["amber"].state == "up"
    assert not world.lines("provider.lost")
    for name in ("relay-ap-001", "replica-eu-001"):
        accuse(world, name.replace("001", "002"), 60, name)
    make_red(world, "replica-ap-001", "relay-ap-002", "relay-ap-003")
    assert world.fleet.state.providers["amber"].state == "lost"
    assert [world.server(name).tier for name in world.at("amber")] == [Tier.BLACK] * 4
    (line,) = world.lines("provider.lost")
    assert line.detail["servers"] == world.at("amber")
    assert line.detail["slots"] == 32


def test_seed_004_4_4_one_server_each_of_two_providers_is_no_provider_loss() -> None:
    world = launched()
    world.kill(NAME, "relay-ap-002")
    world.died_at.clear()
    world.run(330)
    make_red(world, NAME, "relay-eu-002", "relay-eu-003")
    make_red(world, "relay-ap-002", "relay-ap-001", "relay-ap-003")
    assert not world.lines("provider.lost")


def test_seed_004_4_4_servers_that_answer_are_not_marked() -> None:
    """seed 004 §4.4: a regional outage of a provider marks only what is silent."""
    world = launched()
    world.kill(NAME, "replica-eu-001")
    world.died_at.clear()
    world.run(330)
    make_red(world, NAME, "relay-eu-002", "relay-eu-003")
    make_red(world, "replica-eu-001", "relay-eu-002", "relay-eu-003")
    assert world.server(NAME).tier is Tier.BLACK
    assert world.server("relay-ap-001").tier is Tier.GREEN
    assert world.server("replica-ap-001").tier is Tier.GREEN


def test_seed_004_4_4_who_is_silent_to_headquarters_alone_is_not_marked() -> None:
    """It may be a cut between the two. A peer that reaches a server has nothing to say of it; one
    that does not would."""
    world = launched()
    world.kill(NAME, "replica-eu-001")
    world.mute.update(witness(world, name) for name in ("relay-ap-001", "replica-ap-001"))
    world.died_at.clear()
    world.run(330)
    accuse(world, "relay-ap-002", 60, "relay-ap-001")
    make_red(world, NAME, "relay-eu-002", "relay-eu-003")
    make_red(world, "replica-eu-001", "relay-eu-002", "relay-eu-003")
    assert world.lines("provider.lost")
    assert world.server("relay-ap-001").tier is Tier.BLACK
    assert world.server("replica-ap-001").tier is Tier.GREEN


def volunteer(world: World, name: str, owner: str, provider: str) -> bytes:
    """A server somebody brought, and says that it stands there."""
    node = hash_bytes(name.encode())
    role = Role.RELAY if name.startswith("relay") else Role.REPLICA
    row = NodeRow(node=node, identity=b"", name=name, role=role, region="eu", provider=provider,
                  owner=owner, addresses=("10.0.0.1:1",), serial=name, cert_expires_at=0,
                  joined_at=world.now)  # fmt: skip
    world.join_row(row)
    return node


def test_who_says_it_stands_at_a_provider_does_not_lose_it() -> None:
    """Two machines that an owner switches off are not the provider that headquarters orders from;
    where it orders none, owners' word is all there is."""
    for provider, lost in (("amber", False), ("home", True)):
        world = launched()
        names = ("relay-eu-101", "replica-eu-101")
        for name in names:
            volunteer(world, name, "mallory", provider)
        for number, owner in ((2, "carol"), (3, "dave")):
            for role in ("relay", "replica"):
                volunteer(world, f"{role}-eu-10{number}", owner, f"home-{owner}")
        world.run(300)
        world.kill(*names)
        world.run(420)
        assert {line.subject for line in world.lines("server.red")} == set(names)
        assert bool(world.lines("provider.lost")) is lost, provider


def test_seed_004_4_4_red_long_apart_is_not_together() -> None:
    world = launched()
    world.stuck.add("amber")
    world.kill(NAME)
    world.run(420)
    assert world.server(NAME).tier is Tier.RED
    world.run(301)
    world.kill("relay-ap-001")
    world.until(lambda: world.server("relay-ap-001").tier in (Tier.RED, Tier.BLACK), 600)
    assert not world.lines("provider.lost")


def test_revoked_nodes_do_not_lose_a_provider() -> None:
    world = launched()
    for name in world.at("amber"):
        world.step(events.Revoked(world.server(name).node))
    world.run(5)
    assert not world.lines("provider.lost")
    assert world.lines("server.red")


# --- D28 -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "load", [Load(writable=False), Load(commit_p99_ms=5_001.0), Load(writable=False, free_bytes=9)]
)
def test_gray_failure_is_orange_and_draining(load: Load) -> None:
    """D28: full, read-only or slow is not green."""
    world = launched()
    node = world.server(NAME).node
    world.step(events.Beat(node, load))
    assert world.server(NAME).tier is Tier.ORANGE
    assert world.server(NAME).draining
    world.step(events.Beat(node, Load(commit_p99_ms=5_000.0)))
    assert world.server(NAME).tier is Tier.GREEN
    assert not world.server(NAME).draining


# --- Independence --------------------------------------------------------------------------------
def server(provider: str, owner: str = OPERATOR, name: str = "relay-eu-001") -> ServerRow:
    return ServerRow(name=name, role=Role.RELAY, region="eu", provider=provider, owner=owner)


def test_independence_is_provider_and_owner() -> None:
    """D2: the failure domain is provider and owner; the operator's machines share no fate."""
    assert independent(server("amber"), server("birch"))
    assert not independent(server("amber"), server("amber", "ann"))
    assert not independent(server("amber", "ann"), server("birch", "ann"))
    assert independent(server("amber", "ann"), server("birch", "bob"))


def test_counting_independent_servers_looks_past_a_bad_first_pick() -> None:
    rows = [server("amber", "ann"), server("birch", "ann"), server("amber", "bob")]
    assert count_independent(rows) == 2
    assert count_independent(rows[:2]) == 1
    assert count_independent([]) == 0


def test_the_last_two_providers_can_still_convict() -> None:
    """With one provider gone and seats doubled up, two servers of what is left must do."""
    world = launched()
    world.lose("amber")
    world.until(world.is_whole, 3_000)
    world.run(700)
    world.lose("birch")
    world.until(lambda: world.fleet.state.providers["birch"].state == "lost", 900)
    world.until(world.is_whole, 3_000)
    assert {row.provider for row in world.servers.values()} == {"cedar"}


# --- The table -----------------------------------------------------------------------------------
def test_the_table_moves_only_where_the_protocol_says() -> None:
    """Nothing leaves RED or BLACK on doubt; nothing gets there without confirmation or decree."""
    assert set(TRANSITIONS) == set(Tier)
    for tier, row in TRANSITIONS.items():
        assert Signal.UNKNOWN not in row
        for signal, after in row.items():
            assert after is not tier, "a move to where it is says nothing"
            assert after is not Tier.BLACK
            if after is Tier.RED:
                assert signal in (Signal.CONFIRMED, Signal.GONE)
            if tier in (Tier.RED, Tier.BLACK):
                assert signal in (Signal.CLEAR, Signal.GRAY, Signal.RELAPSED)


def test_a_revoked_row_in_the_store_is_enough(world: World) -> None:
    """The brain may miss the news: after a restart the row alone makes the server RED."""
    node = world.server("relay-eu-002").node
    row = world.rows_of(NodeRow)[node]
    world.rows[world.key(row)] = msgspec.structs.replace(row, state=NodeState.REVOKED)
    world.restart()
    assert world.server("relay-eu-002").tier is Tier.RED
    assert world.fleet.healing.spawn("relay-eu-002") is not None
