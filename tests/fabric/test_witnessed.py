"""Clients follow what witnesses saw, and nobody who is excluded (D4, D6; issue 3 §3)."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from pathlib import Path

import msgspec
import pytest
from tests.fabric.test_roster import names_of, replace
from tests.fabric.world import FAST, Client
from tests.relay.harness import Pool, until

from holdfast.crypto.certificates import cert_info
from holdfast.errors import HoldfastError, PeerFault
from holdfast.fabric import roster as roster_module
from holdfast.fabric.store import Store
from holdfast.logic.fleet.model import Version
from holdfast.logic.pool.fanout import Stage
from holdfast.logic.trust.adoption import Verdict
from holdfast.logic.trust.revocation import Revoked
from holdfast.rim.clock import SystemClock
from holdfast.wire.pool import BlobClass


def watched(tmp_path: Path, *owners: str) -> Pool:
    """A pool whose log these owners witness, everything cosigned."""
    pool = Pool(tmp_path / "pool", clock=SystemClock(FAST))
    pool.log.own(*owners)
    pool.cosigners = owners
    return pool


def test_a_record_without_two_owners_is_not_followed_until_it_has_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with watched(tmp_path, "ada", "bo", "cy") as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                roster = client.slot.roster
                assert not roster.unwitnessed
                pool.cosigners = ("ada",)
                newcomer = await replace(pool, "relay-eu-001")
                pool.assign(record.slot, names_of(record))
                blob = await client.slot.put(client.era, BlobClass.LOG, b"one")
                await until(lambda: roster.refused is Verdict.UNWITNESSED)
                await client.slot.uploader.reach(Stage.REPLICATED)
                assert roster.version == Version(0, 1)
                assert newcomer.node not in client.store.receipts.holders(blob)
                pool.cosigners = ("ada", "bo")
                for server in pool.servers.values():
                    pool.tell(server)
                await client.slot.put(client.era, BlobClass.LOG, b"two")
                await roster.refresh(client.era.access)
                await until(lambda: roster.version == Version(0, 2))
                assert roster.refused is None
                assert not roster.unwitnessed

    asyncio.run(main())


def test_control_without_witnesses_the_same_record_is_followed(tmp_path: Path) -> None:
    """One owner is no watch: k = 0, shown as unwitnessed. So it is with k set to 0."""

    async def main(home: Path, owners: tuple[str, ...], k: int) -> None:
        async with watched(home, *owners) as pool:
            record = await pool.seat()
            client = Client(pool, record, home / "a", pool.era())
            client.slot.roster.network = dataclasses.replace(client.network, k=k)
            async with client:
                roster = client.slot.roster
                pool.cosigners = ()
                await replace(pool, "relay-eu-001")
                pool.assign(record.slot, names_of(record))
                await roster.refresh(client.era.access)
                await until(lambda: roster.version == Version(0, 2))
                assert roster.unwitnessed

    asyncio.run(main(tmp_path / "one", ("ada",), 2))
    asyncio.run(main(tmp_path / "none", ("ada", "bo"), 0))


def test_an_override_of_two_owners_replaces_a_slot_in_one_step(tmp_path: Path) -> None:
    """D4: other changes need an override signed by k operators; one is not enough."""

    async def main() -> None:
        async with watched(tmp_path, "ada", "bo") as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                offer = client.store.records.offer
                seats = tuple(
                    msgspec.structs.replace(seat, node=bytes([n]) * 32)
                    for n, seat in enumerate(record.relays, 1)
                )
                other = msgspec.structs.replace(record, version=Version(0, 2), relays=seats)
                staple, slot, roots = pool.staple(other), record.slot, pool.roots
                assert offer(slot, roots, staple).verdict is Verdict.TOO_DIFFERENT
                one = pool.log.overridden(staple, other, ["ada"])
                assert offer(slot, roots, one).verdict is Verdict.TOO_DIFFERENT
                twice = pool.log.overridden(staple, other, ["ada", "ada"])
                assert offer(slot, roots, twice).verdict is Verdict.TOO_DIFFERENT
                wrong = pool.log.overridden(staple, record, ["ada", "bo"])
                assert offer(slot, roots, wrong).verdict is Verdict.TOO_DIFFERENT
                both = pool.log.overridden(staple, other, ["ada", "bo"])
                assert offer(slot, roots, both).verdict is Verdict.ADOPT

    asyncio.run(main())


def test_a_client_drops_a_revoked_server_at_its_next_opening(tmp_path: Path) -> None:
    """THREATS said that clients do not check the list: now they do, and remember it."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            era = pool.era()
            async with Client(pool, record, tmp_path / "a", era) as client:
                await client.slot.put(era, BlobClass.LOG, b"one")
                await client.slot.uploader.reach(Stage.REPLICATED)
                bad = pool.servers["relay-eu-002"]
                pool.revoke(bad)
                await client.slot.roster.refresh(era.access)
                trust = client.store.records.trust
                assert len(trust.revocations(pool.network)) == 1
                await client.slot.put(era, BlobClass.LOG, b"two")
                await client.slot.uploader.reach(Stage.STORED)
                await until(lambda: client.slot.roster.troubled(bad.name))
                link = client.slot.roster.link(bad.name)
                assert link.node is None
            store = Store(tmp_path / "a", pool.clock)
            assert len(store.records.trust.revocations(pool.network)) == 1
            store.close()

    asyncio.run(main())


def test_records_of_a_revoked_headquarters_are_refused(tmp_path: Path) -> None:
    """A stolen intermediate signs a fine record; once it is on the list nobody follows it."""

    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                newer = msgspec.structs.replace(record, version=Version(0, 2), issued_at=1)
                staple = pool.staple(newer)
                serial = cert_info(pool.intermediate.certificate).serial
                trust = client.store.records.trust
                trust.revocations(pool.network)._add(Revoked(b"", serial, b"", "stolen", 1))
                with pytest.raises(PeerFault, match="revoked headquarters"):
                    client.store.records.offer(record.slot, pool.roots, staple)
                assert client.slot.roster.version == Version(0, 1)

    asyncio.run(main())


def test_sessions_that_never_end_hear_of_revocations_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client asks now and then, one server after another: the quickest may be the hostile one."""
    monkeypatch.setattr(roster_module, "NEWS_S", 20.0)

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                roster, trust = client.slot.roster, client.store.records.trust
                pool.revoke(pool.servers["relay-eu-002"])

                async def heard() -> bool:
                    name = roster.ready()[0]
                    with contextlib.suppress(HoldfastError):
                        await roster.call(name, client.era.access, _nothing)
                    await asyncio.sleep(0.02)
                    return len(trust.revocations(pool.network)) > 0

                async with asyncio.timeout(20):
                    while not await heard():
                        continue

    asyncio.run(main())


async def _nothing(_session: object) -> None:
    return None
