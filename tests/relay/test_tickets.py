"""The first push for a tag spends a ticket; every limit is tripped through the socket (D17)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from tests.relay.harness import Pool, today, until
from tests.relay.tickets import Office

from holdfast.crypto.blob import seal
from holdfast.crypto.era import Era
from holdfast.errors import PeerFault
from holdfast.fabric.session import Have, Session
from holdfast.logic.fleet.model import SlotRecord
from holdfast.relay.policy import RelayPolicy
from holdfast.wire.faults import Refusal
from holdfast.wire.pool import BlobClass
from holdfast.wire.tickets import parse_ticket

NAME = "relay-eu-001"
KIB = 1024
Case = Callable[[Pool, Office, SlotRecord], Awaitable[None]]


def with_office(tmp_path: Path, case: Case, **policy: float) -> None:
    async def main() -> None:
        rules = RelayPolicy(**policy)  # type: ignore[arg-type]
        async with Pool(tmp_path, background=False, policy=rules) as pool:
            office = Office(pool.network)
            office.offer("plain")
            record = await pool.seat(relays=2, replicas=1)
            pool.ticket_keys = office.keys()
            tell(pool)
            await case(pool, office, record)

    asyncio.run(main())


def tell(pool: Pool) -> None:
    for server in pool.servers.values():
        pool.tell(server)


async def opened(
    pool: Pool, record: SlotRecord, era: Era, ticket: bytes = b"", name: str = NAME
) -> Session:
    have = Have(ticket=ticket)
    return await Session.open(pool.client(name), era.access, record.slot, have=have)


def blob(era: Era, payload: bytes = b"x") -> bytes:
    return seal(era, 1, payload, today())


async def push(session: Session, era: Era, payload: bytes = b"x") -> None:
    await session.push(BlobClass.LOG, [blob(era, payload)])


def test_without_a_ticket_nothing_is_stored_and_with_one_it_is(tmp_path: Path) -> None:
    async def case(pool: Pool, office: Office, record: SlotRecord) -> None:
        era = pool.era()
        with pytest.raises(PeerFault, match="spends a ticket") as caught:
            await push(await opened(pool, record, era), era)
        assert caught.value.code == "ticket"
        ticket = office.draw("plain")
        session = await opened(pool, record, era, ticket)
        await push(session, era)
        assert session.quota_bytes == 1 << 20
        await push(await opened(pool, record, era), era, b"later, without showing it again")
        reader = await opened(pool, record, pool.era())
        reply, _ = await reader.pull(0, 10)
        assert reply.items == (), "reading needs none"

    with_office(tmp_path, case)


def test_control_without_keys_no_ticket_is_asked_for(tmp_path: Path) -> None:
    """The private circle without HQ's office, and `holdfast up` unless told otherwise."""

    async def main() -> None:
        async with Pool(tmp_path, background=False) as pool:
            record = await pool.seat(relays=1, replicas=0)
            era = pool.era()
            await push(await opened(pool, record, era), era)
            await push(await opened(pool, record, era, b"anything"), era, b"y")

    asyncio.run(main())


def test_one_ticket_is_one_tag_at_a_server_for_ever(tmp_path: Path) -> None:
    """Spent is durable: neither a crash nor a restart gives it back."""

    async def case(pool: Pool, office: Office, record: SlotRecord) -> None:
        era, thief, ticket = pool.era(), pool.era(), office.draw("plain")
        await push(await opened(pool, record, era, ticket), era)
        await opened(pool, record, era, ticket)
        with pytest.raises(PeerFault, match="spent for another tag") as caught:
            await opened(pool, record, thief, ticket)
        assert caught.value.code == "ticket"
        server = pool.servers[NAME]
        await server.stop()
        await server.start()
        with pytest.raises(PeerFault, match="spent for another tag"):
            await opened(pool, record, thief, ticket)
        await push(await opened(pool, record, era), era, b"still welcome")
        # What double spending across servers costs (THREATS): one more tag for each server.
        other = await opened(pool, record, thief, ticket, "relay-eu-002")
        await push(other, thief)

    with_office(tmp_path, case)


def test_a_hundred_races_for_one_ticket_have_one_winner(tmp_path: Path) -> None:
    async def case(pool: Pool, office: Office, record: SlotRecord) -> None:
        ticket, eras = office.draw("plain"), [pool.era() for _ in range(100)]
        found = await asyncio.gather(
            *(opened(pool, record, era, ticket) for era in eras), return_exceptions=True
        )
        winners = [item for item in found if isinstance(item, Session)]
        assert len(winners) == 1
        assert all(isinstance(item, PeerFault) for item in found if item not in winners)

    with_office(tmp_path, case)


