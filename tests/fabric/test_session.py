"""Sessions against real relays: proofs, receipts, reopening, lying servers (D15, D17)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.relay.harness import Pool, today

from holdfast.crypto.blob import seal
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import OperationFault, PeerFault
from holdfast.fabric.session import Have, Session, watch
from holdfast.logic.fleet.model import SlotRecord, Version
from holdfast.wire.envelope import sign
from holdfast.wire.frame import join
from holdfast.wire.pool import (
    BlobClass,
    GetReply,
    HelloReply,
    HelloRequest,
    OpenReply,
    OpenRequest,
    PullReply,
    PushReply,
    ReceiptBatch,
    SessionProof,
)
from holdfast.wire.receipts import verify_receipts
from holdfast.wire.signed import Type
from holdfast.wire.staple import verify_staple

NAME = "relay-eu-001"


def with_relay(
    home: Path, case: Callable[[Pool, SlotRecord], Awaitable[None]], count: int = 1
) -> None:
    """Run `case` with one slot on `count` relays."""

    async def main() -> None:
        async with Pool(home) as pool:
            await case(pool, await pool.seat(count, 0))

    asyncio.run(main())


def test_everything_pushed_comes_back(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        session = await pool.session(NAME, era.access, record.slot)
        assert session.tag == era.tag
        assert session.head == 0
        small = [seal(era, 1, b"small %d" % n, today()) for n in range(20)]
        large = [seal(era, 2, bytes((n,)) * 200_000, today()) for n in range(6)]
        reply = await session.push(BlobClass.LOG, small)
        assert [receipt.sequence for receipt in reply.receipts] == list(range(1, 21))
        for blob in large:
            await session.push(BlobClass.BULK, [blob])
        ids = [hash_bytes(blob) for blob in small + large]
        assert await session.have([*ids, b"0" * 32]) == [True] * 26 + [False]
        bodies = await session.get([*ids, b"0" * 32])
        assert bodies == dict(zip(ids, small + large, strict=True))
        pulled, inline = await session.pull(0, 100)
        assert [item.blob for item in pulled.items] == ids
        assert inline == dict(zip(ids[:20], small, strict=True))
        assert (pulled.head, pulled.more) == (26, False)
        assert await session.get_range(ids[-1], 100, 50) == large[-1][100:150]
        assert await session.get_range(b"0" * 32, 0, 10) is None

    with_relay(tmp_path, case)


def test_pull_pages_and_sees_everything(tmp_path: Path) -> None:
    """Reference §2.4 defects 3 and 5: `more` is honoured, no blob between is skipped."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        session = await pool.session(NAME, era.access, record.slot)
        blobs = [seal(era, 1, b"b%d" % n, today()) for n in range(25)]
        await session.push(BlobClass.LOG, blobs)
        seen: list[bytes] = []
        after, more = 0, True
        while more:
            reply, bodies = await session.pull(after, 7)
            seen += [bodies[item.blob] for item in reply.items]
            after, more = reply.items[-1].sequence, reply.more
        assert seen == blobs
        assert (await session.pull(after, 7))[0].items == ()

    with_relay(tmp_path, case)


