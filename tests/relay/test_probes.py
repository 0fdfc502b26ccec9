"""Watching the neighbours: canaries, reports, alerts (seed 004 §3.1-§3.2, §4.1-§4.3, ADR 0002)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.relay.harness import Pool, Server, today, until

from holdfast.crypto.blob import seal
from holdfast.errors import PeerFault
from holdfast.limits import RED_FAILURE_S
from holdfast.logic.fleet.model import Role, SlotRecord, Tier
from holdfast.relay.probes import Watchman
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.store import FaultyFiles
from holdfast.wire.hq import Alert
from holdfast.wire.pool import BlobClass

Case = Callable[[Pool, SlotRecord], Awaitable[None]]
ONE, TWO, THREE = (f"relay-eu-{n:03d}" for n in (1, 2, 3))
SCALE = 400.0
"""RED takes five minutes; here they pass in three quarters of a second."""


def with_pool(home: Path, case: Case, **options: Any) -> None:
    async def main() -> None:
        async with Pool(home, **options) as pool:
            record = await pool.seat(3, 0)
            desks = [server.running.desk for server in pool.servers.values()]
            await until(lambda: all(desk.counts["probes_ok"] >= 2 for desk in desks))
            await case(pool, record)

    asyncio.run(main())


async def _probe(pool: Pool, prober: str, target: str, record: SlotRecord) -> bool:
    """One probe, as the watchman of `prober` makes it."""
    watchman: Watchman = pool.servers[prober].running._watchman
    seated = pool.servers[prober].running.desk.seats.find(record.slot)
    seat = next(s for s in seated.peers() if s.name == target)
    return await watchman._probe(seated, seat)


def test_a_probe_writes_and_reads_through_the_clients_port(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        counts = pool.servers[TWO].running.desk.counts
        before = counts["push"], counts["get"]
        assert await _probe(pool, ONE, TWO, record)
        assert (counts["push"], counts["get"]) == (before[0] + 1, before[1] + 1)
        assert pool.servers[TWO].running.store.figures().blobs == 0
        await pool.servers[TWO].stop()
        assert not await _probe(pool, ONE, TWO, record)

    with_pool(tmp_path, case)


def test_a_server_that_cannot_write_fails_its_probe(tmp_path: Path) -> None:
    """D28: gray failure; `/health` alone would call it healthy."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        await pool.servers[TWO].stop()
        files = FaultyFiles()
        await pool.servers[TWO].start(files)
        assert await _probe(pool, ONE, TWO, record)
        files.room_bytes = 0
        assert not await _probe(pool, ONE, TWO, record)
        load = pool.servers[TWO].running.load()
        assert not load.writable
        files.room_bytes = None
        assert await _probe(pool, ONE, TWO, record)
        assert pool.servers[TWO].running.load().writable

    with_pool(tmp_path, case)


