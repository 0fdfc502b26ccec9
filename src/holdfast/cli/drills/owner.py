"""`holdfast drill owner`."""

from __future__ import annotations

from holdfast.cli.drills.inside import go_inside
from holdfast.cli.drills.play import Keep, play
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.drills.owner import OwnerDrill


def owner(
    *,
    rounds: int = 5,
    megabytes: int = 1_000,
    guests: int = 4,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """Others pull through a core as hard as they can; its owner goes first.

    Parameters
    ----------
    rounds
        How often the owner's throughput is measured, alone and beside the others.
    megabytes
        Of each measurement, MiB: five seconds or more, for a rate is meant and not a start. The
        start is told apart.
    guests
        Downloads of others at once.
    json
        One JSON object as the last line.
    """
    if rounds < 1 or megabytes < 1 or guests < 1:
        raise UsageError("at least one of each")
    go_inside()
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "owner",
        lambda home: OwnerDrill(home, clock, entropy).run(rounds, megabytes, guests),
        keep=keep,
        json=json,
    )
