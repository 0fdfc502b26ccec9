"""What ails a server: dead, blocked, sick, its provider down, or HQ itself cut off."""

from __future__ import annotations

import msgspec
import pytest
from tests.logic.fleet_world import World, failing, launched

from holdfast.logic.fleet import events
from holdfast.logic.fleet.causes import Cause
from holdfast.logic.fleet.model import Tier

NAME = "relay-eu-001"
PEERS = ("relay-eu-002", "relay-eu-003", "replica-eu-002", "replica-eu-003")


def condemn(world: World, name: str = NAME, clients: int = 0) -> None:
    node = world.server(name).node
    for by in PEERS:
        said = failing(world.server(by).node, name, node, 400.0)
        world.step(msgspec.structs.replace(said, clients=clients, clients_active=500))


def test_a_dead_server_is_dead() -> None:
    world = launched()
    world.kill(NAME)
    world.until(lambda: world.server(NAME).tier is Tier.RED, 400)
    assert world.fleet.cause(NAME) is Cause.DEAD
    assert world.lines("server.red")[-1].detail["cause"] == "dead"


def test_a_service_that_is_blocked_while_its_heartbeat_lives() -> None:
    """Clients and peers are cut off from it, HQ is not: a blocked address, not a dead machine."""
    world = launched()
    condemn(world, clients=50)
    assert world.server(NAME).tier is Tier.RED
    assert world.fleet.cause(NAME) is Cause.BLOCKED


def test_a_full_disk_is_sick() -> None:
    world = launched()
    world.gray.add(world.server(NAME).node)
    world.run(60)
    assert world.fleet.cause(NAME) is Cause.SICK


def test_a_lost_provider_is_the_cause_of_all_its_servers() -> None:
    world = launched()
    names = world.at("amber")
    world.lose("amber")
    world.until(lambda: world.server(names[0]).tier is Tier.BLACK, 600)
    assert {world.fleet.cause(name) for name in names if world.server(name).tier is Tier.BLACK} == {
        Cause.PROVIDER_DOWN
    }


def test_a_revoked_node_is_excluded() -> None:
    world = launched()
    world.step(events.Revoked(world.server(NAME).node))
    assert world.fleet.cause(NAME) is Cause.EXCLUDED


def test_hq_that_hears_nobody_blames_itself() -> None:
    world = launched()
    for node in sorted(world.alive):
        world.mute.add(node)
    world.run(200)
    assert world.fleet.guard.frozen
    condemn(world)
    ailing = [name for name in world.servers if world.server(name).tier is not Tier.GREEN]
    assert ailing
    assert {world.fleet.cause(name) for name in ailing} <= {Cause.HQ_CUT_OFF, Cause.DOUBTED}


def test_nobody_doubts_a_green_one() -> None:
    assert launched().fleet.cause(NAME) is Cause.WELL


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_is_in_the_table(cause: Cause) -> None:
    from holdfast.logic.fleet import causes

    assert f"| {cause.value} " in (causes.__doc__ or "")
