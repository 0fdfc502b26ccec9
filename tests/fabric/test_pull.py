"""Reading logs from real servers: cursors, failover, gaps, and the peers' defects (§2.4)."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from tests.fabric.world import FAST, Client, Log, ids_on
from tests.relay.harness import Pool, today, until

from holdfast.crypto.blob import blob_id, seal
from holdfast.crypto.era import Era
from holdfast.errors import OperationFault
from holdfast.fabric.puller import SEARCH_S, Puller
from holdfast.fabric.readings import ABSENT
from holdfast.logic.fleet.model import Role
from holdfast.logic.pool.cursors import Spot
from holdfast.logic.pool.fanout import Stage
from holdfast.relay.policy import RelayPolicy
from holdfast.rim.clock import SystemClock
from holdfast.wire.pool import BlobClass

UNLIMITED = RelayPolicy(tag_requests_per_s=1e6, tag_requests_burst=1e6)


async def write(client: Client, *texts: str) -> list[bytes]:
    """Write one operation per text, each on top of the last; wait until stored."""
    operations: list[bytes] = []
    for text in texts:
        operation, payload = client.log.write(text, *operations[-1:])
        await client.slot.put(client.era, BlobClass.LOG, payload)
        operations.append(operation)
    await client.slot.uploader.reach(Stage.STORED)
    return operations


async def settled(client: Client) -> None:
    """Everything of `client` is on all six servers."""
    await until(lambda: client.store.outbox.bytes_held == 0)


def test_two_clients_read_each_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record, era = await pool.seat(), pool.era()
            async with (
                Client(pool, record, tmp_path / "a", era) as a,
                Client(pool, record, tmp_path / "b", era) as b,
            ):
                await write(a, "one", "two")
                await settled(a)
                reading = await b.puller.read()
                assert (reading.taken, reading.unread, reading.gaps) == (2, 0, 0)
                assert reading.caught_up
                await write(b, "three")
                await settled(b)
                assert (await a.puller.read()).taken == 1
                assert a.log.texts == b.log.texts
                again = await b.puller.read()
                assert (again.taken, again.caught_up) == (0, True)

    asyncio.run(main())


def test_defect_2_failover_uses_no_other_servers_cursor(tmp_path: Path) -> None:
    """0k-sync replays relay A's cursor at relay B: B's blobs below that number are never seen."""

    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record, era = await pool.seat(), pool.era()
            first, second = (pool.servers[f"relay-eu-00{n}"] for n in (1, 2))
            log = Log()
            for n in range(30):  # relay 1 numbers these 1 to 30 and relay 2 never has them
                session = await pool.session(first.name, era.access, record.slot)
                body = seal(era, BlobClass.LOG, log.write(f"early {n}")[1], today())
                await session.push(BlobClass.LOG, [body])
            async with Client(pool, record, tmp_path / "b", era) as b:
                await b.puller.read_one(first.name)
                assert len(b.log.texts) == 30
                late = seal(era, BlobClass.LOG, log.write("late")[1], today())
                session = await pool.session(second.name, era.access, record.slot)
                reply = await session.push(BlobClass.LOG, [late])
                assert reply.receipts[0].sequence < 30
                await first.stop()
                await b.puller.read_one(second.name)
                assert "late" in b.log.texts.values()

    asyncio.run(main())


def test_defect_3_a_push_does_not_hide_what_others_pushed_before(tmp_path: Path) -> None:
    """0k-sync: after `PushAck` 7 the client pulls from 7 on, and blobs 1 to 6 are lost to it."""

    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record, era = await pool.seat(), pool.era()
            async with (
                Client(pool, record, tmp_path / "a", era) as a,
                Client(pool, record, tmp_path / "b", era) as b,
            ):
                await b.puller.read()
                await write(a, *(f"a{n}" for n in range(6)))
                await settled(a)
                await write(b, "b, which never read the six before its own")
                await settled(b)
                await b.puller.read()
                assert len(b.log.texts) == 7

    asyncio.run(main())


def test_two_readings_at_once_wait_for_each_other(tmp_path: Path) -> None:
    """A watch fires while a cycle reads: one cursor, one reader."""

    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record, era = await pool.seat(), pool.era()
            async with (
                Client(pool, record, tmp_path / "a", era) as a,
                Client(pool, record, tmp_path / "b", era) as b,
            ):
                await write(a, *(f"{n}" for n in range(20)))
                await settled(a)
                readings = await asyncio.gather(
                    b.puller.read(everywhere=True),
                    b.puller.read_one("relay-eu-001"),
                    b.puller.read(),
                    b.puller.read_one("relay-eu-001"),
                )
                assert sum(reading.taken for reading in readings) == 20

    asyncio.run(main())


def test_defect_5_more_is_followed_page_by_page(tmp_path: Path) -> None:
    """0k-sync ignores `has_more`: what does not fit the first page waits for the next push."""

    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record, era = await pool.seat(), pool.era()
            async with (
                Client(pool, record, tmp_path / "a", era) as a,
                Client(pool, record, tmp_path / "b", era) as b,
            ):
                await b.puller.read()
                log = Log()
                payloads = [log.write(f"{n}" + "x" * 9_000)[1] for n in range(700)]
                await a.slot.put_many(era, BlobClass.LOG, payloads)
                await settled(a)
                reading = await b.puller.read_one("relay-eu-001")
                assert reading.taken == 700, "more than one reply can hold"

    asyncio.run(main())


def test_defect_5_unreadable_blobs_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record, era = await pool.seat(), pool.era()
            stranger = Era(os.urandom(32), pool.network)
            log = Log()
            bodies = [
                seal(era, BlobClass.LOG, log.write("before")[1], today()),
                seal(stranger, BlobClass.LOG, b"another era's", today()),
                seal(era, BlobClass.LOG, b"no operation at all", today()),
                seal(era, BlobClass.LOG, log.write("after")[1], today()),
            ]
            for name in ("relay-eu-001", "relay-eu-002"):
                session = await pool.session(name, era.access, record.slot)
                await session.push(BlobClass.LOG, bodies)
            async with Client(pool, record, tmp_path / "b", era) as b:
                reading = await b.puller.read()
                assert (reading.taken, reading.unread) == (2, 2)
                assert set(b.log.texts.values()) == {"before", "after"}
                unread = {row.blob: row.fault for row in b.store.readings.unread(era.tag)}
                assert unread == {blob_id(bodies[1]): "unopenable", blob_id(bodies[2]): "malformed"}

    asyncio.run(main())


def test_defect_6_a_cursor_never_passes_a_blob_that_is_still_being_written(tmp_path: Path) -> None:
    """0k-sync allots a number, then inserts: a reader can see 6 before 5 exists and move on."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", policy=UNLIMITED) as pool:
            record, era = await pool.seat(), pool.era()
            async with Client(pool, record, tmp_path / "b", era) as b:
                log, pushed = Log(), 0

                async def writer(number: int) -> None:
                    nonlocal pushed
                    session = await pool.session("relay-eu-001", era.access, record.slot)
                    for n in range(40):
                        text = log.write(f"{number}.{n}")[1]
                        await session.push(BlobClass.LOG, [seal(era, BlobClass.LOG, text, today())])
                        pushed += 1

                writers = [asyncio.create_task(writer(number)) for number in range(4)]
                while pushed < 160:
                    await b.puller.read_one("relay-eu-001")
                await asyncio.gather(*writers)
                await b.puller.read_one("relay-eu-001")
                assert len(b.log.texts) == 160

    asyncio.run(main())


