"""The brain end to end over a store in memory: heal, survive, refuse, and say so."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import msgspec
import pytest
from tests.hq.brain_world import (
    NETWORK,
    PROVIDERS,
    BrainWorld,
    elect,
    run,
    sender,
)

from holdfast.crypto.certinfo import NodeName
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.hq.brain_rows import Deposed
from holdfast.hq.brain_words import Kind
from holdfast.logic.fleet.model import SlotRecord, Tier
from holdfast.logic.fleet.rows import (
    NodeState,
)
from holdfast.wire.cloud import CreateServer, Server
from holdfast.wire.hq import Alert
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type, decode_body

NAME = "relay-eu-001"


# --- The job -------------------------------------------------------------------------------------
def test_launch_stands_and_slots_are_given_out() -> None:
    async def story(world: BrainWorld) -> None:
        assert Counter(name.rsplit("-", 1)[0] for name in world.created) == Counter(
            f"{role}-eu-{number:03d}" for role in ("relay", "replica") for number in (1, 2, 3)
        )
        staple = await world.brain.allocate("eu")
        record = decode_body(Type.SLOT_RECORD, SlotRecord, staple.signed)
        assert record.network == NETWORK
        assert {seat.provider for seat in record.relays} == set(PROVIDERS)
        assert {seat.provider for seat in record.replicas} == set(PROVIDERS)
        assert world.brain.record(record.slot) == staple
        groups = {slot.slot: slot.groups for slot in world.brain.view().slots}
        assert groups[record.slot.hex()] == 1
        await world.restart()
        groups = {slot.slot: slot.groups for slot in world.brain.view().slots}
        assert groups[record.slot.hex()] == 1, "counted durably"
        assert world.brain.record(b"?" * 16) is None

    run(story)


def test_no_slot_yet_is_a_retryable_fault() -> None:
    async def main() -> None:
        world = BrainWorld()
        await world.start()
        with pytest.raises(OperationFault, match="no slot") as caught:
            await world.brain.allocate("eu")
        assert caught.value.retryable
        await world.brain.stop()

    asyncio.run(main())


def test_seed_004_4_3_one_death_one_spawn() -> None:
    """seed 004 §4.3: the whole sequence, and a story a person can read."""

    async def story(world: BrainWorld) -> None:
        dead = world.server(NAME).node
        world.kill(NAME)
        await world.until(lambda: world.server(NAME).node != dead, 460)
        await world.until(world.is_whole, 600)
        assert len(world.created) == 7
        assert world.row(dead).state is NodeState.RETIRED
        assert world.row(dead).reaped_at > 0
        assert sum(len(cloud.deleted) for cloud in world.clouds.values()) == 1
        verbs = [verb for verb in world.verbs() if verb.startswith("server.")]
        assert verbs[-4:] == ["server.yellow", "server.orange", "server.red", "server.seated"]
        timeline = world.brain.view().timeline
        assert timeline[0].sequence > timeline[-1].sequence
        by_verb = {entry.verb: entry for entry in reversed(timeline)}
        assert by_verb["server.red"].kind is Kind.DECIDED
        assert "is down" in by_verb["server.red"].text
        assert "replaces the dead" in by_verb["server.seated"].text

    run(story)


def test_seed_004_4_4_provider_lost_and_back() -> None:
    """seed 004 §4.4: all seats replaced, debt > 0 until the provider returns, then 0."""

    async def story(world: BrainWorld) -> None:
        nodes = world.lose("amber")
        await world.until(lambda: "provider.lost" in world.verbs(), 400)
        view = world.brain.view()
        assert {p.name: p.state for p in view.providers}["amber"] == "lost"
        assert {s.tier for s in view.servers if s.provider == "amber"} == {Tier.BLACK}
        assert view.relays_min == view.replicas_min == 2
        await world.until(world.is_whole, 2_000)
        assert len(world.created) == 8
        assert world.debt == 32
        world.bring_back("amber", nodes)
        await world.until(lambda: world.debt == 0, 6_000)
        await world.until(world.is_whole, 2_000)
        await world.run(120)
        assert len(world.created) == 10
        assert len(world.clouds["amber"].machines) == 2
        assert all(world.row(node).state is NodeState.RETIRED for node in nodes)

    run(story)


def test_ten_thousand_reports_without_a_death_spawn_nothing() -> None:
    """seed 004 §9.1: reports are hints; a healthy relay answers probes whatever clients claim."""

    async def story(world: BrainWorld) -> None:
        node = world.server(NAME).node
        witness = world.server("relay-eu-002").node
        writes = world.store.writes
        for index in range(10_000):
            alert = Alert(
                name=NAME,
                node=node,
                tier=Tier.YELLOW,
                clients=index + 11,
                clients_active=20_000,
                regions=("eu", "ap", "x" * 10_000),
                first_reported_at=world.clock.wall(),
                probe=None,
                observed_at=world.clock.wall(),
            )
            await world.brain.alert(sender(witness), alert)
        await world.idle()
        assert world.server(NAME).tier is Tier.YELLOW
        await world.run(600)
        assert len(world.created) == 6
        assert world.store.writes - writes < 50, "a flood is not written down"

    run(story)


def test_freeze_when_nobody_is_heard() -> None:
    """D29: HQ cut off from everybody suspects itself, says so, and serves on."""

    async def story(world: BrainWorld) -> None:
        alive, world.alive = world.alive, set()
        await world.until(lambda: world.brain.view().frozen, 300)
        view = world.brain.view()
        assert view.freeze is not None
        assert view.freeze.dead == 6
        assert "suspects itself" in view.timeline[0].text
        await world.restart()
        assert world.brain.view().frozen
        assert isinstance(await world.brain.allocate("eu"), Staple)
        world.alive = alive
        await world.run(60)
        assert not world.brain.view().frozen
        assert len(world.created) == 6

    run(story)


def test_an_operator_lifts_the_freeze() -> None:
    async def story(world: BrainWorld) -> None:
        world.lose("amber")
        world.lose("birch")
        await world.until(lambda: world.brain.view().frozen, 300)
        await world.run(400)
        assert len(world.created) == 6
        await world.call(world.brain.confirm("ann"))
        await world.until(world.is_whole, 4_000)
        assert len(world.created) == 10

    run(story)


def test_leaving_and_revocation_move_the_seat() -> None:
    async def story(world: BrainWorld) -> None:
        node = world.server(NAME).node
        await world.call(world.brain.left(node, "moving house"))
        await world.until(lambda: world.server(NAME).node != node, 200)
        outlaw = world.server("replica-eu-003").node
        await world.call(world.brain.revoked(outlaw))
        assert world.row(outlaw).state is NodeState.REVOKED
        await world.until(lambda: world.server("replica-eu-003").node != outlaw, 200)
        await world.until(world.is_whole, 600)
        assert len(world.created) == 8

    run(story)


def test_a_foreign_network_has_no_say() -> None:
    async def story(world: BrainWorld) -> None:
        node = world.server("relay-eu-002").node
        alert = Alert(NAME, world.server(NAME).node, Tier.RED, 1, 1, (), 0.0, None, 0.0)
        with pytest.raises(PeerFault):
            await world.brain.alert(NodeName(b"x" * 16, "relay", node), alert)

    run(story)


# --- Crashes and deposition ----------------------------------------------------------------------
async def death_and_loss(world: BrainWorld) -> None:
    """Launch and a death: what the crash loop goes through."""
    await world.call(world.brain.launch(("eu",)))
    if world.restarts:
        await world.call(world.brain.launch(("eu",)))  # an operator repeats what did not answer
    await world.until(world.is_whole, 3_000)
    world.kill("replica-eu-002")
    await world.run(10)
    await world.until(world.is_whole, 1_500)
    nodes = world.lose("amber")
    await world.run(10)
    await world.until(world.is_whole, 3_000)
    world.bring_back("amber", nodes)
    await world.until(lambda: world.debt == 0, 6_000)
    await world.until(world.is_whole, 2_000)
    await world.run(200)


def crash_points(points: range) -> int:
    """Tell the story once for each crash point; gives the number of touches of the last."""

    async def one(crash_at: int) -> int:
        world = BrainWorld()
        await world.start(crash_at)
        if world.gate.dead.is_set():
            await world.restart()
        touches = world.gate
        await death_and_loss(world)
        assert world.restarts == (crash_at > 0), crash_at
        names = Counter(name.rsplit("-", 1)[0] for name in world.created)
        assert names == {
            "relay-eu-001": 3,
            "relay-eu-002": 1,
            "relay-eu-003": 1,
            "replica-eu-001": 3,
            "replica-eu-002": 2,
            "replica-eu-003": 1,
        }, crash_at
        assert sum(len(cloud.machines) for cloud in world.clouds.values()) == 6, crash_at
        assert world.debt == 0
        await world.brain.stop()
        return touches.touches

    last = 0
    for crash_at in points:
        last = asyncio.run(one(crash_at))
    return last


def test_hq_dying_at_some_touches_of_the_world() -> None:
    """D25: HQ dies before or after a write, an order, a deletion or a change of DNS."""
    last = crash_points(range(-1, 0))
    assert last > 100
    crash_points(range(1, last + 1, 17))


@pytest.mark.system
@pytest.mark.parametrize("part", range(4))
def test_hq_dying_at_every_touch_of_the_world(part: int) -> None:
    last = crash_points(range(-1, 0))
    crash_points(range(1 + part, last + 1, 4))


def test_a_deposed_hq_changes_nothing_and_says_so() -> None:
    """D25: whoever lost the lead loses every write."""

    async def story(world: BrainWorld) -> None:
        await elect(world.store, 7)
        before = dict(world.store.rows)
        with pytest.raises(Deposed):
            await world.brain.allocate("eu")
        assert world.brain.deposed.is_set()
        await world.brain.lost()
        assert world.store.rows == before
        with pytest.raises(Deposed):
            await world.brain.tick()
        await world.restart()
        await world.brain.allocate("eu")
        assert world.brain.view().term == 7

    run(story)


def test_a_brain_that_rebuilds_under_a_newer_term_is_deposed() -> None:
    """It may not adopt a term it was never given."""

    async def story(world: BrainWorld) -> None:
        world.store.broken = True
        with pytest.raises(OperationFault):
            await world.brain.allocate("eu")
        world.store.broken = False
        await elect(world.store, 7)
        await world.brain.lost()
        assert world.brain.deposed.is_set()

    run(story)


def test_a_broken_store_sends_nothing_and_is_waited_out() -> None:
    async def story(world: BrainWorld) -> None:
        node = world.server(NAME).node
        world.store.broken = True
        with pytest.raises(OperationFault):
            await world.brain.revoked(node)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(world.created) == 6
        world.store.broken = False
        await world.idle()
        await world.call(world.brain.revoked(node))
        await world.until(world.is_whole, 600)
        assert len(world.created) == 7

    run(story)


def test_a_rebuild_lets_orders_in_flight_end_first() -> None:
    """D25: a second token for the intent would end the one the new machine was given."""

    async def story(world: BrainWorld) -> None:
        cloud = world.clouds["amber"]
        let, creating, create = asyncio.Event(), asyncio.Event(), cloud.create

        async def slowly(request: CreateServer) -> Server:
            creating.set()
            await let.wait()
            return await create(request)

        cloud.create = slowly  # type: ignore[method-assign]
        name = next(s.name for s in world.brain.view().servers if s.provider == "amber")
        node = world.server(name).node
        world.tokens.clear()
        await world.brain.revoked(node)
        for _ in range(1_000):
            await world.brain.tick()
            if creating.is_set():
                break
            world.clock.advance(5.0)
            await world.speak()
        assert creating.is_set()
        world.store.broken = True
        with pytest.raises(OperationFault):
            await world.brain.allocate("eu")
        world.store.broken = False
        for _ in range(50):
            await asyncio.sleep(0)
        let.set()
        await world.idle()
        await world.until(world.is_whole, 600)
        assert len(world.tokens) == len(set(world.tokens)) == 1

    run(story)


def test_stopping_answers_those_who_wait() -> None:
    async def main() -> None:
        world = BrainWorld()
        await world.start(crash_at=1)
        waiting = asyncio.create_task(world.brain.launch(("eu",)))
        for _ in range(10):
            await asyncio.sleep(0)
        await world.brain.stop()
        with pytest.raises(OperationFault, match="stopping"):
            await waiting

    asyncio.run(main())


def test_a_bug_ends_the_brain_loudly() -> None:
    async def story(world: BrainWorld) -> None:
        world.brain._machine.state.servers.clear()  # a bug, simulated by vandalism
        with pytest.raises(OperationFault):
            await world.brain.revoked(next(iter(world.nodes)))
        with pytest.raises(KeyError):
            await world.brain.lost()
        assert world.brain.deposed.is_set()

    run(story)


def test_a_bug_in_an_order_ends_the_brain_too() -> None:
    """A brain whose hands or clock have died must not go on looking alive."""

    async def story(world: BrainWorld) -> None:
        async def broken(task: object) -> None:
            raise KeyError("a bug")

        world.brain._healer.carry_out = broken  # type: ignore[assignment, method-assign]
        await world.brain.revoked(world.server(NAME).node)
        for _ in range(100):
            if world.brain.deposed.is_set():
                break
            world.clock.advance(5.0)
            with contextlib.suppress(OperationFault):
                await world.brain.tick()
            await asyncio.sleep(0)
        assert world.brain.deposed.is_set()
        with pytest.raises(KeyError, match="a bug"):
            await world.brain.lost()
        with pytest.raises(Deposed):
            await world.brain.tick()

    run(story)


def test_changes_wake_whoever_looks() -> None:
    async def story(world: BrainWorld) -> None:
        changes = world.brain.changes()
        first = await anext(changes)
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        assert not waiting.done()
        await world.brain.allocate("eu")
        assert await waiting > first
        assert world.brain.view() is world.brain.view()

    run(story)


def test_bad_input_is_refused_at_the_door() -> None:
    """What would be a bug inside the machine never gets there."""

    async def story(world: BrainWorld) -> None:
        node = world.server(NAME).node
        for addresses in (("nowhere",), ("127.0.0.1:1",) * 9, ("127.0.0.1:99999",)):
            beat = msgspec.structs.replace(world.beat(node), addresses=addresses)
            with pytest.raises(PeerFault):
                await world.brain.heartbeat(node, beat)
        with pytest.raises(UsageError):
            await world.brain.launch(["E U"])
        assert not world.brain.deposed.is_set()

    run(story)
