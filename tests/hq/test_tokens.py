"""Tokens of spawns, the transparency log and the rates: what the API tests do not reach."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from tests.hq.headquarters import Node, Operator, run

from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.hq.brain_rows import Deposed, Rows
from holdfast.hq.leader import TERM
from holdfast.hq.main import Headquarters
from holdfast.hq.rates import SOURCES_MAX, Rates
from holdfast.hq.records import SlotRecords
from holdfast.hq.tokens import KEPT_S, SPAWNS, TOKENS
from holdfast.hq.transparency import (
    CERTIFICATE,
    LOG,
    LOG_HEAD,
    SLOT_RECORD,
    Leaf,
    TransparencyLog,
)
from holdfast.logic.fleet.model import Role, SlotRecord, Version
from holdfast.logic.fleet.rows import (
    SERVERS,
    IntentRow,
    IntentState,
    SlotRow,
    TokenRow,
    key_of,
)
from holdfast.logic.trust.join import token_hash
from holdfast.logic.trust.merkle import EMPTY_ROOT, root, verify_consistency
from holdfast.rim.clock import ManualClock, SystemClock
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.control.store import ControlStore, Put
from holdfast.wire.codec import pack
from holdfast.wire.token import JoinToken, parse_token

INTENT = IntentRow(
    "i-1", 1, "spawn", "relay-eu-007", Role.RELAY, "alder", "eu", "heal", IntentState.WRITTEN, 0.0
)


def test_one_intent_one_certificate(tmp_path: Path) -> None:
    """D25: HQ crashed after ordering and orders again; two machines come up, one is let in."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        tokens = hq.parts.tokens
        texts = [await tokens.for_intent(INTENT) for _ in range(3)]
        found = [parse_token(text) for text in texts]
        assert {(token.name, token.role) for token in found} == {("relay-eu-007", Role.RELAY)}
        nodes = [Node(hq.parts.api_addresses, hq.parts.authority.roots) for _ in found]
        for node, token in zip(nodes[:2], found, strict=False):
            with pytest.raises(PeerFault) as caught:
                await node.join(token)
            assert caught.value.code == "token"
        reply = await nodes[2].join(found[2])
        assert (reply.name, reply.provider, reply.owner) == ("relay-eu-007", "alder", "operator")
        with pytest.raises(OperationFault) as fault:
            await tokens.for_intent(INTENT)
        assert not fault.value.retryable
        assert len((await hq.parts.store.range(TOKENS)).items) == 1

    run(scenario, tmp_path)


