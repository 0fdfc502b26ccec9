"""The fleet's own machine loses a provider and heals, seen through HQ's view: real words.

A page source for tests. Nothing is scripted but the loss: detection, decisions, sentences and
numbers are what HQ would show.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tests.logic.fleet_world import World, launch
from tests.web import story

from holdfast.hq.brain_view import FleetView, Timeline, build_view
from holdfast.web.source import page_of
from holdfast.web.words import headline


class RealFleet:
    """A `FleetSource` over a fleet machine in its small world."""

    def __init__(self) -> None:
        self.world = World()
        self.world.now = story.START
        launch(self.world)
        self._timeline = Timeline()
        self._told = 0
        self._version = 0
        self._view: FleetView | None = None
        self._moved = asyncio.Event()

    def view(self) -> FleetView:
        if self._view is None:
            for at, line in self.world.audit[self._told :]:
                self._timeline.add([line], at)
            self._told = len(self.world.audit)
            self._view = build_view(
                self.world.fleet,
                self._timeline,
                version=self._version,
                domain="real.holdfast.test",
                scale=1.0,
                accused={},
            )
        return self._view

    def run(self, seconds: float) -> None:
        """Let the world go on, then call it out."""
        self.world.run(seconds)
        self._view = None
        self._version += 1
        self._moved.set()

    def until(self, title: str, seconds_max: float = 4_000) -> None:
        """Run until the page's headline is `title`."""
        start = self.world.now
        while headline(page_of(self.view())).title != title:
            assert self.world.now - start < seconds_max, headline(page_of(self.view()))
            self.run(10)

    def wall(self) -> float:
        """What a clock on the wall of this world says."""
        return self.world.now

    async def changes(self) -> AsyncIterator[int]:
        while True:
            await self._moved.wait()
            self._moved.clear()
            yield self._version
