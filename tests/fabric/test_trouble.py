"""Whose fault it is: full relays, full disks, records across restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.fabric.test_roster import names_of, replace
from tests.fabric.world import FAST, Client
from tests.relay.harness import Pool, until

from holdfast.errors import OperationFault
from holdfast.fabric.database import Database, DiskFault
from holdfast.fabric.records import SCHEMA, RecordBook
from holdfast.fabric.session import Session
from holdfast.limits import RECORD_CHANGE_S_MIN
from holdfast.logic.pool.fanout import Stage
from holdfast.logic.trust.adoption import NEVER, Verdict
from holdfast.relay.policy import RelayPolicy
from holdfast.rim.clock import ManualClock, SystemClock
from holdfast.rim.store.port import StorePolicy
from holdfast.wire.pool import BlobClass


def test_a_quota_ends_the_wait_and_says_so(tmp_path: Path) -> None:
    policy = RelayPolicy(store=StorePolicy(group_bytes_max=300_000))

    async def main() -> None:
        async with Pool(tmp_path / "pool", policy=policy) as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                payloads = [bytes([n]) * 60_000 for n in range(20)]
                await client.slot.put_many(client.era, BlobClass.BULK, payloads)
                with pytest.raises(OperationFault, match="quota") as caught:
                    await client.slot.uploader.reach(Stage.STORED)
                assert not caught.value.retryable
                assert client.slot.uploader.stuck()
                assert client.slot.roster.health.failing() == frozenset()
                other = pool.era()
                blob = await client.slot.put(other, BlobClass.LOG, b"another group goes on")
                await client.slot.uploader.reach(Stage.STORED, [other.tag])
                assert client.slot.uploader.stage(blob) is not Stage.QUEUED

    asyncio.run(main())


def test_one_bad_blob_does_not_take_its_batch_with_it(tmp_path: Path) -> None:
    """A relay refuses a blob born too long ago, and with it the batch it came in (D11)."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                slot = client.slot
                today = int(pool.clock.wall() // 86_400)
                parcels = [
                    slot._seal(client.era, BlobClass.LOG, [b"%d" % n], today - 9 * (n == 2))[0]
                    for n in range(5)
                ]
                await slot.uploader.put(parcels)
                await until(lambda: client.store.outbox.bytes_held == 0)
                holders = client.store.receipts.holders
                replicas = {s.node for s in pool.servers.values() if s.role == "replica"}
                assert set(holders(parcels[2].blob)) == replicas
                assert len(holders(parcels[0].blob)) == 6

    asyncio.run(main())


def test_one_damaged_outbox_file_does_not_take_its_batch_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                outbox, uploader = client.store.outbox, client.slot.uploader
                today = int(pool.clock.wall() // 86_400)
                payloads = [bytes([n]) * 20_000 for n in range(4)]
                parcels = client.slot._seal(client.era, BlobClass.BULK, payloads, today)
                outbox.put(parcels, 5.0)
                outbox._path(parcels[1].blob).write_bytes(b"damaged")
                await uploader.put(parcels)
                good = [parcel.blob for parcel in (parcels[0], *parcels[2:])]
                await until(lambda: all(outbox.stage(b) is Stage.REPLICATED for b in good))
                assert uploader.stuck().keys() == {parcels[1].blob}
                assert uploader.stage(parcels[1].blob) is Stage.QUEUED

    asyncio.run(main())


def test_a_full_disk_here_blames_no_server(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:

                async def work(_: Session) -> None:
                    raise DiskFault("no space left")

                with pytest.raises(DiskFault):
                    await client.slot.roster.call("relay-eu-001", client.era.access, work)
                assert client.slot.roster.health.failing() == frozenset()

    asyncio.run(main())


def test_a_full_outbox_holds_the_writer_until_servers_took_some(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            client = Client(pool, record, tmp_path / "a", pool.era())
            client.store.outbox._bytes_max = 200_000
            async with client:
                payloads = [bytes([n]) * 60_000 for n in range(12)]
                held = []
                for payload in payloads:
                    await client.slot.put(client.era, BlobClass.BULK, payload)
                    held.append(client.store.outbox.bytes_held)
                assert max(held) <= 200_000
                writers = [
                    client.slot.put(client.era, BlobClass.BULK, payload[:-1])
                    for payload in payloads
                ]
                await asyncio.gather(*writers)
                await until(lambda: client.store.outbox.bytes_held == 0)

    asyncio.run(main())


def test_the_ten_minutes_go_on_across_a_restart(tmp_path: Path) -> None:
    """D4 in elapsed time: a process that begins anew has not forgotten when the change was."""

    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            first = await pool.seat()
            await replace(pool, "relay-eu-001")
            second = pool.assign(first.slot, names_of(first))
            await replace(pool, "relay-eu-002")
            third = pool.assign(first.slot, names_of(first))
            staples = [pool.staple(record) for record in (first, second, third)]
            roots = pool.roots
        wall_s = pool.clock.wall()

        def book(clock: ManualClock) -> RecordBook:
            return RecordBook(Database(tmp_path / "records.db", SCHEMA), clock)

        clock = ManualClock(elapsed_s=50.0, wall_s=wall_s)
        assert book(clock).offer(first.slot, roots, staples[0]).verdict is Verdict.ADOPT
        known = book(clock).known(first.slot)
        assert known is not None
        assert known.relays_changed_at == NEVER
        assert book(clock).offer(first.slot, roots, staples[1]).verdict is Verdict.ADOPT
        later = ManualClock(elapsed_s=7_000.0, wall_s=wall_s + RECORD_CHANGE_S_MIN - 1)
        judgement = book(later).offer(first.slot, roots, staples[2])
        assert judgement.verdict is Verdict.TOO_SOON
        assert judgement.retry_at == pytest.approx(7_001.0)
        set_back = ManualClock(elapsed_s=9_000.0, wall_s=wall_s - 3_000)
        assert book(set_back).offer(first.slot, roots, staples[2]).verdict is Verdict.TOO_SOON
        due = ManualClock(elapsed_s=3.0, wall_s=wall_s + RECORD_CHANGE_S_MIN + 1)
        assert book(due).offer(first.slot, roots, staples[2]).verdict is Verdict.ADOPT
        forgetful = book(due)
        forgetful.forget(first.slot)
        assert forgetful.known(first.slot) is None
        assert forgetful.offer(first.slot, roots, staples[0]).verdict is Verdict.ADOPT
        other = forgetful.offer(b"o" * 16, roots, staples[0])
        assert (other.verdict, other.known) == (Verdict.FOREIGN, None)

    asyncio.run(main())


def test_receipts_are_held_for_every_server(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                blob = await client.slot.put(client.era, BlobClass.LOG, b"one")
                await until(lambda: client.store.outbox.bytes_held == 0)
                nodes = {server.node for server in pool.servers.values()}
                assert set(client.store.receipts.holders(blob)) == nodes
                assert client.store.findings.all() == []

    asyncio.run(main())
