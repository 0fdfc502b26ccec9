"""Following a slot: cold start, replacement by record and by DNS, failover, reports (D1, D4)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.fabric.world import FAST, Client, Dns, ids_on, locator_of
from tests.relay.harness import Pool, Server, until

from holdfast.errors import OperationFault
from holdfast.fabric.session import Session
from holdfast.limits import RECORD_CHANGE_S_MIN
from holdfast.logic.fleet.model import SlotRecord, Version
from holdfast.logic.pool.fanout import Stage
from holdfast.logic.trust.adoption import Verdict
from holdfast.rim.clock import SystemClock
from holdfast.rim.resolver import Resolved
from holdfast.wire.pool import BlobClass


async def replace(pool: Pool, name: str) -> Server:
    """Another node behind `name`, on another port; the old one is gone. Nobody was told."""
    old = pool.servers.pop(name)
    await old.stop()
    old.home.rename(old.home.with_name(f"{name}-was-{old.node.hex()[:8]}"))
    server = Server(pool, name, old.role, old.provider, old.region)
    pool.servers[name] = server
    await server.start()
    return server


def names_of(record: SlotRecord) -> list[str]:
    return [seat.name for seat in record.seats()]


def shifted(pool: Pool, record: SlotRecord, n: int) -> SlotRecord:
    """The record with the nodes that run now, at version `n`; told to nobody."""

    def seats(old: tuple[object, ...]) -> tuple[object, ...]:
        return tuple(pool.servers[seat.name].seat for seat in old)  # type: ignore[attr-defined]

    return msgspec.structs.replace(
        record,
        version=Version(0, n),
        relays=seats(record.relays),
        replicas=seats(record.replicas),
    )


# --- cold start ----------------------------------------------------------------------------------
def test_cold_start_follows_the_newest_of_two(tmp_path: Path) -> None:
    """D1: the newest record seen, asked of two servers."""

    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record = await pool.seat()
            stale = pool.servers["relay-eu-001"]
            newer = pool.assign(record.slot, names_of(record))
            for name in ("relay-eu-003", "replica-eu-001", "replica-eu-002", "replica-eu-003"):
                await pool.servers[name].stop()
            pool.records[record.slot] = record
            await stale.stop()
            await stale.start()
            pool.records[record.slot] = newer
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                assert client.slot.roster.version == newer.version
                assert client.slot.roster.unwitnessed

    asyncio.run(main())


def test_cold_start_with_one_server_left(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record = await pool.seat()
            for name in names_of(record)[1:]:
                await pool.servers[name].stop()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                assert client.slot.roster.version == record.version

    asyncio.run(main())


def test_cold_start_with_nobody_says_what_to_do(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record = await pool.seat()
            for server in pool.servers.values():
                await server.stop()
            client = Client(pool, record, tmp_path / "a", pool.era())
            with pytest.raises(OperationFault, match="ask for a newer locator"):
                await client.open()
            await client.close()

    asyncio.run(main())


def test_cold_start_by_dns_alone(tmp_path: Path) -> None:
    """Every address of the locator is stale; the names still lead there (seed 004 §2.3)."""

    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record = await pool.seat()
            moved = msgspec.structs.replace(
                record,
                relays=tuple(
                    msgspec.structs.replace(seat, addresses=("127.0.0.1:1",))
                    for seat in record.relays
                ),
                replicas=tuple(
                    msgspec.structs.replace(seat, addresses=("127.0.0.1:1",))
                    for seat in record.replicas
                ),
            )
            dns = Dns()
            for server in pool.servers.values():
                dns.point(server)
            async with Client(pool, moved, tmp_path / "a", pool.era(), dns) as client:
                assert client.slot.roster.version == record.version
                assert client.slot.current_locator() == locator_of(pool, record)

    asyncio.run(main())


def test_the_record_is_there_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record, era = await pool.seat(), pool.era()
            async with Client(pool, record, tmp_path / "a", era):
                pass
            for server in pool.servers.values():
                await server.stop()
            async with Client(pool, record, tmp_path / "a", era) as client:
                assert client.slot.roster.record == record
                staple = client.store.records.staple(record.slot)
                assert staple == pool.staple(record)

    asyncio.run(main())


# --- replacement ---------------------------------------------------------------------------------
def test_seed_004_7_1_a_replacement_is_found_by_record(tmp_path: Path) -> None:
    """ "the client connects to the replacement and resumes 3-relay operation" """

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                await client.slot.put(client.era, BlobClass.LOG, b"one")
                await client.slot.uploader.reach(Stage.REPLICATED)
                fresh = await replace(pool, "relay-eu-002")
                pool.assign(record.slot, names_of(record))
                await client.slot.put(client.era, BlobClass.LOG, b"two")
                roster = client.slot.roster
                await until(lambda: roster.version == Version(0, 2))
                third = await client.slot.put(client.era, BlobClass.LOG, b"three")
                await until(lambda: fresh.node in client.store.receipts.holders(third))
                assert roster.link("relay-eu-002").node == fresh.node
                assert not roster.health.failing()

    asyncio.run(main())


def test_seed_004_7_1_a_replacement_is_found_by_dns(tmp_path: Path) -> None:
    """ "If the dead relay's DNS resolves to a new NodeId (replacement spawned)": before any
    survivor knows of it."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record, dns = await pool.seat(), Dns()
            async with Client(pool, record, tmp_path / "a", pool.era(), dns) as client:
                fresh = await replace(pool, "relay-eu-002")
                pool.records[record.slot] = shifted(pool, record, 2)
                pool.tell(fresh)
                dns.point(fresh)
                await client.slot.put(client.era, BlobClass.LOG, b"one")
                await until(lambda: client.slot.roster.version == Version(0, 2))
                blob = await client.slot.put(client.era, BlobClass.LOG, b"two")
                await until(lambda: fresh.node in client.store.receipts.holders(blob))

    asyncio.run(main())


