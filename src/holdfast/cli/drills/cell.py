"""`holdfast drill cell`."""

from __future__ import annotations

from holdfast.cli.drills.inside import go_inside
from holdfast.cli.drills.play import Keep, play
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.drills.cell import CellDrill


def cell(
    *,
    devices: int = 50,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """A compromised cell is isolated and made anew; others feel nothing.

    Parameters
    ----------
    devices
        Devices of the lost cell; two of them have real clients.
    json
        One JSON object as the last line.
    """
    if devices < 2:
        raise UsageError("too few for this drill")
    go_inside()
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "cell", lambda home: CellDrill(home, clock, entropy).run(devices), keep=keep, json=json
    )