def test_a_server_that_has_not_seen_our_record_is_alive(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        pool.servers[TWO].running.desk.seats._slots.clear()
        assert await _probe(pool, ONE, TWO, record)

    with_pool(tmp_path, case)


def test_a_flooded_server_is_alive_and_a_stuck_one_is_not(tmp_path: Path) -> None:
    """No session or no request free: another machine would help against none of that. A disk
    that takes nothing: it would."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        relay = pool.servers[TWO].running
        relay.desk.sessions._sessions_max = -10_000
        assert await _probe(pool, ONE, TWO, record)
        relay.desk.sessions._sessions_max = 100
        relay.store._queued_bytes = 1 << 40
        assert not await _probe(pool, ONE, TWO, record)
        relay.store._queued_bytes = 0

    with_pool(tmp_path, case)


def test_a_server_at_the_address_of_another_fails(tmp_path: Path) -> None:
    """DNS poisoning, a reused address: whoever answers there is not the node of the record."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        port = pool.servers[TWO].port
        await pool.servers[TWO].stop()
        impostor = Server(pool, "relay-eu-009", Role.RELAY, "alpha", "eu")
        pool.servers[impostor.name] = impostor
        impostor.port = port
        await impostor.start()
        assert not await _probe(pool, ONE, TWO, record)

    with_pool(tmp_path, case)


def test_a_revoked_server_fails(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        pool.revoke(pool.servers[TWO])
        assert not await _probe(pool, ONE, TWO, record)

    with_pool(tmp_path, case)


def test_a_dead_server_becomes_red_without_any_client(tmp_path: Path) -> None:
    """ADR 0002: peers find it; §4.2 three in a row, §4.3 five minutes without a break."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        survivor = pool.servers[ONE]
        await until(lambda: survivor.running.desk.counts["probes_ok"] >= 2)
        await pool.servers[TWO].stop()
        await until(lambda: any(a.tier is Tier.RED for a in survivor.alerts))
        alerts = [alert for alert in survivor.alerts if alert.name == TWO]
        tiers = [alert.tier for alert in alerts]
        assert sorted(set(tiers), key=list(Tier).index) == [Tier.YELLOW, Tier.ORANGE, Tier.RED]
        assert tiers == sorted(tiers, key=list(Tier).index), "it only climbs"
        red = next(alert for alert in alerts if alert.tier is Tier.RED)
        assert red.node == pool.servers[TWO].node
        assert red.probe is not None
        assert not red.probe.ok
        assert red.probe.failures >= 3
        assert red.observed_at - red.probe.first_failed_at >= RED_FAILURE_S / SCALE - 0.1
        assert not [alert for alert in survivor.alerts if alert.name == THREE]

    with_pool(tmp_path, case, clock=SystemClock(SCALE))


def test_a_server_that_returns_clears_the_alarm(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        survivor = pool.servers[ONE]
        await until(lambda: survivor.running.desk.counts["probes_ok"] >= 2)
        await pool.servers[TWO].stop()
        await until(lambda: any(a.tier is Tier.ORANGE for a in survivor.alerts))
        await pool.servers[TWO].start()
        await until(lambda: survivor.alerts[-1].tier is Tier.GREEN)
        last: Alert = survivor.alerts[-1]
        assert last.probe is not None
        assert last.probe.ok
        assert last.probe.first_failed_at == 0

    with_pool(tmp_path, case, clock=SystemClock(SCALE))


# --- Reports -------------------------------------------------------------------------------------
async def _groups(pool: Pool, record: SlotRecord, count: int) -> list[Any]:
    """Sessions of that many groups, each with a blob on the first relay."""
    sessions = []
    for _ in range(count):
        era = pool.era()
        session = await pool.session(ONE, era.access, record.slot)
        await session.push(BlobClass.LOG, [seal(era, 1, b"x", today())])
        sessions.append(session)
    return sessions


def test_eleven_clients_make_it_yellow_and_no_more(tmp_path: Path) -> None:
    """§4.1 more than ten distinct clients; §9.1 reports are hints: the healthy server answers our
    probe, so nothing climbs further however many report."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        relay = pool.servers[ONE]
        # Sixty are active here, so that a fifth of them is more than ten.
        sessions = await _groups(pool, record, 60)
        for session in sessions[:10]:
            for _ in range(3):
                await session.report(TWO, 0.0, "eu")
        assert relay.alerts == []
        before = relay.running.desk.counts["probes_ok"]
        await sessions[10].report(TWO, 0.0, "ap")
        assert [(a.name, a.tier, a.clients) for a in relay.alerts] == [(TWO, Tier.YELLOW, 11)]
        assert relay.alerts[0].clients_active == 60
        assert relay.alerts[0].regions == ("ap", "eu")
        for session in sessions[11:]:
            await session.report(TWO, 0.0, "eu")
        await until(lambda: relay.running.desk.counts["probes_ok"] > before)
        assert {alert.tier for alert in relay.alerts} <= {Tier.YELLOW, Tier.GREEN}

    with_pool(tmp_path, case)


def test_a_report_counts_only_for_a_group_that_lives_here(tmp_path: Path) -> None:
    """§9.1 forged floods: a tag without blobs here, a name of another slot, our own name, a tag
    too young: none of them counts (D17)."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        desk = pool.servers[ONE].running.desk
        stranger = await pool.session(ONE, pool.era().access, record.slot)
        await stranger.report(TWO, 0.0, "eu")
        (member,) = await _groups(pool, record, 1)
        for name in ("relay-eu-099", ONE, ""):
            await member.report(name, 0.0, "eu")
        assert desk.counts["reports_counted"] == 0
        assert desk.counts["reports_ignored"] == 4
        await member.report(TWO, 0.0, "eu")
        assert desk.counts["reports_counted"] == 1
        pool.report_tag_age_s = 86_400.0
        pool.tell(pool.servers[ONE])
        await member.report(TWO, 0.0, "eu")
        assert desk.counts["reports_counted"] == 1
        for name, region in (("x" * 256, "eu"), (TWO, "r" * 33)):
            with pytest.raises(PeerFault):
                await member.report(name, 0.0, region)

    with_pool(tmp_path, case)


def test_the_age_of_a_tag_is_elapsed_time(tmp_path: Path) -> None:
    """`report_tag_age_s` shrinks with a drill, like every other timer of the seed."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        (member,) = await _groups(pool, record, 1)
        desk = pool.servers[ONE].running.desk

        async def counted() -> bool:
            await member.report(TWO, 0.0, "eu")
            return desk.counts["reports_counted"] > 0

        deadline = SystemClock().elapsed() + 10
        while not await counted():
            assert SystemClock().elapsed() < deadline
            await asyncio.sleep(0.05)

    # The first commit is known to the second, so the age may be off by one real second.
    with_pool(tmp_path, case, clock=SystemClock(1_000.0), report_tag_age_s=500.0)


def test_probing_ends_with_the_seat_and_with_the_service(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        watchman = pool.servers[ONE].running._watchman
        await until(lambda: set(watchman._probing) == {TWO, THREE})
        pool.assign(record.slot, [ONE, THREE])
        assert set(watchman._probing) == {THREE}
        await watchman.close()
        assert not watchman._probing

    with_pool(tmp_path, case)


def test_an_unknown_entropy_makes_another_canary(tmp_path: Path) -> None:
    """Two probes never write the same canary: a replayed answer proves nothing."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        store = pool.servers[TWO].running.store
        for _ in range(3):
            assert await _probe(pool, ONE, TWO, record)
        ids = {blob for _, blob in store._writer.canaries}
        assert len(ids) >= 3
        assert SystemEntropy().bytes(16) != SystemEntropy().bytes(16)

    with_pool(tmp_path, case)
