"""Entries and cores in the fleet machine: members, named, drained, retired, and never respawned."""

from __future__ import annotations

import msgspec

from holdfast.logic.fleet import events
from holdfast.logic.fleet.fleet import Fleet
from holdfast.logic.fleet.model import Load, Role, Tier
from holdfast.logic.fleet.rows import NodeRow, NodeState, ServerState
from holdfast.logic.fleet.state import FleetState

NOW = 1_000_000.0
NODE = b"e" * 32


def entry(role: Role = Role.ENTRY) -> NodeRow:
    return NodeRow(
        node=NODE,
        identity=NODE,
        name=f"{role.value}-eu-001",
        role=role,
        region="eu",
        provider="amber",
        owner="ada",
        addresses=("198.51.100.1:443",),
        serial="1",
        cert_expires_at=0,
        joined_at=NOW,
        cell="c1",
    )


def fleet() -> Fleet:
    made = Fleet(FleetState(b"n" * 16), NOW)
    made.start(NOW)
    return made


def test_an_entry_is_a_server_without_a_slot() -> None:
    made = fleet()
    made.step(events.Joined(entry()), NOW)
    server = made.state.servers["entry-eu-001"]
    assert (server.state, server.node) == (ServerState.ACTIVE, NODE)
    assert not made.state.slots


def test_headquarters_orders_no_machine_for_one_that_goes_or_is_excluded() -> None:
    """They are their owners' (seed 000): HQ cannot, and must not, order another."""
    for event in (events.Left(NODE, "its owner takes it away"), events.Revoked(NODE)):
        made = fleet()
        made.step(events.Joined(entry()), NOW)
        made.step(event, NOW + 1)
        for second in range(2, 1_200, 60):
            made.step(events.Tick(), NOW + second)
        assert not made.state.intents


def test_one_that_drained_is_retired_for_good() -> None:
    made = fleet()
    made.step(events.Joined(entry()), NOW)
    made.step(events.Left(NODE, "rotation"), NOW + 1)
    assert made.state.servers["entry-eu-001"].draining
    effects = made.step(events.Retire(NODE, "drained"), NOW + 2)
    assert [line.verb for line in effects.audit] == ["node.retired"]
    assert made.state.nodes[NODE].state is NodeState.RETIRED
    assert made.state.servers["entry-eu-001"].state is ServerState.RETIRED
    assert not made.step(events.Retire(NODE, "again"), NOW + 3).audit


def test_silence_alone_makes_it_red_and_a_word_green_again() -> None:
    """Nobody probes it. No machine is ordered and no provider given up for it."""
    made = fleet()
    nodes = [bytes([n]) * 32 for n in range(3)]
    for number, node in enumerate(nodes):
        row = msgspec.structs.replace(entry(), node=node, identity=node, name=f"entry-eu-{number}")
        made.step(events.Joined(row), NOW)

    def tiers() -> list[Tier]:
        return [made.state.servers[f"entry-eu-{number}"].tier for number in range(3)]

    at = NOW
    for _ in range(8):
        at += 30.0
        made.step(events.Beat(nodes[0], Load()), at)
        made.step(events.Tick(), at)
    assert tiers() == [Tier.GREEN, Tier.RED, Tier.RED]
    assert not made.state.intents
    assert not made.state.providers
    made.step(events.Beat(nodes[1], Load()), at)
    made.step(events.Tick(), at)
    assert tiers() == [Tier.GREEN, Tier.GREEN, Tier.RED]


def test_only_the_access_layer_is_retired_this_way() -> None:
    made = fleet()
    made.step(events.Joined(entry(Role.RELAY)), NOW)
    made.step(events.Retire(NODE, "drained"), NOW + 1)
    assert made.state.nodes[NODE].state is NodeState.ACTIVE
