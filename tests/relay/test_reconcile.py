"""Servers of a slot keep each other whole without a client (DESIGN §3, D11, D13, D23)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.relay.harness import Pool, Server, today, until

from holdfast.crypto.blob import seal
from holdfast.crypto.pure import hash_bytes
from holdfast.limits import RELAY_TTL_DAYS, RELAY_TTL_DAYS_HARD
from holdfast.logic.fleet.filled import digest_of
from holdfast.logic.fleet.model import Role, SlotRecord
from holdfast.relay.policy import RelayPolicy
from holdfast.relay.retention import Retention
from holdfast.rim.clock import SystemClock
from holdfast.rim.store import Incoming
from holdfast.wire.pool import BlobClass

RELAYS = [f"relay-eu-{n:03d}" for n in (1, 2, 3)]
REPLICAS = [f"replica-eu-{n:03d}" for n in (1, 2, 3)]
Case = Callable[[Pool, SlotRecord], Awaitable[None]]


def with_pool(home: Path, case: Case, relays: int = 3, replicas: int = 3, **options: Any) -> None:
    async def main() -> None:
        async with Pool(home, **{"background": False, **options}) as pool:
            await case(pool, await pool.seat(relays, replicas))

    asyncio.run(main())


async def round_of(pool: Pool, *names: str) -> None:
    """One round at these servers, at all by default, one after another."""
    for name in names or tuple(pool.servers):
        await pool.servers[name].running.reconciler.round()


def days_of(pool: Pool, slot: bytes, *names: str) -> list[object]:
    """What those servers have, as comparable pictures."""
    chosen = names or tuple(n for n, s in pool.servers.items() if s.relay is not None)
    return [pool.servers[name].running.store.days(slot) for name in chosen]


async def scatter(pool: Pool, slot: bytes, count: int, seed: int = 1) -> dict[bytes, bytes]:
    """Push blobs of three groups, each to one or two servers picked at random."""
    chance = random.Random(seed)
    pushed: dict[bytes, bytes] = {}
    for _ in range(3):
        era = pool.era()
        sessions = [await pool.session(name, era.access, slot) for name in pool.servers]
        for n in range(count):
            size = chance.choice([10, 3_000, 60_000])
            blob_class = chance.choice([BlobClass.LOG, BlobClass.BULK])
            blob = seal(era, blob_class, chance.randbytes(size), today() - n % 3)
            for session in chance.sample(sessions, chance.choice([1, 2])):
                await session.push(blob_class, [blob])
            pushed[hash_bytes(blob)] = blob
    return pushed


def test_six_servers_become_equal(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        pushed = await scatter(pool, record.slot, 40)
        await round_of(pool)
        await round_of(pool)
        pictures = days_of(pool, record.slot)
        assert pictures[0]
        assert all(picture == pictures[0] for picture in pictures)
        for server in pool.servers.values():
            assert server.running.store.figures().blobs == len(pushed)
            assert server.running.reconciler.filled()

    with_pool(tmp_path, case)


def test_nothing_is_fetched_twice_and_equal_servers_ask_once(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        await scatter(pool, record.slot, 20)
        await round_of(pool)
        await round_of(pool)
        counts = {name: server.running.desk.counts for name, server in pool.servers.items()}
        fetched = {name: count["reconcile_fetched"] for name, count in counts.items()}
        before = {name: count["reconcile"] for name, count in counts.items()}
        await round_of(pool)
        for name, count in counts.items():
            stored = pool.servers[name].running.store.figures().blobs
            assert count["reconcile_fetched"] == fetched[name] < stored
            assert count["reconcile"] - before[name] == 5, "one question by each peer"

    with_pool(tmp_path, case)


def test_a_blob_that_reconciling_brought_is_pulled_and_watched(tmp_path: Path) -> None:
    """A device that watches one relay sees what another device pushed to a replica only."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        blob = seal(era, 1, b"x", today())
        here = await pool.session(RELAYS[0], era.access, record.slot)
        waiting = asyncio.create_task(here.watch(0, 20))
        there = await pool.session(REPLICAS[0], era.access, record.slot)
        await there.push(BlobClass.LOG, [blob])
        await round_of(pool, RELAYS[0])
        assert (await asyncio.wait_for(waiting, 5)).heads == (1,)
        _, bodies = await here.pull(0, 10)
        assert list(bodies.values()) == [blob]

    with_pool(tmp_path, case, 1, 1)


