"""The brain end to end over a store in memory: heal, survive, refuse, and say so."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from tests.hq.brain_world import (
    NETWORK,
    PROVIDERS,
    BrainWorld,
    FakeCloud,
    GatedStore,
    elect,
    sender,
    sign_record,
)

from holdfast.crypto.certinfo import NodeName
from holdfast.errors import OperationFault, PeerFault
from holdfast.hq.audit import AuditLog
from holdfast.hq.brain import Brain
from holdfast.hq.brain_rows import Deposed, Rows, merge
from holdfast.hq.brain_words import SENTENCES, Kind, sentence
from holdfast.limits import TXN_OPERATIONS_MAX
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.events import Order, Ordered, OrderFailed
from holdfast.logic.fleet.model import Role, SlotRecord, Tier
from holdfast.logic.fleet.rows import (
    IntentRow,
    IntentState,
    NodeRow,
    NodeState,
    ProviderRow,
    node_key,
)
from holdfast.rim.clock import ManualClock, SystemClock
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.control.store import Put
from holdfast.rim.dns.zone import Zone
from holdfast.rim.entropy import SeededEntropy
from holdfast.wire.hq import Alert
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type, decode_body

NAME = "relay-eu-001"
Story = Callable[[BrainWorld], Awaitable[None]]


def run(story: Story, *, regions: tuple[str, ...] = ("eu",)) -> BrainWorld:
    """Launch, tell the story, stop."""

    async def main() -> BrainWorld:
        world = BrainWorld()
        await world.start()
        await world.call(world.brain.launch(regions))
        await world.until(world.is_whole, 3_000)
        await story(world)
        await world.brain.stop()
        return world

    return asyncio.run(main())


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


# --- Rows ----------------------------------------------------------------------------------------
def node_row(**changes: object) -> NodeRow:
    row = NodeRow(
        node=b"n" * 32,
        identity=b"",
        name=NAME,
        role=Role.RELAY,
        region="eu",
        provider="amber",
        owner="operator",
        addresses=("127.0.0.1:443",),
        serial="1",
        cert_expires_at=1,
        joined_at=1.0,
    )
    return msgspec.structs.replace(row, **changes)


def test_a_renewal_under_our_hands_is_kept() -> None:
    stored = node_row(serial="2", cert_expires_at=99)
    decided = node_row(state=NodeState.RETIRED, reaped_at=5.0)
    merged = merge(stored, decided)
    assert (merged.serial, merged.cert_expires_at) == ("2", 99)
    assert (merged.state, merged.reaped_at) == (NodeState.RETIRED, 5.0)
    assert merge(node_row(state=NodeState.REVOKED), decided).state is NodeState.REVOKED
    assert merge(stored, node_row(state=NodeState.REVOKED)).state is NodeState.REVOKED


def test_large_changes_are_cut_to_the_limit_of_a_transaction() -> None:
    async def main() -> None:
        world = BrainWorld()
        rows = Rows(world.store)
        await rows.load()
        many = [
            (f"/fleet/providers/p{n:04d}", ProviderRow(f"p{n:04d}", ()))
            for n in range(3 * TXN_OPERATIONS_MAX)
        ]
        await rows.save(many)
        assert len(await rows.load()) == len(many)
        assert world.store.writes == 4

    asyncio.run(main())


def test_a_damaged_row_is_named() -> None:
    async def main() -> None:
        world = BrainWorld()
        await world.store.txn([], [Put(node_key(b"n" * 32), b"\xc1")])
        with pytest.raises(OperationFault, match="damaged") as caught:
            await world.start()
        assert not caught.value.retryable

    asyncio.run(main())


# --- Hands ---------------------------------------------------------------------------------------
def order(world: BrainWorld, provider: str = "amber") -> Order:
    return Order(
        IntentRow(
            id="relay-eu-001-aaaaaaaaaa",
            term=1,
            action="spawn",
            name=NAME,
            role=Role.RELAY,
            provider=provider,
            region="eu",
            reason="heal",
            state=IntentState.WRITTEN,
            created_at=0.0,
        )
    )


def test_an_order_given_twice_makes_one_machine() -> None:
    """D25: list before create; and when both listed before either created, the name decides."""

    async def main() -> None:
        world = BrainWorld()
        await world.start()
        healer = world.brain._healer
        answers = await asyncio.gather(*(healer.carry_out(order(world)) for _ in range(5)))
        assert answers == [Ordered("relay-eu-001-aaaaaaaaaa")] * 5
        assert len(world.created) == 1
        world.clouds["amber"].up = False
        assert await healer.carry_out(order(world)) == OrderFailed(
            "relay-eu-001-aaaaaaaaaa", "amber does not answer", False
        )
        answer = await healer.carry_out(order(world, "nowhere"))
        assert isinstance(answer, OrderFailed)
        assert answer.final
        await world.brain.stop()

    asyncio.run(main())


# --- Words ---------------------------------------------------------------------------------------
def test_every_verb_has_a_sentence_and_lines_of_others_do_not_hurt() -> None:
    async def story(world: BrainWorld) -> None:
        world.lose("amber")
        await world.until(world.is_whole, 3_000)

    world = run(story)
    assert set(world.verbs()) <= set(SENTENCES)
    for line in world.lines:
        text = sentence(line)
        assert text
        assert text != line.verb.replace(".", " "), "its own sentence, not the fallback"
    assert sentence(Audit("node.joined", "x", {})) == "node joined"
    assert sentence(Audit("token.issued", "x", {})) == "token issued"


# --- With the real store, audit chain and zone ---------------------------------------------------
def test_with_sqlite_the_real_zone_and_a_squeezed_clock() -> None:
    """The tour's shape in small: elapsed time runs 600 times faster than the wall."""

    async def main() -> None:
        clock = SystemClock(600.0)
        store = await SqliteStore.open(None, clock)
        world = BrainWorld(ManualClock())
        world.clock = clock  # type: ignore[assignment]
        world.store = store  # type: ignore[assignment]
        world.clouds = {name: FakeCloud(name, clock) for name in PROVIDERS}
        zone = Zone(store, clock, "example.net")
        await zone.start()
        brain = Brain(
            store=store,
            clock=clock,
            entropy=SeededEntropy(1),
            clouds=world.clouds,
            zone=zone,
            sign_record=sign_record,
            issue_token=world._issue_token,
            audit=AuditLog(store, clock, "hq-test", lambda: 1),
            network=NETWORK,
            domain="example.net",
        )
        world.brain = brain
        await brain.start()
        await brain.launch(("eu",))
        spoke_at = 0.0

        async def live(done: Callable[[], bool]) -> None:
            nonlocal spoke_at
            async with clock.real_timeout(30):
                while not done():
                    await clock.sleep_real(0.01)
                    await world.boot()
                    if clock.elapsed() - spoke_at >= 30:
                        spoke_at = clock.elapsed()
                        await beat_all()

        async def beat_all() -> None:
            for node in sorted(world.alive):
                await brain.heartbeat(node, world.beat(node))
            for node, since in world.died_at.items():
                name = brain._machine.state.name_of.get(node)
                for peer in sorted(brain._machine.state.peers(name)) if name else ():
                    failed_s = clock.elapsed() - since
                    await scaled_alert(world, world.server(peer).node, name, node, failed_s)

        def whole() -> bool:
            view = brain.view()
            points = {s.name: zone.find(s.name) for s in view.servers}
            return (view.relays_min, view.replicas_min) == (3, 3) and all(
                s.filled and (entry := points[s.name]) and entry.node == world.server(s.name).node
                for s in view.servers
            )

        await live(lambda: bool(brain.view().slots) and whole())
        dead = world.server(NAME).node
        died_at = clock.elapsed()
        world.kill(NAME)
        await live(lambda: world.server(NAME).node != dead)
        assert clock.elapsed() - died_at >= 300
        await live(whole)
        assert len(world.created) == 7
        await brain.stop()
        again = Brain(
            store=store,
            clock=clock,
            entropy=SeededEntropy(2),
            clouds=world.clouds,
            zone=zone,
            sign_record=sign_record,
            issue_token=world._issue_token,
            audit=AuditLog(store, clock, "hq-test", lambda: 1),
            network=NETWORK,
            domain="example.net",
        )
        await again.start()
        assert "server.red" in {entry.verb for entry in again.view().timeline}
        await again.stop()
        await zone.stop()
        await store.close()

    asyncio.run(main())


async def scaled_alert(
    world: BrainWorld, witness: bytes, name: str | None, node: bytes, failed_s: float
) -> None:
    """As a relay under the same squeezed clock would send it: Unix times, real seconds."""
    from holdfast.wire.hq import ProbeResult

    wall = world.clock.wall()
    failures = int(failed_s // 30) + 1
    probe = ProbeResult(name or "", node, False, failures, wall - failed_s / world.clock.scale)
    alert = Alert(name or "", node, Tier.ORANGE, 0, 0, (), 0.0, probe, wall)
    await world.brain.alert(sender(witness), alert)


def test_the_gate_itself_kills() -> None:
    """Positive control: behind a closed gate nothing takes effect."""

    async def main() -> None:
        world = BrainWorld()
        await world.start(crash_at=1)
        assert not world.gate.dead.is_set(), "an empty fleet writes nothing at start"
        launching = asyncio.create_task(world.brain.launch(("eu",)))
        await world.gate.dead.wait()
        assert isinstance(world.brain._store, GatedStore)
        assert not world.store.rows
        launching.cancel()
        await world.brain.stop()

    asyncio.run(main())
