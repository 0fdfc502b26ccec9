"""The one judge of all contenders: a tree has arrived when `diff` finds nothing.

Looking costs, so a cheap count of files and bytes comes first, and `diff` reads everything only
when the count fits. The clock stops where the look began that found the trees equal: the judge's
own reading is nobody's time.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from holdfast.cli.trees import Tree, measure
from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock
from holdfast.rim.process import Child, spawn

POLL_S: Final = 0.1
CONTEST_S: Final = 1_800.0
"""Real seconds for one tree to arrive."""
_LOG_BYTES_SHOWN: Final = 2_000


class Judge:
    """Compares targets with one source tree."""

    def __init__(self, source: Path, logs: Path, clock: Clock) -> None:
        self._source = source
        self._logs = logs
        self._clock = clock
        self.tree: Tree = measure(source)
        self._runs = 0

    async def arrival(self, target: Path, check: Callable[[], None] = lambda: None) -> float:
        """Elapsed time (as of the clock) when `target` was the source. Raises OperationFault.

        `check` raises when the contender has died meanwhile.
        """
        try:
            async with self._clock.real_timeout(CONTEST_S):
                while True:
                    check()
                    looked_at = self._clock.elapsed()
                    if await asyncio.to_thread(self._fits, target) and await self.equal(target):
                        return looked_at
                    took_s = self._clock.elapsed() - looked_at
                    await self._clock.sleep_real(max(POLL_S, 3 * took_s))
        except TimeoutError as error:
            raise OperationFault(f"{target} did not become the tree in time") from error

    def _fits(self, target: Path) -> bool:
        try:
            return target.is_dir() and measure(target) == self.tree
        except FileNotFoundError:  # something is being renamed into place
            return False

    async def equal(self, target: Path) -> bool:
        """Whether `diff -r --no-dereference` is empty."""
        self._runs += 1
        log = self._logs / f"diff-{self._runs:03d}.log"
        words = ("diff", "-r", "-q", "--no-dereference", str(self._source), str(target))
        return await finish(words, log, self._clock, (0, 1)) == 0


async def finish(
    words: tuple[str, ...], log: Path, clock: Clock, accepted: tuple[int, ...] = (0,)
) -> int:
    """Run a command to its end; its status. Raises OperationFault for one not accepted."""
    child: Child[Any] = await spawn(words, log=log)
    try:
        async with clock.real_timeout(CONTEST_S):
            status = await child.wait()
    finally:
        child.kill()
    if status not in accepted:
        raise OperationFault(f"{words[0]} failed ({status}):\n{_end(log)}", retryable=False)
    return status


def _end(log: Path) -> str:
    return log.read_text(errors="replace")[-_LOG_BYTES_SHOWN:]


def move_in(tree: Path, target: Path) -> None:
    """Put the whole tree in place with one rename."""
    os.rename(tree, target)


def installed(name: str) -> bool:
    """Whether a command is on the path."""
    return shutil.which(name) is not None