def test_a_restored_store_is_reconciled_by_id(tmp_path: Path) -> None:
    """D14: another incarnation, another numbering; nothing is skipped, nothing read twice."""

    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record, era = await pool.seat(), pool.era()
            async with (
                Client(pool, record, tmp_path / "a", era) as a,
                Client(pool, record, tmp_path / "b", era) as b,
            ):
                await write(a, *(f"{n}" for n in range(5)))
                await settled(a)
                relay = pool.servers["relay-eu-001"]
                assert (await b.puller.read_one(relay.name)).taken == 5
                spots = set(_spots(b))
                await relay.stop()
                shutil.rmtree(relay.home / "state")
                await relay.start()
                await write(a, "six")
                await until(lambda: relay.name not in a.slot.roster.health.failing())
                reading = await b.puller.read()
                assert len(b.log.texts) == 6
                assert reading.unread == 0
                assert set(_spots(b)) - spots, "the new incarnation has a cursor of its own"

    asyncio.run(main())


def _spots(client: Client) -> list[Spot]:
    rows = client.store.database.run("select node, incarnation, tag from cursors")
    return [Spot(*row) for row in rows]


def test_a_missing_parent_is_sought_everywhere(tmp_path: Path) -> None:
    """D18: a parent missing after all servers are exhausted is a named gap, and not before."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record, era = await pool.seat(), pool.era()
            log = Log()
            parent, parent_payload = log.write("parent")
            _, child_payload = log.write("child", parent)
            _, orphan_payload = log.write("orphan", b"\xee" * 32)
            only_here = await pool.session("replica-eu-003", era.access, record.slot)
            await only_here.push(BlobClass.LOG, [seal(era, BlobClass.LOG, parent_payload, today())])
            for name in ("relay-eu-001", "relay-eu-002"):
                session = await pool.session(name, era.access, record.slot)
                bodies = [
                    seal(era, BlobClass.LOG, p, today()) for p in (child_payload, orphan_payload)
                ]
                await session.push(BlobClass.LOG, bodies)
            await pool.servers["relay-eu-003"].stop()
            async with Client(pool, record, tmp_path / "b", era) as b:
                reading = await b.puller.read()
                assert "parent" in b.log.texts.values()
                assert reading.gaps == 0, "one server was away: it may have it"
                await pool.servers["relay-eu-003"].start()
                await asyncio.sleep(0)
                await until(lambda: b.slot.roster.may_try("relay-eu-003"))
                reading = await b.puller.read()
                assert reading.gaps == 1
                assert b.log.gaps == {b"\xee" * 32}

    asyncio.run(main())


def test_a_watching_reader_seeks_what_is_missing_too(tmp_path: Path) -> None:
    """D18: a reader that only hears of news chases missing parents, though not with every page."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record, era = await pool.seat(), pool.era()
            log = Log()
            parent, parent_payload = log.write("parent")
            _, child_payload = log.write("child", parent)
            absent = seal(era, BlobClass.LOG, log.write("absent")[1], today())
            only_here = await pool.session("replica-eu-003", era.access, record.slot)
            await only_here.push(
                BlobClass.LOG, [seal(era, BlobClass.LOG, parent_payload, today()), absent]
            )
            session = await pool.session("relay-eu-001", era.access, record.slot)
            await session.push(BlobClass.LOG, [seal(era, BlobClass.LOG, child_payload, today())])
            async with Client(pool, record, tmp_path / "b", era) as b:
                fault = [(blob_id(absent), ABSENT)]
                b.store.readings.record(era.tag, 5.0, faults=fault)
                reading = await b.puller.read_one("relay-eu-001")
                assert set(b.log.texts.values()) == {"parent", "child", "absent"}
                assert reading.taken == 3
                assert b.store.readings.unread(era.tag) == []
                _, late = log.write("late", b"\xee" * 32)
                await session.push(BlobClass.LOG, [seal(era, BlobClass.LOG, late, today())])
                reading = await b.puller.read_one("relay-eu-001")
                assert (reading.taken, reading.gaps) == (1, 0), "searched a moment ago"
                b.puller._searched_at -= SEARCH_S
                assert (await b.puller.read_one("relay-eu-001")).gaps == 1

    asyncio.run(main())


