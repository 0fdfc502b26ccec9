"""`holdfast drill onboard`."""

from __future__ import annotations

from holdfast.cli.drills.inside import go_inside
from holdfast.cli.drills.play import Keep, play
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.drills.onboard import OnboardDrill


def onboard(*, time_scale: float = 60.0, keep: Keep = None, json: bool = False) -> int:
    """Bring an entry and a core by two commands each; then headquarters leaves for an hour.

    Parameters
    ----------
    time_scale
        How many of the network's seconds pass in one of yours.
    json
        One JSON object as the last line.
    """
    if not 1 <= time_scale <= 600:
        raise UsageError("--time-scale from 1 to 600")
    go_inside()
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "onboard",
        lambda home: OnboardDrill(home, clock, entropy, time_scale).run(),
        keep=keep,
        json=json,
    )
