"""Live clients beside the ones a drill looks at: each a group of its own, writing and remembering.

Each uses the pool as any device does (`fabric.Slot`), with its own directory, keys, sessions and
outbox, pushes a small blob every few seconds and remembers which ones were acknowledged as stored.
What was acknowledged must be found on disks afterwards, whatever died in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from holdfast.crypto.era import Era
from holdfast.errors import OperationFault
from holdfast.fabric.network import Network
from holdfast.fabric.slot import Slot
from holdfast.fabric.store import Store
from holdfast.logic.fleet.model import Seat
from holdfast.logic.pool.fanout import Stage
from holdfast.sim.witness import Held
from holdfast.wire.locator import Locator
from holdfast.wire.pool import BlobClass

PAYLOAD_BYTES: Final = 600
WRITE_PERIOD_S: Final = 1.0
"""Real seconds between two writes of one client."""


class CrowdClient:
    """One client: `run` until cancelled; `acked` is what relays promised to keep."""

    def __init__(
        self,
        network: Network,
        locator: Locator,
        directory: Path,
        *,
        period_s: float = WRITE_PERIOD_S,
    ) -> None:
        """`period_s` is what it waits after each acknowledgement, real seconds."""
        self.locator = locator
        self._network = network
        self._period_s = period_s
        self._store = Store(directory, network.clock)
        self._slot = Slot(network, locator, self._store)
        self.era = Era(network.entropy.bytes(32), network.id)
        self.acked: set[Held] = set()
        self.waits: list[tuple[float, float]] = []
        """(when a write began, how long until it was acknowledged), elapsed seconds."""
        self.waiting_since: float | None = None
        """When the write that is under way began, elapsed seconds."""
        self.opened = asyncio.Event()
        self._acked_one = asyncio.Event()

    async def run(self) -> None:
        """Open the slot, watch it as any device does, and write until cancelled."""
        watching: asyncio.Task[None] | None = None
        try:
            await self._open()
            self.opened.set()
            watcher = self._slot.watcher(_nothing_to_read)
            watcher.watch([self.era])
            watching = asyncio.create_task(watcher.run())
            while True:
                await self._write()
                await self._network.clock.sleep_real(self._period_s)
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            await self._slot.close()
            self._store.close()

    async def acknowledged(self, count: int) -> None:
        """Return once `count` blobs in all have been acknowledged."""
        while len(self.acked) < count:
            self._acked_one.clear()
            await self._acked_one.wait()

    def seats(self) -> tuple[Seat, ...]:
        """The six of the record this client follows, relays first; once `opened`."""
        record = self._slot.roster.record
        assert record is not None, "opened with one"
        return record.seats()

    def seat(self, name: str) -> Seat:
        """Who sits at `name` by that record."""
        (seat,) = [seat for seat in self.seats() if seat.name == name]
        return seat

    async def _open(self) -> None:
        while True:
            try:
                await self._slot.open([self.era])
                return
            except OperationFault:
                await self._network.clock.sleep_real(WRITE_PERIOD_S)

    async def _write(self) -> None:
        payload = self._network.entropy.bytes(PAYLOAD_BYTES)
        began = self.waiting_since = self._network.clock.elapsed()
        blob = await self._slot.put(self.era, BlobClass.LOG, payload)
        while (self._slot.uploader.stage(blob) or Stage.QUEUED) < Stage.STORED:
            await self._slot.uploader.moved()
        self.acked.add(Held(self.era.tag, blob))
        self.waits.append((began, self._network.clock.elapsed() - began))
        self.waiting_since = None
        self._acked_one.set()


class Crowd:
    """Several clients in this process's event loop."""

    def __init__(self, clients: Sequence[CrowdClient]) -> None:
        self._clients = tuple(clients)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def acked(self) -> set[Held]:
        """Everything relays promised any of them to keep."""
        return set().union(*(client.acked for client in self._clients))

    @property
    def live(self) -> int:
        """Clients that hold an open slot and are still writing."""
        pairs = zip(self._clients, self._tasks, strict=True)
        return sum(client.opened.is_set() and not task.done() for client, task in pairs)

    async def start(self) -> None:
        """Start all of them and wait until each has an open slot."""
        self._tasks = [asyncio.create_task(client.run()) for client in self._clients]
        for client, task in zip(self._clients, self._tasks, strict=True):
            opened = asyncio.create_task(client.opened.wait())
            await asyncio.wait([opened, task], return_when=asyncio.FIRST_COMPLETED)
            opened.cancel()
            if task.done():
                task.result()

    async def stop(self) -> None:
        """Stop all; raises what any of them died of."""
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome


async def _nothing_to_read(_era: Era, _server: str) -> None:
    """News of what this client wrote itself; a watch also tells of new records."""
