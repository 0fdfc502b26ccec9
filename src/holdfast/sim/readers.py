"""Clients that read while others write: what was acknowledged must be there, whoever restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from holdfast.crypto.pure import hash_bytes
from holdfast.errors import HoldfastError
from holdfast.fabric.network import Network
from holdfast.fabric.slot import Slot
from holdfast.fabric.store import Store
from holdfast.sim.crowd import CrowdClient

READ_PERIOD_S: Final = 0.2
"""Real seconds between two reads."""


class Reader:
    """Another device of a crowd client's group: it keeps one slot open and fetches what the client
    was promised. `failed` are reads that did not give the blob back at the first try."""

    def __init__(self, network: Network, of: CrowdClient, directory: Path) -> None:
        self._network = network
        self._of = of
        self._store = Store(directory, network.clock)
        self._slot = Slot(network, of.locator, self._store)
        self.reads = 0
        self.failed: list[str] = []

    async def run(self) -> None:
        """Open the slot and read until cancelled."""
        era = self._of.era
        await self._of.acknowledged(1)
        async with self._slot.opened(era):
            watcher = self._slot.watcher(_nothing)
            watcher.watch([era])
            watching = asyncio.create_task(watcher.run())
            try:
                while True:
                    await self._read()
                    await self._network.clock.sleep_real(READ_PERIOD_S)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                self._store.close()

    async def _read(self) -> None:
        """Fetch one blob that was acknowledged, the newest and older ones by turns."""
        held = sorted(each.blob for each in self._of.acked)
        blob = held[self.reads * 7 % len(held)]
        got: list[bytes] = []

        async def take(_id: bytes, body: bytes) -> None:
            got.append(body)

        self.reads += 1
        try:
            await self._slot.fetch(self._of.era, [blob], take)
        except HoldfastError as error:
            self.failed.append(str(error))
            return
        if [hash_bytes(body) for body in got] != [blob]:
            self.failed.append(f"nobody gave {blob.hex()[:12]}")


async def _nothing(_era: object, _server: str) -> None:
    """What is new is not read; a watch also brings newer records."""
