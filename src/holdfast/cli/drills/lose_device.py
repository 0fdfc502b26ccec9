"""`holdfast drill lose-device`."""

from __future__ import annotations

from holdfast.cli.drills.play import Keep, play
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.drills.lose_device import LoseDevice


def lose_device(
    *, histories: int = 100, seed: int = 1, keep: Keep = None, json: bool = False
) -> int:
    """Destroy any one of three devices of two people; everything is on two disks again.

    Parameters
    ----------
    histories
        How many random ones.
    seed
        Who writes what when, who is away, and who is destroyed.
    json
        One JSON object as the last line.
    """
    if histories < 1:
        raise UsageError("--histories is at least 1")
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "lose-device",
        lambda home: LoseDevice(home, clock, entropy, seed).run(histories),
        keep=keep,
        json=json,
    )
