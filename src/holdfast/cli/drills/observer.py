"""`holdfast drill observer`."""

from __future__ import annotations

from holdfast.cli.drills.inside import go_inside
from holdfast.cli.drills.play import Keep, play
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.drills.observer import ObserverDrill


def observer(*, keep: Keep = None, json: bool = False) -> int:
    """Tap the wire between entries and cores, and probe both as a stranger.

    Parameters
    ----------
    json
        One JSON object as the last line.
    """
    go_inside()
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "observer", lambda home: ObserverDrill(home, clock, entropy).run(), keep=keep, json=json
    )
