"""One acting HQ at a time, and a term that only grows (D25)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from holdfast.errors import OperationFault
from holdfast.hq.leader import LEADER, TERM, FencedStore, Leadership, guard
from holdfast.rim.clock import SystemClock
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.control.store import Compare, Delete, Put, absent


class Headquarters:
    """A campaign that records what it was told."""

    def __init__(self, store: SqliteStore, name: str) -> None:
        self.terms: list[int] = []
        self.led = asyncio.Event()
        self.lost = asyncio.Event()
        self.leadership = Leadership(store, SystemClock(), name, self.lead)
        self.task = asyncio.create_task(self.leadership.run())

    async def lead(self, term: int) -> None:
        self.terms.append(term)
        self.led.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.lost.set()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def test_the_lead_passes_on_and_the_term_grows(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "control.db"
        stores = [await SqliteStore.open(path, SystemClock()) for _ in range(2)]
        first = Headquarters(stores[0], "a")
        async with asyncio.timeout(20):
            await first.led.wait()
            second = Headquarters(stores[1], "b")
            assert first.leadership.acting
            await stores[1].txn([guard(1)], [Put("/x", b"")])
            assert not second.led.is_set()
            await first.stop()
            await second.led.wait()
        assert (first.terms, second.terms) == ([1], [2])
        assert not (await stores[0].txn([guard(1)], [Put("/x", b"late")])).succeeded
        assert (await stores[0].txn([guard(2)], [Put("/x", b"")])).succeeded
        kv = await stores[0].get(LEADER)
        assert kv is not None
        assert kv.value == b"b"
        await second.stop()
        assert await stores[0].get(LEADER) is None
        for store in stores:
            await store.close()

    asyncio.run(main())


def test_a_deposed_leader_stops(tmp_path: Path) -> None:
    """Its lease ended while it hung, and another one took the lead: the work is cancelled."""

    async def main() -> None:
        store = await SqliteStore.open(None, SystemClock())
        headquarters = Headquarters(store, "a")
        async with asyncio.timeout(20):
            await headquarters.led.wait()
            await store.txn([], [Put(LEADER, b"other"), Put(TERM, b"9")])
            await headquarters.lost.wait()
            headquarters.led.clear()
            assert not headquarters.leadership.acting
            await store.txn([], [Delete(LEADER)])
            await headquarters.led.wait()
        assert headquarters.terms == [1, 10]
        await headquarters.stop()
        await store.close()

    asyncio.run(main())


def test_a_bug_in_the_work_is_not_hidden() -> None:
    async def main() -> None:
        store = await SqliteStore.open(None, SystemClock())

        async def lead(term: int) -> None:
            raise AssertionError("bug")

        leadership = Leadership(store, SystemClock(), "a", lead)
        outcome = await asyncio.gather(leadership.run(), return_exceptions=True)
        assert isinstance(outcome[0], AssertionError)
        assert await store.get(LEADER) is None
        await store.close()

    asyncio.run(main())


def test_a_fenced_store_compares_the_term_for_those_who_forget() -> None:
    """D25: a write that compares no term is refused all the same once the term is over."""

    async def main() -> None:
        store = await SqliteStore.open(None, SystemClock())
        await store.txn([], [Put(TERM, b"1")])
        fenced = FencedStore(store, 1)
        assert (await fenced.txn([], [Put("/x", b"1")])).succeeded
        assert not (await fenced.txn([absent("/x")], [Put("/x", b"2")])).succeeded
        await store.txn([], [Put(TERM, b"2")])
        wanted: list[list[Compare]] = [[], [absent("/y")], [guard(2)]]
        for compares in wanted:
            with pytest.raises(OperationFault) as caught:
                await fenced.txn(compares, [Put("/y", b"")])
            assert not caught.value.retryable
        assert not (await fenced.txn([guard(1)], [Put("/y", b"")])).succeeded, "told by the reply"
        assert await store.get("/y") is None
        await store.close()

    asyncio.run(main())


def test_a_killed_leader_takes_up_the_lead_at_once_when_it_is_back(tmp_path: Path) -> None:
    """Its own lease is still running; another's is waited for."""

    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "control.db", SystemClock())
        lease = await store.grant(3_600.0)
        await store.txn([absent(LEADER)], [Put(LEADER, b"a", lease), Put(TERM, b"7")])
        other = Headquarters(store, "b")
        again = Headquarters(store, "a")
        async with asyncio.timeout(5):
            await asyncio.wait(
                [asyncio.create_task(hq.led.wait()) for hq in (again, other)],
                return_when=asyncio.FIRST_COMPLETED,
            )
        assert again.terms + other.terms == [8]
        await again.stop()
        await other.stop()
        await store.close()

    asyncio.run(main())
