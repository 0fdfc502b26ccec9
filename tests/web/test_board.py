"""The board: newest version for everyone, at a bounded pace, and an end that lets readers go."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import msgspec
from tests.web import story

from holdfast.limits import PAGE_KEEPALIVE_S, PAGE_PERIOD_S
from holdfast.rim.clock import ManualClock, SystemClock
from holdfast.web.board import Board
from holdfast.web.model import FleetPage

FAST = SystemClock()


def test_a_reader_gets_what_is_new() -> None:
    async def main() -> None:
        stage = story.Stage(story.before())
        board = Board(stage, FAST)
        running = asyncio.create_task(board.run())
        first = await board.newer_than(0, 5)
        assert first is not None
        assert (first.number, first.page) == (1, story.before())
        stage.turn(story.during())
        second = await board.newer_than(first.number, 5)
        assert second is not None
        assert second.page == story.during()
        assert [p.relays for p in second.history] == [3, 2]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


def test_all_readers_wake_and_the_end_lets_them_go() -> None:
    async def main() -> None:
        board = Board(story.Stage(story.before()), FAST)
        running = asyncio.create_task(board.run())
        readers = [asyncio.create_task(board.newer_than(0, 5)) for _ in range(20)]
        assert {v.number for v in await asyncio.gather(*readers) if v} == {1}
        waiting = [asyncio.create_task(board.newer_than(1, 600)) for _ in range(20)]
        await asyncio.sleep(0)
        running.cancel()
        assert set(await asyncio.gather(*waiting)) == {None}
        assert board.closed
        assert await board.newer_than(0, 600) is None
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


def test_a_reader_waits_only_as_long_as_it_said() -> None:
    async def main() -> None:
        board = Board(story.Stage(story.before()), FAST)
        assert await board.newer_than(board.version().number, 0.01) is None

    asyncio.run(main())


def test_a_busy_fleet_makes_few_versions() -> None:
    """However many changes are called out: one version, then a pause."""

    class Enough(Exception):
        pass

    class Pausing(ManualClock):
        pauses = 0

        async def sleep_real(self, real_s: float) -> None:
            assert real_s == PAGE_PERIOD_S
            self.pauses += 1
            if self.pauses == 3:
                raise Enough
            await asyncio.sleep(0)

    class Busy:
        looks = 0

        def page(self) -> FleetPage:
            self.looks += 1
            return msgspec.structs.replace(story.before(), scale=float(self.looks))

        async def changes(self) -> AsyncIterator[int]:
            for number in itertools.count():
                await asyncio.sleep(0)
                yield number

    async def main() -> None:
        busy, clock = Busy(), Pausing()
        await asyncio.gather(Board(busy, clock).run(), return_exceptions=True)
        assert busy.looks <= 3

    asyncio.run(main())


def test_only_news_makes_a_version() -> None:
    """Time alone is news only when so much of it passed that the page would look dead."""
    stage = story.Stage(story.before())
    board = Board(stage, FAST)
    first = board._take()
    stage.turn(msgspec.structs.replace(story.before(), at=story.START + 20 + 1))
    assert board._take() is first
    stage.turn(msgspec.structs.replace(story.before(), at=story.START + 20 + PAGE_KEEPALIVE_S))
    assert board._take().number == 2
    stage.turn(story.watching())
    assert board._take().number == 3


def test_a_source_that_falls_ends_the_board_loudly() -> None:
    class Fallen:
        def page(self) -> FleetPage:
            return story.before()

        async def changes(self) -> AsyncIterator[int]:
            raise AssertionError("a bug below")
            yield 0

    async def main() -> None:
        board = Board(Fallen(), FAST)
        (outcome,) = await asyncio.gather(board.run(), return_exceptions=True)
        assert isinstance(outcome, BaseExceptionGroup)
        assert board.closed

    asyncio.run(main())
