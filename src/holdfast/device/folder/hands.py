"""The threads that read, hash, compress and write: the calls that let go of the interpreter lock.

Each thread has its own `Disk` (descriptors are not shared) and its own compressor.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

from holdfast.device.folder.chunk import Compressor
from holdfast.device.folder.disk import Disk

P = ParamSpec("P")
T = TypeVar("T")
HANDS_MAX = 4
"""Beyond this the interpreter lock, not the disk, is what they wait for."""


class Hand:
    """What one thread works with."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.compressor = Compressor()
        self.generation = 0


class Hands:
    """A small pool of threads over one folder. `make_disk` is called in each of them."""

    def __init__(self, make_disk: Callable[[], Disk]) -> None:
        self.count = min(HANDS_MAX, max(2, os.cpu_count() or 2))
        self._make_disk = make_disk
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="folder")
        self._local = threading.local()
        self._all: list[Hand] = []
        self._generation = 0

    async def run(
        self, work: Callable[Concatenate[Hand, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`work(hand, ...)` in one of the threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: work(self._hand(), *args, **kwargs))

    def forget(self) -> None:
        """Directories are about to move: no thread may trust a descriptor it kept."""
        self._generation += 1

    def close(self) -> None:
        """Wait for the threads and give back their descriptors."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for hand in self._all:
            hand.disk.close()
        self._all.clear()

    def _hand(self) -> Hand:
        hand: Hand | None = getattr(self._local, "hand", None)
        if hand is None:
            hand = self._local.hand = Hand(self._make_disk())
            self._all.append(hand)
        if hand.generation != self._generation:
            hand.disk.forget()
            hand.generation = self._generation
        return hand