def test_dns_alone_redirects_nobody(tmp_path: Path) -> None:
    """D1, THREATS: the chain, the node id and the slot record must agree."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record, dns = await pool.seat(), Dns()
            async with Client(pool, record, tmp_path / "a", pool.era(), dns) as client:
                rogue = await replace(pool, "relay-eu-002")  # certified, and in no record
                dns.point(rogue)
                other = pool.servers["relay-eu-001"].seat
                dns.names["relay-eu-003"] = Resolved(other.addresses, other.node)
                await pool.servers["relay-eu-003"].stop()
                blob = await client.slot.put(client.era, BlobClass.LOG, b"one")
                failing = client.slot.roster.health.failing
                await until(lambda: failing() == {"relay-eu-002", "relay-eu-003"})
                await until(lambda: "relay-eu-002" in dns.asked and "relay-eu-003" in dns.asked)
                assert rogue.node not in client.store.receipts.holders(blob)
                assert client.slot.uploader.stage(blob) is Stage.QUEUED

    asyncio.run(main())


def test_a_moved_server_is_found_by_dns(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record, dns = await pool.seat(), Dns()
            async with Client(pool, record, tmp_path / "a", pool.era(), dns) as client:
                server = pool.servers["relay-eu-002"]
                await server.stop()
                server.port = 0
                await server.start()
                await client.slot.put(client.era, BlobClass.LOG, b"one")
                await until(lambda: client.slot.roster.health.failures("relay-eu-002") > 1)
                dns.point(server)
                await until(lambda: not client.slot.roster.health.failing())
                blob = await client.slot.put(client.era, BlobClass.LOG, b"two")
                await until(lambda: server.node in client.store.receipts.holders(blob))
                assert client.slot.roster.version == Version(0, 1)

    asyncio.run(main())


def test_a_record_that_comes_too_soon_waits_for_its_time(tmp_path: Path) -> None:
    """D4: ten minutes between changes, in elapsed time; then it is followed without a prompt."""

    async def main() -> None:
        scale = 300.0
        async with Pool(tmp_path / "pool", clock=SystemClock(scale)) as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                roster = client.slot.roster
                await replace(pool, "relay-eu-001")
                pool.assign(record.slot, names_of(record))
                await client.slot.put(client.era, BlobClass.LOG, b"one")
                await until(lambda: roster.version == Version(0, 2))
                changed_at = pool.clock.elapsed()
                fresh = await replace(pool, "relay-eu-002")
                pool.assign(record.slot, names_of(record))
                blob = await client.slot.put(client.era, BlobClass.LOG, b"two")
                await until(lambda: roster.refused is Verdict.TOO_SOON)
                assert fresh.node not in client.store.receipts.holders(blob)
                await until(lambda: roster.version == Version(0, 3))
                assert pool.clock.elapsed() - changed_at > RECORD_CHANGE_S_MIN - 60
                assert roster.refused is None

    asyncio.run(main())


def test_a_slot_replaced_in_one_step_is_not_followed(tmp_path: Path) -> None:
    """A hostile HQ signs a record that names its own relays: refused, and said (THREATS)."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                rogues = [await replace(pool, f"relay-eu-00{n}") for n in (1, 2)]
                pool.assign(record.slot, names_of(record))
                blob = await client.slot.put(client.era, BlobClass.LOG, b"one")
                roster = client.slot.roster
                await until(lambda: roster.refused is Verdict.TOO_DIFFERENT)
                assert roster.version == Version(0, 1)
                holders = client.store.receipts.holders(blob)
                assert not {rogue.node for rogue in rogues} & set(holders)

    asyncio.run(main())


