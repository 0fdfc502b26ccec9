"""Whether the disk has room for a commit, asked of the kernel seldom.

Asking lets go of the interpreter lock, and a commit that has to win it back from a busy event loop
waits a millisecond for it. So one answer serves for as long as nothing can have changed much: what
was written here since then is known, what others wrote is bounded by time. It may be wrong for that
long only; a disk that is full all the same says so itself when it is written to.
"""

from __future__ import annotations

import time
from typing import Final

from holdfast.rim.store.segments import Segments

LOOK_S: Final = 0.25
"""Somebody else who fills a fast disk takes a gigabyte of it within this, not more."""


class Room:
    """The room left above a reserve. On the writer thread only."""

    def __init__(self, segments: Segments, reserve_bytes: int) -> None:
        self._segments = segments
        self._reserve_bytes = reserve_bytes
        self._free_bytes = 0
        self._looked_at = float("-inf")

    def take(self, size: int) -> bool:
        """Whether `size` bytes may be written with the reserve still free before them. Raises
        OSError."""
        now = time.perf_counter()
        if now - self._looked_at >= LOOK_S or self._free_bytes < self._reserve_bytes:
            self._free_bytes = self._segments.free_bytes()
            self._looked_at = now
        if self._free_bytes < self._reserve_bytes:
            return False
        self._free_bytes -= size
        return True
