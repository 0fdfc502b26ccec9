"""How soon a small change on one device is on the other, while both watch.

A change is a file of 1 KiB written in place, as an editor without tricks does; the clock runs from
before the write to the look that found the same bytes on the other side. Changes come one at a
time, each after a pause, so that none rides on the way of the one before.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy

CHANGES: Final = 25
CHANGE_BYTES: Final = 1_024
PAUSE_S: Final = 0.4
LOOK_S: Final = 0.002
ARRIVAL_S: Final = 60.0


async def small_changes(here: Path, there: Path, clock: Clock, entropy: Entropy) -> list[float]:
    """Milliseconds of each change from directory `here` to `there`. Raises OperationFault."""
    took_ms = []
    for number in range(CHANGES):
        await clock.sleep_real(PAUSE_S)
        name = f"small-change-{number % 5}"
        content = entropy.bytes(CHANGE_BYTES)
        started = clock.elapsed()
        await asyncio.to_thread((here / name).write_bytes, content)
        try:
            async with clock.real_timeout(ARRIVAL_S):
                while not _holds(there / name, content):
                    await clock.sleep_real(LOOK_S)
        except TimeoutError as error:
            raise OperationFault(f"a small change did not arrive in {ARRIVAL_S:g} s") from error
        took_ms.append(1e3 * (clock.elapsed() - started))
    return took_ms


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False
