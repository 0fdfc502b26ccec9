"""Time, in its two kinds (D30).

`elapsed` is for timers: monotonic, starts anywhere, and runs `scale` times faster than the world
when a drill squeezes minutes into seconds. `wall` is for certificates, born days and logs: Unix
seconds, never scaled. I/O timeouts are real seconds (`real_timeout`): a scaled network would only
test the scaling.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """What a service may know of time."""

    @property
    def scale(self) -> float:
        """Elapsed seconds per real second."""
        ...

    def elapsed(self) -> float:
        """Monotonic seconds, scaled, from an arbitrary start."""
        ...

    def wall(self) -> float:
        """Unix seconds, never scaled."""
        ...

    async def sleep(self, elapsed_s: float) -> None:
        """Return after `elapsed_s` scaled seconds."""
        ...

    async def sleep_real(self, real_s: float) -> None:
        """Return after `real_s` real seconds."""
        ...

    def real_timeout(self, real_s: float) -> asyncio.Timeout:
        """`async with clock.real_timeout(5):` raises TimeoutError after 5 real seconds."""
        ...

    def timeout(self, elapsed_s: float) -> asyncio.Timeout:
        """As `real_timeout`, in scaled seconds."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def __init__(self, scale: float = 1.0) -> None:
        assert scale > 0, "time runs forward"
        self._scale = scale
        self._start = time.monotonic()

    @property
    def scale(self) -> float:
        return self._scale

    def elapsed(self) -> float:
        return (time.monotonic() - self._start) * self._scale

    def wall(self) -> float:
        return time.time()

    async def sleep(self, elapsed_s: float) -> None:
        await asyncio.sleep(max(0.0, elapsed_s) / self._scale)

    async def sleep_real(self, real_s: float) -> None:
        await asyncio.sleep(max(0.0, real_s))

    def real_timeout(self, real_s: float) -> asyncio.Timeout:
        return asyncio.timeout(real_s)

    def timeout(self, elapsed_s: float) -> asyncio.Timeout:
        return asyncio.timeout(elapsed_s / self._scale)


class ManualClock:
    """A clock that tests turn by hand; `sleep` advances it and returns at once."""

    def __init__(self, elapsed_s: float = 0.0, wall_s: float = 1_800_000_000.0) -> None:
        self._elapsed = elapsed_s
        self._wall = wall_s

    @property
    def scale(self) -> float:
        return 1.0

    def elapsed(self) -> float:
        return self._elapsed

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        assert seconds >= 0
        self._elapsed += seconds
        self._wall += seconds

    def step_wall(self, seconds: float) -> None:
        """Step the wall clock alone, either way, as NTP or an operator does."""
        self._wall += seconds

    async def sleep(self, elapsed_s: float) -> None:
        self.advance(max(0.0, elapsed_s))
        await asyncio.sleep(0)

    async def sleep_real(self, real_s: float) -> None:
        await self.sleep(real_s)

    def real_timeout(self, real_s: float) -> asyncio.Timeout:
        return asyncio.timeout(real_s)

    def timeout(self, elapsed_s: float) -> asyncio.Timeout:
        return asyncio.timeout(elapsed_s)


async def within(clock: Clock, real_s: float, work: Awaitable[T]) -> T:
    """Await `work` for at most `real_s` real seconds. Raises TimeoutError."""
    async with clock.real_timeout(real_s):
        return await work
