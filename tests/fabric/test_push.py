"""Fan-out against real servers: all alive, some dead, dying midway, restarted (D13)."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from tests.fabric.world import FAST, Client, ids_on
from tests.relay.harness import Pool, until

from holdfast.logic.fleet.model import Role
from holdfast.logic.pool.fanout import Stage
from holdfast.rim.clock import SystemClock
from holdfast.wire.pool import BlobClass


def alive(pool: Pool, role: Role | None = None) -> list[str]:
    return [
        name
        for name, server in pool.servers.items()
        if server.relay is not None and role in (None, server.role)
    ]


@pytest.mark.parametrize(
    ("dead", "stage"),
    [
        ((), Stage.REPLICATED),
        (("relay-eu-002",), Stage.REPLICATED),
        (("relay-eu-001", "replica-eu-003"), Stage.REPLICATED),
        (("replica-eu-001", "replica-eu-002"), Stage.STORED),
        (("relay-eu-001", "relay-eu-002"), Stage.QUEUED),
    ],
)
def test_push_with_six_five_four_servers(
    tmp_path: Path, dead: tuple[str, ...], stage: Stage
) -> None:
    """D13: stored is two relays, replicated two replicas; a blob is never called more."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            for name in dead:
                await pool.servers[name].stop()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                blob = await client.slot.put(client.era, BlobClass.LOG, b"hello")
                uploader = client.slot.uploader
                if stage is Stage.QUEUED:
                    await until(lambda: client.store.receipts.count() == 4)
                else:
                    await uploader.reach(stage)
                assert uploader.stage(blob) is stage
                await until(lambda: len(client.slot.roster.health.failing()) == len(dead))
                for name in alive(pool):
                    await until(lambda: client.store.receipts.count() == 6 - len(dead))
                    assert await ids_on(pool.servers[name], client.era) == {blob}
                released = client.store.outbox.bytes_held == 0
                assert released == (stage is Stage.REPLICATED)

    asyncio.run(main())


def test_a_relay_that_dies_mid_push_loses_nothing_and_delays_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                payloads = [os.urandom(200_000) for _ in range(60)]
                blobs = await client.slot.put_many(client.era, BlobClass.BULK, payloads)
                await until(lambda: client.store.receipts.count() > 20)
                await pool.servers["relay-eu-002"].stop()
                await client.slot.uploader.reach(Stage.REPLICATED)
                await until(lambda: client.store.outbox.bytes_held == 0)
                for name in ("relay-eu-001", "relay-eu-003"):
                    assert await ids_on(pool.servers[name], client.era) == set(blobs)
                replicas = [
                    await ids_on(pool.servers[f"replica-eu-00{n}"], client.era) for n in (1, 2, 3)
                ]
                assert sum(held == set(blobs) for held in replicas) >= 2

    asyncio.run(main())


def test_defect_7_a_replica_that_was_away_gets_it_later(tmp_path: Path) -> None:
    """0k-sync promises "background retry" for failed secondaries and has no queue for it."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            away = [pool.servers[f"replica-eu-00{n}"] for n in (2, 3)]
            for server in away:
                await server.stop()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                blob = await client.slot.put(client.era, BlobClass.LOG, b"later")
                await client.slot.uploader.reach(Stage.STORED)
                assert client.store.outbox.bytes_held > 0
                await away[0].start()
                await client.slot.uploader.reach(Stage.REPLICATED)
                assert await ids_on(away[0], client.era) == {blob}
                await until(lambda: client.store.outbox.bytes_held == 0)

    asyncio.run(main())


def test_restart_with_a_full_outbox(tmp_path: Path) -> None:
    """The outbox survives the process; the next one pushes what this one could not."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            era = pool.era()
            async with Client(pool, record, tmp_path / "a", era):
                pass  # it knows the slot's record now
            for server in pool.servers.values():
                await server.stop()
            async with Client(pool, record, tmp_path / "a", era) as client:
                payloads = [bytes([n]) * 30_000 for n in range(20)]
                blobs = await client.slot.put_many(era, BlobClass.BULK, payloads)
                log = await client.slot.put(era, BlobClass.LOG, b"names them")
                held = client.store.outbox.bytes_held
                assert client.store.receipts.count() == 0
            for server in pool.servers.values():
                await server.start()
            async with Client(pool, record, tmp_path / "a", era) as client:
                assert client.store.outbox.bytes_held == held > 0
                await client.slot.uploader.reach(Stage.REPLICATED)
                assert await ids_on(pool.servers["relay-eu-001"], era) == {*blobs, log}

    asyncio.run(main())


