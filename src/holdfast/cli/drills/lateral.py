"""`holdfast drill lateral`."""

from __future__ import annotations

from holdfast.cli.drills.inside import go_inside
from holdfast.cli.drills.play import Keep, play
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.drills.lateral import LateralDrill


def lateral(*, keep: Keep = None, json: bool = False) -> int:
    """Steal the disk and the memory of every node in turn, and try all others.

    Parameters
    ----------
    json
        One JSON object as the last line.
    """
    go_inside()
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "lateral", lambda home: LateralDrill(home, clock, entropy).run(), keep=keep, json=json
    )