def test_two_records_of_one_version_are_kept_as_evidence(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                other = msgspec.structs.replace(record, issued_at=1)
                offer = client.store.records.offer
                judgement = offer(record.slot, pool.roots, pool.staple(other))
                assert judgement.verdict is Verdict.CONFLICT
                assert client.store.records.conflicts(record.slot) == 1

    asyncio.run(main())


# --- failover and reports ------------------------------------------------------------------------
def test_seed_004_3_1_survivors_hear_of_a_dead_server_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "the client reports the failure to its surviving relays ... It reports and moves on." """
    heard: list[tuple[str, float, str]] = []
    report = Session.report

    async def spy(session: Session, name: str, first_failed_at: float, region: str) -> None:
        heard.append((name, first_failed_at, region))
        await report(session, name, first_failed_at, region)

    monkeypatch.setattr(Session, "report", spy)

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                await client.slot.put(client.era, BlobClass.LOG, b"one")
                await client.slot.uploader.reach(Stage.REPLICATED)
                before = pool.clock.wall()
                await pool.servers["relay-eu-002"].stop()
                await client.slot.put(client.era, BlobClass.LOG, b"two")
                await client.slot.uploader.reach(Stage.REPLICATED)
                await until(lambda: len(heard) == 5)
                await until(lambda: client.slot.roster.health.failures("relay-eu-002") >= 4)
                assert {(name, region) for name, _, region in heard} == {("relay-eu-002", "eu")}
                assert len({at for _, at, _ in heard}) == 1
                assert before <= heard[0][1] <= pool.clock.wall()
                await pool.servers["relay-eu-002"].start()
                await until(lambda: not client.slot.roster.health.failing())
                await pool.servers["relay-eu-002"].stop()
                await client.slot.put(client.era, BlobClass.LOG, b"three")
                await until(lambda: len(heard) == 10)
                assert len({at for _, at, _ in heard}) == 2

    asyncio.run(main())


def test_reads_go_on_while_a_relay_is_dead(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                await client.slot.put(client.era, BlobClass.LOG, client.log.write("one")[1])
                await client.slot.uploader.reach(Stage.REPLICATED)
                await pool.servers["relay-eu-001"].stop()
                reading = await client.puller.read()
                assert set(reading.servers) == {"relay-eu-002", "relay-eu-003"}
                assert reading.caught_up
                assert await ids_on(pool.servers["relay-eu-003"], client.era)

    asyncio.run(main())


def test_a_ping_tells_the_living_from_the_dead(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                roster, server = client.slot.roster, pool.servers["relay-eu-001"]
                assert await roster.ping(server.name, client.era.access)
                assert await roster.ping(server.name, client.era.access), "with a session open"
                await server.stop()
                assert not await roster.ping(server.name, client.era.access)
                await server.start()
                await until(lambda: roster.may_try(server.name))
                assert await roster.ping(server.name, client.era.access)

    asyncio.run(main())
