"""Hearing of news (D23): a long poll at one relay, a second relay looked at, a record noticed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.fabric.world import FAST, Client
from tests.relay.harness import Pool, until

from holdfast.crypto.era import Era
from holdfast.errors import OperationFault
from holdfast.fabric.watcher import Watcher
from holdfast.logic.fleet.model import Version
from holdfast.rim.clock import SystemClock
from holdfast.wire.pool import BlobClass


@asynccontextmanager
async def watching(client: Client, *eras: Era) -> AsyncIterator[tuple[Watcher, list[str]]]:
    """A watcher that reads what it hears of; the servers it named."""
    heard: list[str] = []

    async def news(era: Era, name: str) -> None:
        heard.append(name)
        if era.tag == client.era.tag:
            await client.puller.read_one(name)

    watcher = client.slot.watcher(news)
    watcher.watch(eras or [client.era])
    task = asyncio.create_task(watcher.run())
    try:
        yield watcher, heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def say(client: Client, text: str) -> None:
    await client.slot.put(client.era, BlobClass.LOG, client.log.write(text)[1])


def test_news_arrive_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record, era = await pool.seat(), pool.era()
            async with (
                Client(pool, record, tmp_path / "a", era) as a,
                Client(pool, record, tmp_path / "b", era) as b,
                watching(b),
            ):
                await say(a, "warm")
                await until(lambda: len(b.log.texts) == 1)
                began = time.monotonic()
                await say(a, "news")
                await until(lambda: len(b.log.texts) == 2)
                assert time.monotonic() - began < 3.0

    asyncio.run(main())


def test_the_watch_moves_on_when_its_relay_dies(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record, era = await pool.seat(), pool.era()
            async with (
                Client(pool, record, tmp_path / "a", era) as a,
                Client(pool, record, tmp_path / "b", era) as b,
                watching(b) as (watcher, _),
            ):
                await say(a, "one")
                await until(lambda: len(b.log.texts) == 1)
                await pool.servers[watcher.watched].stop()
                await say(a, "two")
                await until(lambda: len(b.log.texts) == 2)
                assert len(b.slot.roster.health.failing()) == 1

    asyncio.run(main())


def test_a_relay_that_withholds_is_outvoted_by_the_second_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D23: a device watches one relay per slot and polls a second."""

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("holdfast.fabric.watcher.watch", never)

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record, era = await pool.seat(), pool.era()
            async with (
                Client(pool, record, tmp_path / "a", era) as a,
                Client(pool, record, tmp_path / "b", era) as b,
                watching(b) as (watcher, heard),
            ):
                await say(a, "withheld")
                await until(lambda: "withheld" in b.log.texts.values())
                assert watcher.watched not in heard

    asyncio.run(main())


def test_many_tags_on_one_poll_and_a_changed_list(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record, era = await pool.seat(), pool.era()
            others = [pool.era() for _ in range(5)]
            async with (
                Client(pool, record, tmp_path / "a", era) as a,
                Client(pool, record, tmp_path / "b", era) as b,
                watching(b, *others) as (watcher, heard),
            ):
                await say(a, "not watched")
                await a.slot.put(others[3], BlobClass.LOG, b"op||watched")
                await until(lambda: len(heard) == 1)
                assert not b.log.texts
                watcher.watch([*others, era])
                await until(lambda: len(b.log.texts) == 1)

    asyncio.run(main())


def test_a_new_record_is_noticed_by_the_watch(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record, era = await pool.seat(), pool.era()
            async with Client(pool, record, tmp_path / "b", era) as b, watching(b) as (watcher, _):
                await until(lambda: bool(watcher.watched))
                relay = pool.servers[watcher.watched].running
                await until(lambda: len(relay.desk.watchers) > 0)
                pool.assign(record.slot, [seat.name for seat in record.seats()])
                await until(lambda: b.slot.roster.version == Version(0, 2))

    asyncio.run(main())


def test_trouble_while_reading_is_not_the_end_of_watching(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record, era = await pool.seat(), pool.era()
            async with Client(pool, record, tmp_path / "a", era) as a:
                calls = 0

                async def news(_era: Era, _name: str) -> None:
                    nonlocal calls
                    calls += 1
                    raise OperationFault("a full disk, say")

                watcher = a.slot.watcher(news)
                watcher.watch([era])
                task = asyncio.create_task(watcher.run())
                for number in (1, 2):
                    await say(a, f"{number}")
                    await until(lambda number=number: calls >= number)
                assert not task.done()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
