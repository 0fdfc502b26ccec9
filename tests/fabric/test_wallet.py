"""A client's first push for a tag finds out that a ticket is wanted, and spends its own (D17)."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from tests.fabric.world import FAST, Client
from tests.relay.harness import Pool
from tests.relay.test_tickets import tell
from tests.relay.tickets import Office, signing_key

from holdfast.errors import PeerFault
from holdfast.fabric.store import Store
from holdfast.logic.pool.fanout import Stage
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.wire.pool import BlobClass


def fill(store: Store, office: Office, count: int) -> None:
    """Draw `count` tickets into a wallet, as `device tickets` does."""
    item, key = office.classes["plain"], signing_key("plain")
    asked = store.wallet.blind(office.network, item, count, SystemEntropy())
    answers = tuple(key.sign_blinded(one.blinded, os.urandom(272)) for one in asked)
    assert store.wallet.take(office.network, item, asked, answers) == count


def test_two_groups_of_one_device_spend_two_tickets(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST), background=False) as pool:
            record = await pool.seat()
            office = Office(pool.network)
            office.offer("plain")
            pool.ticket_keys = office.keys()
            tell(pool)
            async with Client(pool, record, tmp_path / "a", pool.era()) as client:
                await client.slot.put(client.era, BlobClass.LOG, b"one")
                await asyncio.sleep(0.3)
                assert client.slot.uploader.bytes_below(Stage.STORED) > 0, "no ticket, no room"
                fill(client.store, office, 2)
                await client.slot.uploader.reach(Stage.REPLICATED)
                other = pool.era()
                await client.slot.put(other, BlobClass.LOG, b"two")
                await client.slot.uploader.reach(Stage.REPLICATED)
                assert client.store.wallet.count(pool.network) == 0
                books = [server.running.desk.tickets for server in pool.servers.values()]
                async with asyncio.timeout(30):  # by a push: servers that fill each other are off
                    for book in books:
                        while True:
                            if book.terms(client.era.tag) and book.terms(other.tag):
                                break
                            await asyncio.sleep(0.05)

    asyncio.run(main())


def test_what_was_blinded_is_asked_for_again_after_a_crash(tmp_path: Path) -> None:
    office = Office(b"n" * 16)
    item, key = office.offer("plain"), signing_key("plain")
    store = Store(tmp_path / "a", SystemClock())
    asked = store.wallet.blind(office.network, item, 3, SystemEntropy())
    store.close()
    store = Store(tmp_path / "a", SystemClock())
    again = store.wallet.blind(office.network, item, 3, SystemEntropy())
    assert again == asked
    answers = tuple(key.sign_blinded(one.blinded, os.urandom(272)) for one in again)
    with pytest.raises(PeerFault, match="no signature"):
        store.wallet.take(office.network, item, again, answers[::-1])
    assert store.wallet.count(office.network) == 0
    store.wallet.take(office.network, item, again, answers)
    assert store.wallet.count(office.network) == 3
    store.close()
