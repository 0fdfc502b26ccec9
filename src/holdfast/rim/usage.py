"""What this process has used of the machine, and what the machine as a whole does."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import NamedTuple


def cpu_s() -> float:
    """CPU seconds of this process so far."""
    return time.process_time()


def thread_cpu_s() -> float:
    """CPU seconds of this thread so far."""
    return time.thread_time()


def rss_mb() -> float:
    """The most memory it has held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class MachineUsage(NamedTuple):
    """What a machine did between two looks. `busy` is the share of its processors in use."""

    busy: float = 0.0
    received_bytes_per_s: float = 0.0
    sent_bytes_per_s: float = 0.0


class MachineMeter:
    """Looks at the machine, or the container, that this process is in.

    The root of the cgroup tree as this process sees it is the container's own in a container and
    the machine's outside; network cards are those of this process's network namespace.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._before: tuple[float, float, int, int] | None = None

    def take(self) -> MachineUsage:
        """The usage since the last call; nothing the first time, and where the kernel is mute."""
        received, sent = self._cards()
        now = (time.monotonic(), self._processors_s(), received, sent)
        before, self._before = self._before, now
        if before is None or now[0] - before[0] <= 0:
            return MachineUsage()
        real_s = now[0] - before[0]
        rates = [max(0.0, new - old) / real_s for new, old in zip(now[1:], before[1:], strict=True)]
        return MachineUsage(rates[0] / (os.cpu_count() or 1), rates[1], rates[2])

    def _processors_s(self) -> float:
        """Processor seconds used so far."""
        for line in self._lines("sys/fs/cgroup/cpu.stat"):
            if line.startswith("usage_usec "):
                return int(line.split()[1]) / 1e6
        for line in self._lines("proc/stat"):
            if line.startswith("cpu "):
                user, nice, system, *_ = map(int, line.split()[1:])
                return (user + nice + system) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def _cards(self) -> tuple[int, int]:
        """Bytes received and sent so far, by all cards but loopback."""
        received = sent = 0
        for line in self._lines("proc/net/dev"):
            name, _, figures = line.partition(":")
            fields = figures.split()
            if name.strip() != "lo" and len(fields) >= 16:
                received, sent = received + int(fields[0]), sent + int(fields[8])
        return received, sent

    def _lines(self, path: str) -> list[str]:
        try:
            return (self._root / path).read_text("ascii").splitlines()
        except (OSError, UnicodeDecodeError):
            return []
