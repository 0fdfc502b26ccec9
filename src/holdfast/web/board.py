"""The newest version of the fleet page, and whoever waits for the next.

`run` follows a source of views. It wakes on every change the source calls out, and looks by
itself now and then in case one was missed. It makes at most four versions a second, and a large
fleet's more rarely, so that looking never takes more than a tenth of HQ's loop. Each reader waits
for a version newer than the one it has, so a slow reader skips versions and never queues them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from holdfast.limits import PAGE_KEEPALIVE_S, PAGE_LOOK_S, PAGE_LOOP_SHARE, PAGE_PERIOD_S
from holdfast.rim.clock import Clock
from holdfast.web.copies import lowest
from holdfast.web.history import History, Point
from holdfast.web.model import FleetPage


class PageSource(Protocol):
    """Where pages come from."""

    def page(self) -> FleetPage:
        """The fleet now. Called on the event loop: it must not wait."""
        ...

    def changes(self) -> AsyncIterator[int]:
        """Yields a growing number after each change; may end, which changes nothing here."""
        ...


class Version(msgspec.Struct, frozen=True):
    """One version of the page. `number` grows by one with every version that differs."""

    number: int
    page: FleetPage
    history: tuple[Point, ...]


class Board:
    """Holds the newest `Version`. Run `run` as a task for as long as pages are served."""

    def __init__(self, source: PageSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._history = History()
        self._called = asyncio.Event()
        self._next = asyncio.Event()
        self._version: Version | None = None
        self.closed = False
        self.streams = 0

    def version(self) -> Version:
        """The newest version; made on the spot before `run` made one."""
        return self._version or self._take()

    async def newer_than(self, number: int, real_s: float) -> Version | None:
        """The first version after `number`; None after `real_s` seconds or when closed."""
        try:
            async with self._clock.real_timeout(real_s):
                while not self.closed and self.version().number <= number:
                    await self._next.wait()
        except TimeoutError:
            return None
        return None if self.closed else self.version()

    async def run(self) -> None:
        """Follow the source until cancelled; then let every waiting reader go."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen())
                tasks.create_task(self._follow())
        finally:
            self.closed = True
            self._wake()

    async def _listen(self) -> None:
        async for _ in self._source.changes():
            self._called.set()

    async def _follow(self) -> None:
        while True:
            self._called.clear()
            start = self._clock.elapsed()
            self._take()
            cost_s = (self._clock.elapsed() - start) / self._clock.scale
            await self._clock.sleep_real(max(PAGE_PERIOD_S, cost_s / PAGE_LOOP_SHARE))
            try:
                async with self._clock.real_timeout(PAGE_LOOK_S):
                    await self._called.wait()
            except TimeoutError:
                continue

    def _take(self) -> Version:
        page = self._source.page()
        self._history.note(page.at, lowest(page))
        old = self._version
        if old is not None and not _differs(old.page, page):
            return old
        number = old.number + 1 if old else 1
        self._version = Version(number, page, self._history.points)
        self._wake()
        return self._version

    def _wake(self) -> None:
        """Release those who wait for this version; the next ones wait on a new event."""
        waiting, self._next = self._next, asyncio.Event()
        waiting.set()


def _differs(old: FleetPage, new: FleetPage) -> bool:
    """Whether there is news: anything but the time, or so much time that the page looks dead."""
    if new.at - old.at >= PAGE_KEEPALIVE_S:
        return True
    return msgspec.structs.replace(new, at=old.at) != old