def test_what_relays_expired_is_read_from_replicas(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record, era = await pool.seat(), pool.era()
            log = Log()
            old = seal(era, BlobClass.LOG, log.write("old")[1], today() - 30)
            for n in (1, 2):
                session = await pool.session(f"replica-eu-00{n}", era.access, record.slot)
                await session.push(BlobClass.LOG, [old])
            async with Client(pool, record, tmp_path / "b", era) as b:
                assert (await b.puller.read()).taken == 0
                assert (await b.puller.read(everywhere=True)).taken == 1
                assert (await b.puller.read()).caught_up, "relays need not have what they expire"

    asyncio.run(main())


def test_with_one_relay_left_replicas_are_read_and_nobody_is_caught_up(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record, era = await pool.seat(), pool.era()
            async with Client(pool, record, tmp_path / "a", era) as a:
                await write(a, "one")
                await settled(a)
            for n in (1, 2):
                await pool.servers[f"relay-eu-00{n}"].stop()
            async with Client(pool, record, tmp_path / "b", era) as b:
                reading = await b.puller.read()
                assert reading.taken == 1
                assert not reading.caught_up
                assert any(name.startswith("replica") for name in reading.servers)
                for server in pool.servers.values():
                    await server.stop()
                with pytest.raises(OperationFault, match="no server of the slot answers"):
                    await Puller(b.slot.roster, era, b.store.readings, b.log).read()

    asyncio.run(main())


def test_fetch_fails_over_and_names_what_nobody_has(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record, era = await pool.seat(), pool.era()
            async with Client(pool, record, tmp_path / "a", era) as a:
                payloads = [os.urandom(100_000) for _ in range(30)]
                blobs = await a.slot.put_many(era, BlobClass.BULK, payloads)
                await a.slot.uploader.reach(Stage.STORED)
                await until(lambda: a.store.receipts.count() == 90)
            await pool.servers["relay-eu-002"].stop()
            async with Client(pool, record, tmp_path / "b", era) as b:
                got: dict[bytes, bytes] = {}

                async def take(blob: bytes, body: bytes) -> None:
                    assert blob_id(body) == blob
                    got[blob] = body

                missing = await b.slot.fetch(era, [*blobs, b"\xaa" * 32], take)
                assert missing == (b"\xaa" * 32,)
                assert got.keys() == set(blobs)

    asyncio.run(main())


def test_own_blobs_are_at_hand_without_any_server(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record, era = await pool.seat(), pool.era()
            async with Client(pool, record, tmp_path / "a", era) as a:
                for server in pool.servers.values():
                    await server.stop()
                blob = await a.slot.put(era, BlobClass.BULK, b"mine")
                got = []

                async def take(blob: bytes, body: bytes) -> None:
                    got.append(blob)

                assert await a.slot.fetch(era, [blob], take) == ()
                assert got == [blob]

    asyncio.run(main())


@pytest.mark.parametrize("role", [Role.RELAY, Role.REPLICA])
def test_the_canary_is_in_no_server_file(tmp_path: Path, role: Role) -> None:
    """Ring 1: the servers hold ciphertext; with the text in clear this test would find it."""
    canary = b"canary-7f3a-in-the-mine"

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record, era = await pool.seat(), pool.era()
            async with Client(pool, record, tmp_path / "a", era) as a:
                await a.slot.put(era, BlobClass.LOG, b"op||" + canary)
                await a.slot.put(era, BlobClass.BULK, canary * 100)
                await a.slot.uploader.reach(Stage.REPLICATED)
                held = [await ids_on(s, era) for s in pool.servers.values() if s.role is role]
                assert any(held)
            files = [path for path in (tmp_path / "pool").rglob("*") if path.is_file()]
            assert files
            assert not [path for path in files if canary in path.read_bytes()]

    asyncio.run(main())
    (tmp_path / "pool" / "control").write_bytes(b"..." + canary)
    found = [p for p in (tmp_path / "pool").rglob("*") if p.is_file() and canary in p.read_bytes()]
    assert len(found) == 1, "the search itself works"
