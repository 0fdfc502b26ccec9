"""Threads that take turns at the interpreter's lock, kept on one CPU while they are busy.

Only one of them runs at a time. On two CPUs each turn wakes the other CPU first, and while it wakes
nobody has the lock; on one CPU a turn is a switch of contexts (ADR 0048 has what that is worth).
Whoever works without the lock goes where the kernel likes, and so do all when they are not busy, or
when no CPU is idle: nothing has to be woken then, and whichever CPU is free next should be theirs.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from holdfast.limits import TOGETHER_BUSY_SHARE, TOGETHER_IDLE_SHARE, TOGETHER_REST_SHARE
from holdfast.rim.files import read_file

_TASKS: Final = Path("/proc/self/task")
_CPUS: Final = Path("/proc/stat")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_UTIME, _STIME, _CPU = 11, 12, 36
"""Fields of /proc/<pid>/task/<tid>/stat, counted from the state on."""


class _Seen(NamedTuple):
    """A thread: its CPU time so far in clock ticks, the CPU where it ran last."""

    ticks: int
    cpu: int


class OneCpu:
    """The affinity of this process's threads; `look` is called every second or so.

    Kept together are the threads that are named, and those that a library began beside the
    interpreter, but for the busiest of these: it has work of its own (of a server: TLS), and the
    others bring it to the event loop, each time under the lock.
    """

    def __init__(self, leading: int, *others: int) -> None:
        """Native ids of the threads that take turns."""
        self._leading = leading
        self._named = {leading, *others}
        self._allowed = os.sched_getaffinity(0)
        self._seen = _threads()
        self._idle_s = idle_s(self._allowed)
        self.kept = False
        """Whether they are on one CPU now."""

    def look(self, passed_s: float) -> None:
        """Decide by how much of a CPU they took in the `passed_s` real seconds since last time.
        Raises OSError or OperationFault when the kernel does not say."""
        if not self.kept:
            self._allowed = os.sched_getaffinity(self._leading)  # an operator may change it
        if len(self._allowed) < 2:
            return
        before, self._seen = self._seen, _threads()
        idle_before_s, self._idle_s = self._idle_s, idle_s(self._allowed)
        took = {
            thread: seen.ticks - before.get(thread, seen).ticks
            for thread, seen in self._seen.items()
        }
        busy = sum(took.get(thread, 0) for thread in self._named) / _TICKS_PER_S / passed_s
        idle = (self._idle_s - idle_before_s) / passed_s / len(self._allowed)
        was_kept = self.kept
        self.kept = (
            self._leading in self._seen
            and busy >= (TOGETHER_REST_SHARE if was_kept else TOGETHER_BUSY_SHARE)
            and idle >= TOGETHER_IDLE_SHARE
        )
        if self.kept:
            self._place({self._seen[self._leading].cpu}, self._named | _followers(took))
        elif was_kept:
            self._place(self._allowed, self._seen)

    def let_go(self) -> None:
        """Let all threads go where the kernel likes."""
        self._seen, self.kept = _threads(), False
        self._place(self._allowed, self._seen)

    def _place(self, cpus: Collection[int], kept: Collection[int]) -> None:
        """Threads that began since are where those are who began them: they are let go as well."""
        for thread in self._seen:
            wanted = set(cpus) if thread in kept else self._allowed
            with contextlib.suppress(OSError):  # it has ended, or the machine lost that CPU
                if os.sched_getaffinity(thread) != wanted:
                    os.sched_setaffinity(thread, wanted)


def _followers(took: Mapping[int, int]) -> set[int]:
    """Threads that no module of ours began, but for the busiest."""
    ours = {
        thread.native_id
        for thread in threading.enumerate()
        if not isinstance(thread, threading._DummyThread)  # a library's that once called Python
    }
    foreign = sorted((thread for thread in took if thread not in ours), key=took.__getitem__)
    return set(foreign[:-1])


def idle_s(cpus: Collection[int]) -> float:
    """For how long these CPUs have had nothing to do since the machine began, all together; 0 where
    the kernel does not say."""
    ticks = 0
    for line in (read_file(_CPUS) or b"").decode().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cpus:
            ticks += int(fields[3]) + int(fields[4])  # idle, and idle until a disk answers
    return ticks / _TICKS_PER_S


def _threads() -> dict[int, _Seen]:
    """All threads of this process."""
    found = {}
    for name in os.listdir(_TASKS):
        with contextlib.suppress(OSError):  # it has ended since
            fields = (_TASKS / name / "stat").read_text().rpartition(")")[2].split()
            ticks = int(fields[_UTIME]) + int(fields[_STIME])
            found[int(name)] = _Seen(ticks, int(fields[_CPU]))
    return found
