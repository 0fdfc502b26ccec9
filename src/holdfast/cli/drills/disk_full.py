"""`holdfast drill disk-full`."""

from __future__ import annotations

from holdfast.cli.drills.play import Keep, play
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.drills.disk_full import DiskFull


def disk_full(
    *,
    trials: int = 100,
    size_mib: int = 512,
    seed: int = 1,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """Fill a relay's disk, a real tmpfs, and make room again; nothing may be lost. As root.

    Parameters
    ----------
    trials
        How many times.
    size_mib
        The disk, of which a relay keeps 64 in reserve. Each trial leaves a few on it.
    seed
        How much room there is, and what is pushed.
    json
        One JSON object as the last line.
    """
    if trials < 1 or size_mib < 2 * trials + 128:
        raise UsageError("--trials from 1; --size-mib at least 128 and 2 for each trial")
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "disk-full",
        lambda home: DiskFull(home, clock, entropy, seed).run(trials, size_mib),
        keep=keep,
        json=json,
    )