def test_bulk_goes_to_relays_and_replicas_fill_from_them(tmp_path: Path) -> None:
    """Large blobs: relays first, replicas filled server to server (DESIGN §3)."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                blob = await client.slot.put(client.era, BlobClass.BULK, os.urandom(50_000))
                await client.slot.uploader.reach(Stage.REPLICATED)
                nodes = set(client.store.receipts.holders(blob))
                relays = {s.node for s in pool.servers.values() if s.role is Role.RELAY}
                assert nodes == relays, "no replica was pushed to: they have it from relays"

    asyncio.run(main())


def test_what_relays_find_too_old_is_not_stored_without_a_copy(tmp_path: Path) -> None:
    """D11: a device that was offline for days; its blobs go straight to replicas."""

    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record = await pool.seat()
            replicas = [s for s in pool.servers.values() if s.role is Role.REPLICA]
            for server in replicas:
                await server.stop()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                slot = client.slot
                old = int(pool.clock.wall() // 86_400) - 9
                (parcel,) = slot._seal(client.era, BlobClass.BULK, [b"old"], old)
                await slot.uploader.put([parcel])
                await until(lambda: len(slot.uploader.stuck().get(parcel.blob, ())) == 3)
                assert slot.uploader.stage(parcel.blob) is Stage.QUEUED
                assert not slot.uploader.reached(Stage.STORED)
                assert client.store.outbox.stage(parcel.blob) is Stage.QUEUED
                for server in replicas:
                    await server.start()
                await slot.uploader.reach(Stage.REPLICATED)
                assert len(client.store.receipts.holders(parcel.blob)) >= 2

    asyncio.run(main())


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_put_that_is_cancelled_and_tried_again_is_pushed(tmp_path: Path, when: str) -> None:
    """What is durable is under way, and folded, whoever stopped waiting for it."""

    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                slot, folded = client.slot, asyncio.Event()
                entered, go_on = asyncio.Event(), threading.Event()
                loop = asyncio.get_running_loop()

                def hold() -> None:
                    loop.call_soon_threadsafe(entered.set)
                    assert go_on.wait(20)

                async def put() -> None:
                    payloads = [b"kept"]
                    await slot.put_many(client.era, BlobClass.LOG, payloads, hold, folded.set)

                writing = asyncio.create_task(put())
                await entered.wait()
                writing.cancel()
                if when == "after":
                    go_on.set()
                else:
                    loop.call_soon(go_on.set)
                with pytest.raises(asyncio.CancelledError):
                    await writing
                assert folded.is_set()
                assert not slot.uploader.reached(Stage.STORED)
                blob = await slot.put(client.era, BlobClass.LOG, b"kept")
                await slot.uploader.reach(Stage.STORED)
                assert len(client.store.receipts.holders(blob)) >= 2

    asyncio.run(main())


def test_a_retry_feeds_what_the_outbox_still_holds(tmp_path: Path) -> None:
    """A row without an entry, however it came about, does not make `reach` succeed."""

    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                slot = client.slot
                today = int(pool.clock.wall() // 86_400)
                (parcel,) = slot._seal(client.era, BlobClass.LOG, [b"row"], today)
                client.store.outbox.put([parcel], 5.0)
                await slot.uploader.put([parcel])
                assert slot.uploader.stage(parcel.blob) is Stage.QUEUED
                await slot.uploader.reach(Stage.STORED)
                assert len(client.store.receipts.holders(parcel.blob)) >= 2

    asyncio.run(main())


def test_defect_1_and_4_one_put_reaches_all_six_as_one_blob(tmp_path: Path) -> None:
    """0k-sync's library pushes to one relay; its CLI's copies get an id and nonce each."""

    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                first = await client.slot.put(client.era, BlobClass.LOG, b"once")
                again = await client.slot.put(client.era, BlobClass.LOG, b"once")
                assert first == again
                await until(lambda: client.store.outbox.bytes_held == 0)
                for server in pool.servers.values():
                    assert await ids_on(server, client.era) == {first}
                assert len(client.store.receipts.holders(first)) == 6

    asyncio.run(main())