def test_it_happens_by_itself(tmp_path: Path) -> None:
    """Every RECONCILE_PERIOD_S elapsed, with no client and no headquarters."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        session = await pool.session(RELAYS[0], era.access, record.slot)
        await session.push(BlobClass.LOG, [seal(era, 1, b"x", today())])
        others = [server.running.store for server in pool.servers.values()]
        await until(lambda: all(store.figures().blobs == 1 for store in others))

    with_pool(tmp_path, case, 2, 2, clock=SystemClock(100.0), background=True)


# --- Healing -------------------------------------------------------------------------------------
def test_a_replacement_is_refilled_from_its_peers_alone(tmp_path: Path) -> None:
    """`refilled_without_client`: a new machine under the old name gets everything back."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        await scatter(pool, record.slot, 15)
        await round_of(pool)
        await round_of(pool)
        whole = days_of(pool, record.slot, RELAYS[0])[0]
        await pool.servers[REPLICAS[1]].stop()
        newcomer = await pool.add(Role.REPLICA, 8)
        assert not newcomer.running.reconciler.filled()
        pool.assign(record.slot, [*RELAYS, REPLICAS[0], REPLICAS[2], newcomer.name])
        await newcomer.running.reconciler.round()
        assert days_of(pool, record.slot, newcomer.name) == [whole]
        assert newcomer.running.reconciler.filled()

    with_pool(tmp_path, case)


