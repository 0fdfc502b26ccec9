"""`holdfast drill access`."""

from __future__ import annotations

from holdfast.cli.drills.inside import go_inside
from holdfast.cli.drills.play import Keep, play
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.drills.access import AccessDrill


def access(
    *,
    megabytes: int = 500,
    kills: int = 50,
    rotations: int = 100,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """A real client behind a subscription, while cores, entries and secret paths turn.

    Parameters
    ----------
    megabytes
        Size of the download, MiB.
    kills
        Cores killed, and as many entries.
    rotations
        How often the paths turn.
    json
        One JSON object as the last line.
    """
    if megabytes < 1 or kills < 0 or rotations < 0:
        raise UsageError("at least one megabyte, and nothing below zero")
    go_inside()
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "access",
        lambda home: AccessDrill(home, clock, entropy).run(megabytes, kills, rotations),
        keep=keep,
        json=json,
    )