def test_one_reply_never_outgrows_the_limit(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        session = await pool.session(NAME, era.access, record.slot)
        blobs = [seal(era, 1, b"%d" % n * 3_000, today()) for n in range(500)]
        assert {len(blob) for blob in blobs} <= {4_096, 16_384}
        for start in range(0, 500, 100):
            await session.push(BlobClass.LOG, blobs[start : start + 100])
        seen, after = 0, 0
        while True:
            reply, bodies = await session.pull(after, 1_000)
            assert sum(map(len, bodies.values())) <= 4 * 1024 * 1024
            seen += len(reply.items)
            if not reply.more:
                break
            after = reply.items[-1].sequence
        assert seen == 500
        assert len(await session.get([hash_bytes(blob) for blob in blobs])) == 500

    with_relay(tmp_path, case)


def test_a_cursor_of_another_server_is_refused(tmp_path: Path) -> None:
    """Reference §2.4 defect 2: relay A's cursor on relay B skipped blobs in silence (D14)."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        here = await pool.session(NAME, era.access, record.slot)
        there = await pool.session("relay-eu-002", era.access, record.slot)
        blobs = [seal(era, 1, b"b%d" % n, today()) for n in range(3)]
        await here.push(BlobClass.LOG, blobs)
        await there.push(BlobClass.LOG, blobs[::-1])
        assert here.incarnation != there.incarnation
        there.incarnation = here.incarnation
        with pytest.raises(PeerFault) as refused:
            await there.pull(2, 10)
        assert refused.value.code == "incarnation"
        with pytest.raises(PeerFault) as ahead:
            await here.pull(4, 10)
        assert ahead.value.code == "incarnation"

    with_relay(tmp_path, case, 2)


def test_listing_finds_everything_after_a_lost_cursor(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        session = await pool.session(NAME, era.access, record.slot)
        blobs = [seal(era, 1, b"b%d" % n, today() - n % 2) for n in range(11)]
        await session.push(BlobClass.LOG, blobs)
        found: set[bytes] = set()
        after = None
        while True:
            page = await session.list(today() - 5, 4, after)
            found |= {item.blob for item in page.items}
            if not page.more:
                break
            after = (page.born[-1], page.items[-1].blob)
        assert found == {hash_bytes(blob) for blob in blobs}
        assert len((await session.list(today(), 100)).items) == 6

    with_relay(tmp_path, case)


# --- Proofs --------------------------------------------------------------------------------------
def test_the_staple_comes_when_it_is_newer(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        key, slot = pool.era().access, record.slot
        client = pool.client(NAME)
        stapled = (await Session.open(client, key, slot)).record
        assert stapled is not None
        now = pool.clock.wall()
        assert verify_staple(pool.roots, stapled, Type.SLOT_RECORD, SlotRecord, now) == record
        known = await Session.open(client, key, slot, have=Have(record.version))
        assert known.record is None
        newer = pool.assign(slot, [NAME])
        again = await Session.open(client, key, slot, have=Have(record.version))
        assert again.record is not None
        assert newer.version > record.version

    with_relay(tmp_path, case)


async def _hello(session: Session) -> HelloReply:
    return (await session.client.call("hello", HelloRequest((1,)), HelloReply))[0]


async def _open(
    session: Session, key: SigningKey, proof: SessionProof, *, peer: bool = False
) -> Any:
    request = OpenRequest(sign(key, Type.SESSION, proof), peer)
    return (await session.client.call("open", request, OpenReply))[0]


def test_a_proof_is_for_one_server_one_connection_one_challenge(tmp_path: Path) -> None:
    """D17: a proof caught by one server is worth nothing at another."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        key = pool.era().access
        here = await pool.session(NAME, key, record.slot)
        there = await pool.session("relay-eu-002", key, record.slot)
        hello = await _hello(there)
        good = SessionProof(hello.challenge, there.node, there.client.leaf, record.slot)
        assert (await _open(there, key, good)).session
        replace = msgspec.structs.replace
        own = await _hello(here)
        wrong = [
            (here, good),  # replayed on another node
            (here, replace(good, node=here.node)),
            (here, replace(good, node=here.node, leaf=here.client.leaf)),  # their challenge
            (there, replace(good, challenge=own.challenge)),
            (there, replace(good, leaf=b"x" * 32)),
            (there, replace(good, challenge=b"")),
            (there, replace(good, challenge=bytes(len(good.challenge)))),
        ]
        for session, proof in wrong:
            with pytest.raises(PeerFault) as refused:
                await _open(session, key, proof)
            assert refused.value.code == "signature"

    with_relay(tmp_path, case, 2)


def test_a_forged_signature_opens_nothing(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        key = pool.era().access
        session = await pool.session(NAME, key, record.slot)
        hello = await _hello(session)
        proof = SessionProof(hello.challenge, session.node, session.client.leaf, record.slot)
        signed = sign(SigningKey(b"m" * 32), Type.SESSION, proof)
        forged = msgspec.structs.replace(signed, signer=key.public)
        with pytest.raises(PeerFault) as refused:
            await session.client.call("open", OpenRequest(forged), OpenReply)
        assert refused.value.code == "signature"
        other = sign(key, Type.LEAVE, proof)
        with pytest.raises(PeerFault):
            await session.client.call("open", OpenRequest(other), OpenReply)

    with_relay(tmp_path, case)


def test_a_slot_served_elsewhere_is_refused(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        with pytest.raises(PeerFault) as refused:
            await pool.session(NAME, pool.era().access, b"z" * 16)
        assert refused.value.code == "slot"

    with_relay(tmp_path, case)


# --- Reopening -----------------------------------------------------------------------------------
def test_a_forgotten_session_is_opened_again(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        session = await pool.session(NAME, era.access, record.slot)
        blob = seal(era, 1, b"x", today())
        await session.push(BlobClass.LOG, [blob])
        token = session.token
        pool.servers[NAME].running.desk.sessions.drop(lambda caller: True)
        answers = await asyncio.gather(*(session.have([hash_bytes(blob)]) for _ in range(8)))
        assert answers == [[True]] * 8
        assert session.token != token
        assert len(pool.servers[NAME].running.desk.sessions) == 1, "one opening for all of them"

    with_relay(tmp_path, case)


def test_a_restarted_server_is_found_again(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        server = pool.servers[NAME]
        session = await pool.session(NAME, era.access, record.slot)
        await session.push(BlobClass.LOG, [seal(era, 1, b"x", today())])
        incarnation = session.incarnation
        await server.stop()
        with pytest.raises(OperationFault) as gone:
            await session.pull(0, 10)
        assert gone.value.retryable
        await server.start()
        reply, _ = await session.pull(0, 10)
        assert len(reply.items) == 1
        assert session.incarnation == incarnation

    with_relay(tmp_path, case)


# --- Watching ------------------------------------------------------------------------------------
def test_one_watch_covers_many_tags(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        client = pool.client(NAME)
        eras = [pool.era() for _ in range(5)]
        sessions = [await Session.open(client, era.access, record.slot) for era in eras]
        waiting = asyncio.create_task(watch(sessions, [0] * 5, 20))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        other = await pool.session(NAME, eras[3].access, record.slot)
        await other.push(BlobClass.LOG, [seal(eras[3], 1, b"x", today())])
        reply = await asyncio.wait_for(waiting, 5)
        assert reply.heads == (0, 0, 0, 1, 0)
        assert set(reply.records) == {record.version}
        assert (await watch(sessions, [0] * 5, 20)).heads[3] == 1, "what is known comes at once"

    with_relay(tmp_path, case)


def test_a_watch_tells_a_new_record_and_a_lost_session(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        session = await pool.session(NAME, pool.era().access, record.slot)
        waiting = asyncio.create_task(session.watch(0, 20))
        await asyncio.sleep(0.05)
        pool.assign(record.slot, [NAME])
        assert (await asyncio.wait_for(waiting, 5)).records == (Version(0, 2),)
        pool.servers[NAME].running.desk.sessions.drop(lambda caller: True)
        assert (await session.watch(0, 20)).heads == (-1,)
        assert (await session.watch(0, 0.01)).heads == (0,)

    with_relay(tmp_path, case)


def test_a_watch_ends_by_itself(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        session = await pool.session(NAME, pool.era().access, record.slot)
        assert (await asyncio.wait_for(session.watch(0, 0.05), 5)).heads == (0,)
        assert len(pool.servers[NAME].running.desk.watchers) == 0

    with_relay(tmp_path, case)


# --- Lying servers -------------------------------------------------------------------------------
def _lie(pool: Pool, verb: str, change: Callable[[Any], object], kind: type) -> None:
    """Make the relay change its replies to one verb."""
    server = pool.servers[NAME].running.server
    handler = server._handler
    original = handler.answer

    async def answer(asked: str, body: bytes) -> tuple[int, bytes]:
        status, reply = await original(asked, body)
        if asked != verb or status != 200:
            return status, reply
        size = int.from_bytes(reply[:4], "big")
        decoded = msgspec.msgpack.decode(reply[4 : 4 + size], type=kind)
        changed = change((decoded, reply[4 + size :]))
        assert isinstance(changed, tuple)
        return status, join(changed[0], [changed[1]])

    handler.answer = answer  # type: ignore[method-assign]


def test_a_tampered_body_is_refused(tmp_path: Path) -> None:
    """A rogue relay returns other bytes for an id (ETH Zurich 2024: unauthenticated chunks)."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        session = await pool.session(NAME, era.access, record.slot)
        blob = seal(era, 1, b"x", today())
        await session.push(BlobClass.LOG, [blob])

        def flip(parts: tuple[Any, bytes]) -> tuple[Any, bytes]:
            return parts[0], parts[1][:-1] + bytes((parts[1][-1] ^ 1,))

        _lie(pool, "get", flip, GetReply)
        _lie(pool, "pull", flip, PullReply)
        with pytest.raises(PeerFault) as tampered:
            await session.get([hash_bytes(blob)])
        assert tampered.value.code == "tampered"
        with pytest.raises(PeerFault):
            await session.pull(0, 10)

    with_relay(tmp_path, case)


def test_pulled_items_come_in_order_or_not_at_all(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        session = await pool.session(NAME, era.access, record.slot)
        await session.push(BlobClass.LOG, [seal(era, 1, b"%d" % n, today()) for n in range(3)])

        def reverse(parts: tuple[PullReply, bytes]) -> tuple[Any, bytes]:
            items = tuple(msgspec.structs.replace(i, inline=False) for i in parts[0].items[::-1])
            return msgspec.structs.replace(parts[0], items=items), b""

        _lie(pool, "pull", reverse, PullReply)
        with pytest.raises(PeerFault):
            await session.pull(0, 10)

    with_relay(tmp_path, case)


def _change_receipts(reply: PushReply, kind: str, key: SigningKey) -> PushReply:
    replace = msgspec.structs.replace
    first = reply.receipts[0]
    match kind:
        case "blob":
            return replace(reply, receipts=(replace(first, blob=b"x" * 32), *reply.receipts[1:]))
        case "sequence":
            return replace(reply, receipts=(replace(first, sequence=99), *reply.receipts[1:]))
        case "path":
            return replace(reply, receipts=(replace(first, path=()), *reply.receipts[1:]))
        case "index":
            return replace(reply, receipts=(replace(first, index=1), *reply.receipts[1:]))
        case "fewer":
            return replace(reply, receipts=reply.receipts[1:])
        case "swapped":
            return replace(reply, receipts=reply.receipts[::-1])
        case "signer":
            batch = msgspec.msgpack.decode(reply.batch.body[1:], type=ReceiptBatch)
            return replace(reply, batch=sign(key, Type.RECEIPT_BATCH, batch))
        case "signature":
            return replace(reply, batch=replace(reply.batch, signature=bytes(64)))
    raise AssertionError(kind)


@pytest.mark.parametrize(
    "kind", ["blob", "sequence", "path", "index", "fewer", "swapped", "signer", "signature"]
)
def test_a_receipt_that_proves_nothing_is_refused(tmp_path: Path, kind: str) -> None:
    """D13, D15: `stored` rests on receipts, so each of their parts is checked."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        session = await pool.session(NAME, era.access, record.slot)
        key = SigningKey(b"m" * 32)
        _lie(
            pool, "push", lambda parts: (_change_receipts(parts[0], kind, key), parts[1]), PushReply
        )
        with pytest.raises(PeerFault) as refused:
            await session.push(BlobClass.LOG, [seal(era, 1, b"%d" % n, today()) for n in range(3)])
        assert refused.value.code in ("receipt", "signature")

    with_relay(tmp_path, case)


def test_receipts_can_be_shown_to_anybody(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        session = await pool.session(NAME, era.access, record.slot)
        blob = seal(era, 1, b"x", today())
        reply = await session.push(BlobClass.LOG, [blob])
        pushed = [(hash_bytes(blob), len(blob), today())]
        node = pool.servers[NAME].node
        batch = verify_receipts(reply, node=node, tag=era.tag, pushed=pushed)
        assert batch.node == node
        with pytest.raises(PeerFault):
            verify_receipts(reply, node=node, tag=b"u" * 32, pushed=pushed)

    with_relay(tmp_path, case)
