"""The parts of the brain, and the whole with the real store, audit chain and zone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock

import msgspec
import pytest
from tests.hq.brain_world import (
    NETWORK,
    PROVIDERS,
    BrainWorld,
    FakeCloud,
    GatedStore,
    run,
    sender,
    sign_record,
)

from holdfast.errors import OperationFault
from holdfast.hq.audit import AuditLog
from holdfast.hq.brain import Brain
from holdfast.hq.brain_rows import Rows, merge
from holdfast.hq.brain_words import SENTENCES, sentence
from holdfast.limits import TXN_OPERATIONS_MAX
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.events import Order, Ordered, OrderFailed
from holdfast.logic.fleet.model import Role, Tier
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

NAME = "relay-eu-001"


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


def test_what_was_written_is_what_was_once_true(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that are written together: a store that takes only the first transactions of them holds
    the end of some step's prefix, and never a row of a later step before one of an earlier."""

    async def main() -> None:
        world = BrainWorld()
        rows = Rows(world.store)
        await rows.load()

        def row(name: str, step: int) -> tuple[str, ProviderRow]:
            return (f"/fleet/providers/{name}", ProviderRow(name, (f"step{step}",)))

        between = [row(f"p{n:04d}", 1) for n in range(TXN_OPERATIONS_MAX)]
        txn, cut_off = world.store.txn, iter([False, True])

        async def one(*words: Any) -> Any:
            if next(cut_off):
                raise OperationFault("cut off")
            return await txn(*words)

        with monkeypatch.context() as patch:
            patch.setattr(world.store, "txn", one)
            with pytest.raises(OperationFault):
                await rows.save([row("seat", 1), *between, row("intent", 2), row("seat", 2)])
        found = {each.name: each.regions for each in await rows.load()}
        assert found["seat"] == ("step1",)
        assert "intent" not in found

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


def test_a_machine_that_came_up_with_a_token_that_ended_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An order timed out and is given again; the first machine comes up between look and order. Its
    token ended with the second one: nobody waits for it to join."""

    async def main() -> None:
        world = BrainWorld()
        await world.start()
        healer, cloud = world.brain._healer, world.clouds["amber"]
        assert isinstance(await healer.carry_out(order(world)), Ordered)
        monkeypatch.setattr(cloud, "list", AsyncMock(return_value=()))
        answer = await healer.carry_out(order(world))
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
@pytest.mark.system
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
