"""Threads that take turns at the interpreter's lock, kept on one CPU while they are busy.

Only one of them runs at a time. On two CPUs each turn wakes the other CPU first, and while it wakes
nobody has the lock; on one CPU a turn is a switch of contexts (ADR 0048 has what that is worth).
Everything else of the process goes where the kernel likes, and so do they when they are not busy.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

from holdfast.limits import TOGETHER_BUSY_SHARE, TOGETHER_REST_SHARE

_TASKS: Final = Path("/proc/self/task")
_UTIME, _STIME, _CPU = 11, 12, 36
"""Fields of /proc/<pid>/task/<tid>/stat, counted from the state on."""


class OneCpu:
    """The affinity of this process's threads; `look` is called every second or so."""

    def __init__(self, together: Collection[int]) -> None:
        """`together`: native ids of the threads that take turns, the leading one first."""
        self._together = tuple(together)
        self._allowed = os.sched_getaffinity(0)
        self._spent_s = self._read()[0]
        self.kept = False
        """Whether they are on one CPU now."""

    def look(self, passed_s: float) -> None:
        """Decide by how much of a CPU they took in the `passed_s` real seconds since last time."""
        before, (self._spent_s, cpu) = self._spent_s, self._read()
        share = (self._spent_s - before) / passed_s if passed_s > 0 else 0.0
        was_kept = self.kept
        self.kept = len(self._allowed) > 1 and share >= (
            TOGETHER_REST_SHARE if was_kept else TOGETHER_BUSY_SHARE
        )
        if self.kept:
            self._place({cpu})
        elif was_kept:
            self._place(self._allowed)

    def _place(self, cpus: Collection[int]) -> None:
        """Threads that began since inherit the place of who began them: they are let go as well."""
        for name in os.listdir(_TASKS):
            thread = int(name)
            with contextlib.suppress(OSError):  # it has ended, or the machine lost that CPU
                wanted = cpus if thread in self._together else self._allowed
                if os.sched_getaffinity(thread) != wanted:
                    os.sched_setaffinity(thread, wanted)

    def _read(self) -> tuple[float, int]:
        """CPU seconds of all of them so far, and the CPU where the leading one ran last."""
        spent, cpu = 0, -1
        for thread in self._together:
            try:
                text = (_TASKS / str(thread) / "stat").read_text()
            except OSError:
                continue
            fields = text.rpartition(")")[2].split()
            spent += int(fields[_UTIME]) + int(fields[_STIME])
            cpu = int(fields[_CPU]) if cpu < 0 else cpu
        return spent / os.sysconf("SC_CLK_TCK"), cpu
