"""Takes snapshots: after every change of the fleet, and once a day (seed 004 §12.2, tier 2).

Runs beside the brain, so the headquarters that leads takes them. A change waits a moment for what
belongs to it; then everything is read, sealed to the recipients and put on every shelf. A shelf
that fails is tried again with the next snapshot, and shown; it holds up neither the others nor
the fleet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import HoldfastError
from holdfast.hq.config import HqConfig
from holdfast.hq.copies import Copies
from holdfast.hq.shelf import Shelf
from holdfast.hq.snapshot import seal, take
from holdfast.limits.continuity import (
    SNAPSHOT_DEVICES_REAL_S,
    SNAPSHOT_NIGHTLY_S,
    SNAPSHOT_PERIOD_REAL_S_MIN,
    SNAPSHOT_SETTLE_REAL_S,
)
from holdfast.logic.access.rows import CELLS, DEVICES, MEMBERS, POLICIES, SUBSCRIPTIONS
from holdfast.logic.trust.credentials import CREDENTIALS
from holdfast.rim.clock import Clock
from holdfast.rim.control.follow import follow
from holdfast.rim.control.store import Batch, ControlStore

WATCHED: Final = (
    "/fleet/",
    "/trust/",
    "/log-head",
    "/dns/",
    "/operators/",
    CREDENTIALS,
    CELLS,
    MEMBERS,
    SUBSCRIPTIONS,
    POLICIES,
)
"""What a snapshot follows at once; counters of bytes and loads wait for the next one. With a
provider's former key it would restore a headquarters that can order nothing."""
_log = logging.getLogger("holdfast.hq")


class Kept(msgspec.Struct, frozen=True):
    """How one shelf stands. Times are Unix seconds; 0 for never."""

    shelf: str
    at: float = 0.0
    revision: int = 0
    file_bytes: int = 0
    error: str = ""


class Keeper:
    """`run` for as long as this process leads."""

    def __init__(
        self,
        store: ControlStore,
        directory: Path,
        config: HqConfig,
        network: bytes,
        clock: Clock,
        shelves: Sequence[Shelf],
        copies: Copies | None = None,
    ) -> None:
        """`copies`: what nodes are given."""
        self._store = store
        self._directory = directory
        self._config = config
        self._network = network
        self._clock = clock
        self._shelves = shelves
        self._copies = copies
        self._changed = asyncio.Event()
        self._stale = False
        self.kept: dict[str, Kept] = {}

    async def run(self) -> None:
        """Until cancelled."""
        revision = await self._store.revision()
        following = [
            asyncio.create_task(
                follow(self._store, prefix, revision, self._see, self._reload, self._clock)
            )
            for prefix in WATCHED
        ]
        following.append(
            asyncio.create_task(
                follow(self._store, DEVICES, revision, self._fetched, self._reload, self._clock)
            )
        )
        try:
            while True:
                await self.round()
                await self._clock.sleep_real(SNAPSHOT_PERIOD_REAL_S_MIN)
                await self._wait()
        finally:
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)

    async def _wait(self) -> None:
        """Until something changes and has settled, or a day is over."""
        waited_s = 0.0
        while not self._changed.is_set():
            try:
                async with self._clock.real_timeout(SNAPSHOT_DEVICES_REAL_S):
                    await self._changed.wait()
            except TimeoutError:
                waited_s += SNAPSHOT_DEVICES_REAL_S
                if self._stale or waited_s >= SNAPSHOT_NIGHTLY_S:
                    return
        await self._clock.sleep_real(SNAPSHOT_SETTLE_REAL_S)

    async def round(self) -> None:
        """One snapshot on every shelf. Never raises for a fault of the world."""
        self._changed.clear()
        self._stale = False
        recipients = self._config.continuity.recipients if self._config.continuity else ()
        try:
            now = self._clock.wall()
            snapshot = await take(self._store, self._directory, self._config, self._network, now)
            sealed = await asyncio.to_thread(seal, snapshot, recipients)
        except HoldfastError as error:
            _log.error("no snapshot: %s", error)
            self._changed.set()
            return
        if self._copies is not None:
            self._copies.put(sealed, snapshot)
        for shelf in self._shelves:
            try:
                await shelf.put(sealed, snapshot.made_at, snapshot.revision)
                kept = Kept(shelf.name, now, snapshot.revision, len(sealed))
            except HoldfastError as error:
                _log.error("snapshot on %s: %s", shelf.name, error)
                before = self.kept.get(shelf.name, Kept(shelf.name))
                kept = msgspec.structs.replace(before, error=str(error))
                self._changed.set()
            self.kept[shelf.name] = kept

    async def _see(self, _batch: Batch) -> None:
        self._changed.set()

    async def _fetched(self, _batch: Batch) -> None:
        """A device moved, or fetched its subscription, which happens all the time."""
        self._stale = True

    async def _reload(self) -> int:
        self._changed.set()
        return await self._store.revision()