def test_filled_waits_for_what_two_reachable_peers_hold(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        for server in pool.servers.values():
            await server.stop()
        newcomer = await pool.add(Role.REPLICA, 8)
        pool.assign(record.slot, [*RELAYS, REPLICAS[0], REPLICAS[1], newcomer.name])
        replica = newcomer.running.reconciler
        await replica.round()
        assert not replica.filled(), "nobody to compare with"
        await pool.servers[REPLICAS[1]].start()
        replica._peers._rest_until.clear()
        await replica.round()
        assert replica.filled(), "one, when only one is left"

    with_pool(tmp_path, case)


def test_who_has_not_heard_of_a_newcomer_is_waited_for(tmp_path: Path) -> None:
    """A peer that refuses holds perhaps what the others lack: it is no peer that is gone."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        kept = await pool.session(REPLICAS[1], era.access, record.slot)
        await kept.push(BlobClass.LOG, [seal(era, 1, b"only there", today())])
        newcomer = await pool.add(Role.REPLICA, 8)
        names = [*RELAYS, REPLICAS[0], REPLICAS[1], newcomer.name]
        new = pool.assign(record.slot, names, unaware=[REPLICAS[1]])
        replica = newcomer.running.reconciler
        await replica.round()
        assert not replica.filled()
        assert replica.filled_of() == b""
        pool.tell(pool.servers[REPLICAS[1]])
        await replica.round()
        assert replica.filled()
        assert replica.filled_of() == digest_of([(new.slot, new.version)])
        assert newcomer.running.store.figures().blobs == 1

    with_pool(tmp_path, case)


def test_rot_is_repaired_by_the_peers(tmp_path: Path) -> None:
    """reliability.md A10: repaired while one honest copy lives."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        blobs = [seal(era, 1, b"%d" % n, today()) for n in range(5)]
        for name in (RELAYS[0], REPLICAS[0]):
            await (await pool.session(name, era.access, record.slot)).push(BlobClass.LOG, blobs)
        state = pool.servers[RELAYS[0]].home / "state" / "store" / "segments"
        (segment,) = state.glob("0*.seg")
        with segment.open("r+b") as file:
            file.seek(200)
            file.write(b"rot")
        session = await pool.session(RELAYS[0], era.access, record.slot)
        first = hash_bytes(blobs[0])
        assert await session.get([first]) == {}
        store = pool.servers[RELAYS[0]].running.store
        await until(lambda: store.figures().rotten == 1)
        await round_of(pool, RELAYS[0])
        assert await session.get([first]) == {first: blobs[0]}

    with_pool(tmp_path, case, 1, 1)


def test_a_revoked_peer_is_not_asked(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        era = pool.era()
        there = await pool.session(REPLICAS[0], era.access, record.slot)
        await there.push(BlobClass.LOG, [seal(era, 1, b"x", today())])
        pool.revoke(pool.servers[REPLICAS[0]])
        await round_of(pool, RELAYS[0])
        assert pool.servers[RELAYS[0]].running.store.figures().blobs == 0

    with_pool(tmp_path, case, 1, 1)


# --- Lying peers ---------------------------------------------------------------------------------
def test_a_peer_cannot_plant_what_is_no_blob_of_that_day(tmp_path: Path) -> None:
    """A rogue server of the slot (THREATS): garbage with a right hash is refused and counted."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        store = pool.servers[REPLICAS[0]].running.store
        junk = b"no blob at all".ljust(500)
        wrong_day = seal(pool.era(), 1, b"x", today() - 1)
        for body in (junk, wrong_day):
            planted = Incoming(hash_bytes(body), today(), body)
            await store.push(record.slot, b"t" * 32, BlobClass.LOG, [planted])
        await round_of(pool, RELAYS[0])
        relay = pool.servers[RELAYS[0]].running
        assert relay.store.figures().blobs == 0
        assert relay.desk.counts["reconcile_bogus"] == 2

    with_pool(tmp_path, case, 1, 1)


def test_a_tag_over_its_quota_does_not_stop_the_others(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        store = pool.servers[REPLICAS[0]].running.store
        big, small = pool.era(), pool.era()
        for n in range(3):
            await store.push(record.slot, big.tag, BlobClass.LOG, [_incoming(big, n)])
        await store.push(record.slot, small.tag, BlobClass.LOG, [_incoming(small, 0)])
        relay = pool.servers[RELAYS[0]].running
        relay.store.allow(2_048)
        await round_of(pool, RELAYS[0])
        assert relay.store.head(record.slot, small.tag) == 1
        assert relay.store.used_bytes(record.slot, big.tag) <= 2_048

    def _incoming(era: Any, n: int) -> Incoming:
        body = seal(era, 1, b"%d" % n, today())
        return Incoming(hash_bytes(body), today(), body)

    with_pool(tmp_path, case, 1, 1)


# --- Retention -----------------------------------------------------------------------------------
OLD = RELAY_TTL_DAYS + 1


async def _old_blob(pool: Pool, slot: bytes, age_days: int, *names: str) -> bytes:
    """Put a blob of that age straight into the stores; doors would refuse it by now."""
    era = pool.era()
    body = seal(era, 1, b"old", today() - age_days)
    item = Incoming(hash_bytes(body), today() - age_days, body)
    for name in names:
        store = pool.servers[name].running.store
        await store.push(slot, era.tag, BlobClass.LOG, [item])
    return item.blob


async def _sweep(server: Server) -> None:
    await Retention(server.running.desk, server.running.reconciler).sweep()


def _blobs(pool: Pool, name: str) -> int:
    return pool.servers[name].running.store.figures().blobs


def test_a_relay_forgets_an_expired_day_only_once_a_replica_has_it(tmp_path: Path) -> None:
    """D13."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        await _old_blob(pool, record.slot, OLD, RELAYS[0])
        relay = pool.servers[RELAYS[0]]
        await pool.servers[REPLICAS[0]].stop()
        await round_of(pool, RELAYS[0])
        await _sweep(relay)
        assert _blobs(pool, RELAYS[0]) == 1, "no replica has been seen"
        await pool.servers[REPLICAS[0]].start()
        pool.assign(record.slot, [RELAYS[0], REPLICAS[0]])
        relay.running._peers._rest_until.clear()
        relay.running.store._state.by_id  # noqa: B018 - the store is still open
        blocked = relay.running.reconciler.confirmed(
            record.slot, relay.running.store.days(record.slot)[0]
        )
        assert not blocked
        await round_of(pool, REPLICAS[0])
        assert _blobs(pool, REPLICAS[0]) == 1, "a replica fetches every day a relay still has"
        await round_of(pool, RELAYS[0])
        await _sweep(relay)
        assert _blobs(pool, RELAYS[0]) == 0
        assert relay.running.desk.counts["days_expired"] == 1
        await round_of(pool, RELAYS[0])
        assert _blobs(pool, RELAYS[0]) == 0, "an expired day is not fetched again"

    with_pool(tmp_path, case, 1, 1)


def test_a_replica_that_has_more_confirms_too(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        await _old_blob(pool, record.slot, OLD, RELAYS[0], REPLICAS[0])
        await _old_blob(pool, record.slot, OLD, REPLICAS[0])
        await round_of(pool, RELAYS[0])
        await _sweep(pool.servers[RELAYS[0]])
        assert _blobs(pool, RELAYS[0]) == 0

    with_pool(tmp_path, case, 1, 1)


def test_a_replica_that_lacks_one_blob_confirms_nothing(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        await _old_blob(pool, record.slot, OLD, RELAYS[0], REPLICAS[0])
        await _old_blob(pool, record.slot, OLD, RELAYS[0])
        await _old_blob(pool, record.slot, OLD, REPLICAS[0])
        await round_of(pool, RELAYS[0])
        await _sweep(pool.servers[RELAYS[0]])
        assert _blobs(pool, RELAYS[0]) == 2

    with_pool(tmp_path, case, 1, 1)


def test_every_slot_of_a_day_must_be_confirmed(tmp_path: Path) -> None:
    """A day's segment holds blobs of many slots; it goes when the last of them is safe."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        other = pool.assign(b"o" * 16, [RELAYS[0], REPLICAS[0]])
        await _old_blob(pool, record.slot, OLD, RELAYS[0], REPLICAS[0])
        await _old_blob(pool, other.slot, OLD, RELAYS[0])
        await round_of(pool, RELAYS[0])
        await _sweep(pool.servers[RELAYS[0]])
        assert _blobs(pool, RELAYS[0]) == 2
        await round_of(pool, REPLICAS[0], RELAYS[0])
        await _sweep(pool.servers[RELAYS[0]])
        assert _blobs(pool, RELAYS[0]) == 0

    with_pool(tmp_path, case, 1, 1)


def test_the_hard_cap_drops_unconfirmed_days_and_says_so(tmp_path: Path) -> None:
    """D13: within a hard cap that it reports."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        relay = pool.servers[RELAYS[0]]
        await pool.servers[REPLICAS[0]].stop()
        await _old_blob(pool, record.slot, RELAY_TTL_DAYS_HARD, RELAYS[0])
        await _old_blob(pool, record.slot, RELAY_TTL_DAYS_HARD + 1, RELAYS[0])
        await _sweep(relay)
        assert _blobs(pool, RELAYS[0]) == 1
        assert relay.running.desk.counts["days_dropped_unconfirmed"] == 1

    with_pool(tmp_path, case, 1, 1)


def test_a_replica_keeps_every_day(tmp_path: Path) -> None:
    """D20: nothing is deleted on replicas in v1; relays keep to their days."""

    async def case(pool: Pool, record: SlotRecord) -> None:
        await _old_blob(pool, record.slot, 400, REPLICAS[0])
        fresh = await _old_blob(pool, record.slot, RELAY_TTL_DAYS, REPLICAS[0])
        await round_of(pool)
        for server in pool.servers.values():
            await _sweep(server)
        assert _blobs(pool, REPLICAS[0]) == 2
        assert _blobs(pool, REPLICAS[1]) == 2, "the other replica fetches all days"
        assert _blobs(pool, RELAYS[0]) == 1, "a relay fetches unexpired days"
        items = pool.servers[RELAYS[0]].running.store.day_items
        assert [i.blob for i in items(record.slot, today() - RELAY_TTL_DAYS, fresh[0])] == [fresh]

    with_pool(tmp_path, case, 1, 2)


def test_a_policy_may_shorten_the_ttl(tmp_path: Path) -> None:
    async def case(pool: Pool, record: SlotRecord) -> None:
        await _old_blob(pool, record.slot, 2, RELAYS[0], REPLICAS[0])
        await round_of(pool, RELAYS[0])
        await _sweep(pool.servers[RELAYS[0]])
        assert _blobs(pool, RELAYS[0]) == 0

    with_pool(tmp_path, case, 1, 1, policy=RelayPolicy(ttl_days=1))