def test_tickets_that_are_none(tmp_path: Path) -> None:
    async def case(pool: Pool, office: Office, record: SlotRecord) -> None:
        good = parse_ticket(office.draw("plain"))
        office.offer("old", life_s=-10)
        office.draw("foreign")
        pool.ticket_keys = office.keys()
        tell(pool)
        flipped = bytes([good.signature[0] ^ 1]) + good.signature[1:]
        replace = msgspec.structs.replace
        wrong = {
            "garbage": b"ticket",
            "another prefix": bytes(replace(good, prefix=os.urandom(32))),
            "another signature": bytes(replace(good, signature=flipped)),
            "no key of HQ's": office.draw("foreign"),
            "expired": office.draw("old"),
            "another network": office.draw("plain", b"n" * 16),
            "a key as short": bytes(replace(good, key=b"k")),
            "too long": bytes(2_000),
        }
        for what, ticket in wrong.items():
            with pytest.raises(PeerFault) as caught:
                await opened(pool, record, pool.era(), ticket)
            assert caught.value.code == "ticket", what

    with_office(tmp_path, case)


def test_a_class_is_a_quota_and_a_rate(tmp_path: Path) -> None:
    """A bucket of requests and units of 64 KiB, a quota of bytes: each class trips its own."""

    async def case(pool: Pool, office: Office, record: SlotRecord) -> None:
        office.offer("small", bytes_max=8 * KIB)
        office.offer("slow", per_s=0.001, burst=5.0)
        office.offer("wide", bytes_max=64 << 20, burst=40.0, per_s=0.001)
        pool.ticket_keys = office.keys()
        tell(pool)
        era = pool.era()
        small = await opened(pool, record, era, office.draw("small"))
        assert small.quota_bytes == 8 * KIB
        for n in range(8):
            await push(small, era, bytes([n]))
        with pytest.raises(PeerFault) as caught:
            await push(small, era, b"one too many")
        assert caught.value.code == "quota"

        era = pool.era()
        slow = await opened(pool, record, era, office.draw("slow"))
        for n in range(4):
            await push(slow, era, bytes([n]))
        with pytest.raises(Refusal) as refused:
            await push(slow, era, b"one too many")
        assert refused.value.code == "rate"
        assert refused.value.retry_after_s > 0

        era = pool.era()
        wide = await opened(pool, record, era, office.draw("wide"))
        big = os.urandom(900 * KIB)
        await push(wide, era, big)  # one request and 16 units of 64 KiB
        await push(wide, era, big[::-1])
        with pytest.raises(Refusal) as refused:
            await push(wide, era, big[1:])
        assert refused.value.code == "rate"
        era = pool.era()
        plain = await opened(pool, record, era, office.draw("plain"))
        await push(plain, era, b"nobody else is held up")

    with_office(tmp_path, case)


def test_tags_from_before_the_office_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path, background=False) as pool:
            record = await pool.seat(relays=1, replicas=0)
            old, new = pool.era(), pool.era()
            session = await opened(pool, record, old)
            await push(session, old)
            waiting = await opened(pool, record, new)
            office = Office(pool.network)
            office.offer("plain")
            pool.ticket_keys = office.keys()
            tell(pool)
            await push(session, old, b"more")
            with pytest.raises(PeerFault) as caught:
                await push(waiting, new)
            assert caught.value.code == "ticket", "an open session is no way around"

    asyncio.run(main())


def test_a_death_report_counts_for_a_ticket_alone(tmp_path: Path) -> None:
    """D17: once per tag that has a ticket, stored blobs, and a record that names both."""

    async def case(pool: Pool, office: Office, record: SlotRecord) -> None:
        relay = pool.servers[NAME].running
        counts = relay.desk.counts
        era = pool.era()
        session = await opened(pool, record, era)
        await session.report("relay-eu-002", 1.0, "eu")
        assert (counts["reports_counted"], counts["reports_ignored"]) == (0, 1)
        spent = await opened(pool, record, era, office.draw("plain"))
        await spent.report("relay-eu-002", 1.0, "eu")
        assert counts["reports_counted"] == 0, "no blob yet"
        await push(spent, era)
        await spent.report("relay-eu-002", 1.0, "eu")
        assert counts["reports_counted"] == 1
        await spent.report("relay-eu-009", 1.0, "eu")
        assert counts["reports_counted"] == 1, "not in the record"

    with_office(tmp_path, case)


def test_a_session_that_has_a_ticket_spends_it_when_it_is_asked_to(tmp_path: Path) -> None:
    """A client needs to know nothing of offices: the first push finds out."""

    async def case(pool: Pool, office: Office, record: SlotRecord) -> None:
        era, asked = pool.era(), []
        session = await opened(pool, record, era)

        def ticket() -> bytes:
            asked.append(1)
            return office.draw("plain")

        session.ticket = ticket
        await push(session, era)
        await push(session, era, b"y")
        assert len(asked) == 1
        await until(lambda: pool.servers[NAME].running.store.head(record.slot, era.tag) == 2)

    with_office(tmp_path, case)
