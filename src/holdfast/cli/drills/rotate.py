"""`holdfast drill rotate`."""

from __future__ import annotations

from holdfast.cli.drills.inside import go_inside
from holdfast.cli.drills.play import Keep, play
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.drills.rotate import RotateDrill


def rotate(
    *,
    entries: int = 3,
    users: int = 2,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """Turn over every entry address under clients that refresh.

    Parameters
    ----------
    entries
        Entries of the cell, each of which gets a successor.
    users
        Real clients that go on meanwhile.
    json
        One JSON object as the last line.
    """
    if entries < 1 or users < 1:
        raise UsageError("too few for this drill")
    go_inside()
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "rotate",
        lambda home: RotateDrill(home, clock, entropy).run(entries, users),
        keep=keep,
        json=json,
    )