def test_a_deposed_headquarters_makes_no_spawn_token(tmp_path: Path) -> None:
    """D25: its token would end the one that the present leader put into a machine."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        brain = hq.parts.acting()
        await brain._healer._issue_token(INTENT)
        before = (await hq.parts.store.range(TOKENS)).items
        await hq.parts.store.txn([], [Put(TERM, b"99")])
        with pytest.raises(OperationFault) as caught:
            await brain._healer._issue_token(INTENT)
        assert not caught.value.retryable
        assert (await hq.parts.store.range(TOKENS)).items == before

    run(scenario, tmp_path)


def token_for(hq: Headquarters, name: str = "", life_s: float = 600.0) -> TokenRow:
    return TokenRow(Role.RELAY, name, "eu", "", "ann", "", hq.clock.wall() + life_s)


def test_tokens_made_at_once_have_names_of_their_own(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        tokens = hq.parts.tokens
        made = await asyncio.gather(*(tokens.create(token_for(hq)) for _ in range(12)))
        assert len({token.name for token in made}) == 12

    run(scenario, tmp_path)


def test_a_name_is_promised_to_one_token(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        tokens, name = hq.parts.tokens, "relay-eu-042"
        made = await asyncio.gather(
            *(tokens.create(token_for(hq, name)) for _ in range(4)), return_exceptions=True
        )
        refused = [item for item in made if isinstance(item, UsageError)]
        (token,) = [item for item in made if isinstance(item, JoinToken)]
        assert len(refused) == 3
        await tokens.revoke(token_hash(token.secret).hex())
        token = await tokens.create(token_for(hq, name))
        node = Node(hq.parts.api_addresses, hq.parts.authority.roots)
        await node.join(token)
        with pytest.raises(UsageError):
            await tokens.create(token_for(hq, name))
        while await hq.parts.store.get(SERVERS + name) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with pytest.raises(UsageError, match="serves"):
            await tokens.create(token_for(hq, name))

    run(scenario, tmp_path)


def test_old_tokens_are_forgotten(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        await hq.parts.tokens.for_intent(INTENT)
        await operator.token()
        assert await hq.parts.tokens.forget_old() == 0
        clock = ManualClock(wall_s=hq.clock.wall() + KEPT_S + 25 * 3_600)
        hq.parts.tokens._clock = clock
        assert await hq.parts.tokens.forget_old() == 2
        store = hq.parts.store
        assert (await store.range(TOKENS)).items == (await store.range(SPAWNS)).items == ()

    run(scenario, tmp_path)


# --- The transparency log ------------------------------------------------------------------------
def with_store(scenario: Callable[[ControlStore], Awaitable[None]]) -> None:
    async def main() -> None:
        store = await SqliteStore.open(None, SystemClock())
        async with asyncio.timeout(30):
            await scenario(store)
        await store.close()

    asyncio.run(main())


async def opened(store: ControlStore) -> TransparencyLog:
    log = TransparencyLog(store)
    await log.open()
    return log


def test_two_writers_make_one_log() -> None:
    async def scenario(store: ControlStore) -> None:
        logs = [await opened(store) for _ in range(2)]
        assert logs[0].tree.root() == EMPTY_ROOT

        async def write(log: TransparencyLog, name: str) -> None:
            for index in range(15):
                log.note(Leaf(CERTIFICATE, f"{name}{index}".encode()))
                await log.settle()

        await asyncio.gather(*(write(log, name) for log, name in zip(logs, "ab", strict=True)))
        leaves = [kv.value for kv in (await store.range(LOG)).items]
        assert len(set(leaves)) == 30
        fresh = await opened(store)
        assert fresh.tree.root() == root(leaves)
        old, new = fresh.tree.root(11), fresh.tree.root()
        assert verify_consistency(11, old, 30, new, fresh.tree.consistency(11))

    with_store(scenario)


def test_many_leaves_at_once_and_none_twice() -> None:
    async def scenario(store: ControlStore) -> None:
        log = await opened(store)
        for _ in range(2):
            for index in range(150):
                log.note(Leaf(SLOT_RECORD, str(index).encode()))
            await log.settle()
        assert len(log.tree) == 150
        again = await opened(store)
        again.note(Leaf(SLOT_RECORD, b"7"))
        await again.settle()
        assert len(again.tree) == 150

    with_store(scenario)


def test_a_transaction_that_fails_leaves_no_leaf() -> None:
    async def scenario(store: ControlStore) -> None:
        log, other = await opened(store), await opened(store)
        prepared = await log.prepare([Leaf(CERTIFICATE, b"lost")])
        other.note(Leaf(CERTIFICATE, b"won"))
        await other.settle()
        assert not (await store.txn(prepared.compares, prepared.puts)).succeeded
        again = await log.prepare([Leaf(CERTIFICATE, b"kept")])
        assert (await store.txn(again.compares, again.puts)).succeeded
        log.took(again)
        assert len(log.tree) == 2
        assert not log.contains(Leaf(CERTIFICATE, b"lost"))

    with_store(scenario)


def test_records_that_a_crash_left_out_are_logged_at_the_next_lead(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        records = SlotRecords(hq.parts.store, hq.parts.authority, TransparencyLog(hq.parts.store))
        record = SlotRecord(bytes(16), b"s" * 16, Version(0, 1), 0, (), ())
        staple = records(record)  # signed by a process that then died
        row = SlotRow(b"s" * 16, "eu", Version(0, 1), (), (), 0.0, 0, pack(staple))
        await hq.parts.store.txn([], [Put(key_of(row), pack(row))])
        size = len(hq.parts.log.tree)
        for _ in range(2):
            await hq._records.catch_up()
        assert len(hq.parts.log.tree) == size + 1

    run(scenario, tmp_path)


def test_a_record_is_logged_with_its_row_or_not_at_all(tmp_path: Path) -> None:
    """D15: a leaf for a record that was never written would show HQ saying two things."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        store, log = hq.parts.store, TransparencyLog(hq.parts.store)
        records = SlotRecords(store, hq.parts.authority, log)
        rows = Rows(store, records)
        await rows.load()

        def row_of(number: int, groups: int = 0) -> SlotRow:
            version = Version(0, number)
            staple = records(SlotRecord(bytes(16), b"s" * 16, version, 0, (), ()))
            return SlotRow(b"s" * 16, "eu", version, (), (), 0.0, groups, pack(staple))

        async def leaves() -> int:
            await log.settle()
            return len((await store.range(LOG)).items)

        before = await leaves()
        term = await store.get(TERM)
        assert term is not None
        await store.txn([], [Put(TERM, b"99")])
        lost = row_of(1)
        with pytest.raises(Deposed):
            await rows.save([(key_of(lost), lost)])
        assert await leaves() == before
        await store.txn([], [Put(TERM, term.value)])
        kept = row_of(1)
        await rows.save([(key_of(kept), kept)])
        head = await store.get(LOG_HEAD)
        written = await store.get(key_of(kept))
        assert head is not None
        assert written is not None
        assert head.mod_revision == written.mod_revision, "one transaction"
        again = msgspec.structs.replace(kept, groups=1)
        await rows.save([(key_of(again), again)])
        assert await leaves() == before + 1
        many = [
            msgspec.structs.replace(row_of(n), slot=n.to_bytes(16, "big")) for n in range(2, 152)
        ]
        await rows.save([(key_of(row), row) for row in many])
        assert await leaves() == before + 151

    run(scenario, tmp_path)


# --- Rates ---------------------------------------------------------------------------------------
def test_buckets_fill_with_real_time_and_are_bounded() -> None:
    clock = ManualClock()
    rates = Rates(clock, rate=1.0, burst=3.0, crowd=1_000.0)
    for _ in range(3):
        rates.charge("10.0.0.1")
    with pytest.raises(PeerFault) as caught:
        rates.charge("10.0.0.1")
    assert caught.value.code == "too-many"
    rates.charge("10.0.0.2")
    clock.advance(1.0)
    rates.charge("10.0.0.1")
    with pytest.raises(PeerFault):
        rates.charge("10.0.0.1")
    for number in range(3):
        rates.charge(f"2001:db8::{number}")
    with pytest.raises(PeerFault):
        rates.charge("2001:db8::ffff")
    for number in range(SOURCES_MAX + 10):
        rates._of(f"source-{number}", 0.0)
    assert len(rates._sources) == SOURCES_MAX


def test_a_crowd_is_bounded_too() -> None:
    rates = Rates(ManualClock(), rate=1.0, burst=2.0, crowd=2.0)
    for number in range(4):
        rates.charge(f"10.0.0.{number}")
    with pytest.raises(PeerFault):
        rates.charge("10.0.0.99")
