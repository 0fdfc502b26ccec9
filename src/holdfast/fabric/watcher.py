"""Hearing of news: a long poll at one relay, a slow look at a second (D23).

One relay could withhold, so a second is read every `SECOND_LOOK_S` whatever the first says. Where
a watch stands is kept in memory only and is no cursor: it wakes a reader, and the reader's cursor
decides what is new. Bulk blobs move a relay's head too, without being news.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from holdfast.crypto.era import Era
from holdfast.errors import HoldfastError, OperationFault
from holdfast.fabric.roster import Roster
from holdfast.fabric.session import Session, watch
from holdfast.limits import BACKOFF_S, WATCH_TAGS_MAX, WATCH_WAIT_S_MAX
from holdfast.logic.fleet.model import Role
from holdfast.wire.pool import WatchReply

_log = logging.getLogger(__name__)
SECOND_LOOK_S: Final = 30.0
"""Elapsed seconds between looks at a second relay."""
News = Callable[[Era, str], Awaitable[None]]
"""(era, server): the server has something new for that era, or it is time to look there."""


class Watcher:
    """Watches the eras of one slot. `news` is awaited for one era at a time."""

    def __init__(self, roster: Roster, news: News) -> None:
        self._roster = roster
        self._news = news
        self._clock = roster.network.clock
        self._eras: dict[bytes, Era] = {}
        self._stands: dict[tuple[bytes, bytes, bytes], int] = {}
        self._changed = asyncio.Event()
        self.watched = ""
        """The relay that is watched now."""

    def watch(self, eras: Sequence[Era]) -> None:
        """Watch exactly these eras from now on."""
        fresh = {era.tag: era for era in eras}
        if fresh.keys() != self._eras.keys():
            self._changed.set()
        self._eras = fresh

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_first())
            group.create_task(self._look_at_second())

    # --- the first -----------------------------------------------------------------------------
    async def _watch_first(self) -> None:
        while True:
            self._changed.clear()
            name = self._choose()
            if not self._eras or name is None:
                await self._pause()
                continue
            self.watched = name
            try:
                await self._watch(name)
            except HoldfastError as error:
                _log.info("watch at %s: %s", name, error)

    def _choose(self) -> str | None:
        """The relay watched so far while it answers, else the best there is."""
        names = self._roster.ready(Role.RELAY)
        failing = self._roster.health.failing()
        if self.watched in names and self.watched not in failing:
            return self.watched
        return next((name for name in names if name not in failing), names[0] if names else None)

    async def _pause(self) -> None:
        """Until the eras change, or a moment has passed."""
        try:
            async with self._clock.timeout(BACKOFF_S[0]):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _watch(self, name: str) -> None:
        """One long poll at `name` over all eras, and what follows from it."""
        eras = list(self._eras.values())
        starts = range(0, len(eras), WATCH_TAGS_MAX)
        polls = [
            asyncio.create_task(self._poll(name, eras[start : start + WATCH_TAGS_MAX]))
            for start in starts
        ]
        changed = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait({*polls, changed}, return_when=asyncio.FIRST_COMPLETED)
            for poll in polls:
                if poll.done():
                    poll.result()
        finally:
            for task in (*polls, changed):
                task.cancel()
            await asyncio.gather(*polls, changed, return_exceptions=True)

    async def _poll(self, name: str, eras: list[Era]) -> None:
        sessions = [await self._roster.call(name, era.access, _itself) for era in eras]
        if any(session.client is not sessions[0].client for session in sessions):
            raise OperationFault(f"the connection to {name} changed")
        after = [self._stand(session) for session in sessions]
        key = eras[0].access
        reply = await self._roster.call(
            name, key, lambda _: watch(sessions, after, WATCH_WAIT_S_MAX)
        )
        await self._heard(name, eras, sessions, after, reply)

    def _stand(self, session: Session) -> int:
        return self._stands.get((session.node, session.incarnation, session.tag), 0)

    async def _heard(
        self,
        name: str,
        eras: list[Era],
        sessions: list[Session],
        after: list[int],
        reply: WatchReply,
    ) -> None:
        failed = False
        for era, session, stood, head in zip(eras, sessions, after, reply.heads, strict=True):
            if head > stood and await self._tell(era, name):
                self._stands[session.node, session.incarnation, session.tag] = head
            elif head > stood:
                failed = True
        version = self._roster.version
        if any(v is not None and version is not None and v > version for v in reply.records):
            await self._roster.refresh(eras[0].access)
        if failed:
            await self._pause()

    # --- the second ----------------------------------------------------------------------------
    async def _look_at_second(self) -> None:
        while True:
            await self._clock.sleep(SECOND_LOOK_S)
            others = [n for n in self._roster.ready(Role.RELAY) if n != self.watched]
            names = others or list(self._roster.ready(Role.REPLICA))
            for era in list(self._eras.values()) if names else ():
                await self._tell(era, names[0])

    async def _tell(self, era: Era, name: str) -> bool:
        """Whether the reader could read; it is told again when not."""
        try:
            await self._news(era, name)
        except HoldfastError as error:
            _log.info("reading %s: %s", name, error)
            return False
        return True


async def _itself(session: Session) -> Session:
    return session
