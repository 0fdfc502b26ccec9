"""The hostile side of the slowloris drill: a process of its own, so that its work is not counted as
the relay's slowness."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from holdfast.rim.bare_client import BareDialler
from holdfast.rim.clock import Clock
from holdfast.rim.files import write_file
from holdfast.rim.process import parent_gone

KINDS: Final = ("silent", "mute", "header", "body")
HOLDING: Final = KINDS[1:]
"""Those that speak TLS first."""
TRICKLE_S: Final = 5.0
"""Real seconds between two bytes: soon enough that no idle limit between bytes helps."""
DIAL_S: Final = 60.0
DIALLING_MAX: Final = 100
TALLY_S: Final = 0.5
_HEAD: Final = b"POST /v1/push HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\n"


class Tally(msgspec.Struct):
    """Connections open now, and how often one had to be made again."""

    open: int = 0
    remade: int = 0


class Hostile:
    """`count` connections to one server, the `kinds` in equal numbers."""

    def __init__(
        self,
        address: str,
        roots: Sequence[bytes],
        clock: Clock,
        count: int,
        kinds: Sequence[str] = KINDS,
    ) -> None:
        self._kinds = kinds
        self._dialler = BareDialler(address, roots, clock)
        self._dialling = asyncio.Semaphore(DIALLING_MAX)
        self._clock = clock
        self._count = count
        self._tally = Tally()

    async def run(self, tally: Path) -> None:
        """Until the parent is gone; what stands is written to `tally` again and again."""
        tasks = [
            asyncio.create_task(self._keep(self._kinds[number % len(self._kinds)]))
            for number in range(self._count)
        ]
        tasks.append(asyncio.create_task(self._tell(tally)))
        try:
            await parent_gone()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self, tally: Path) -> None:
        while True:
            await asyncio.to_thread(write_file, tally, msgspec.json.encode(self._tally))
            await self._clock.sleep_real(TALLY_S)

    async def _keep(self, kind: str) -> None:
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                await self._hang_on(kind)
            self._tally.remade += 1
            await self._clock.sleep_real(0.5)

    async def _hang_on(self, kind: str) -> None:
        """Connect and hold on until the server ends it."""
        async with self._dialling:
            reader, writer = await self._dialler.dial(tls=kind != "silent", timeout_s=DIAL_S)
        self._tally.open += 1
        trickle = asyncio.create_task(self._trickle(kind, writer))
        try:
            while await reader.read(4096):
                pass
        finally:
            self._tally.open -= 1
            trickle.cancel()
            writer.transport.abort()

    async def _trickle(self, kind: str, writer: asyncio.StreamWriter) -> None:
        if kind in ("silent", "mute"):
            return
        writer.write(_HEAD + (b"content-length: 2048\r\n\r\n" if kind == "body" else b"x-slow: "))
        while True:
            await self._clock.sleep_real(TRICKLE_S)
            writer.write(b"a")
