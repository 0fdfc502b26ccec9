"""`holdfast drill rogue-hq`."""

from __future__ import annotations

from holdfast.cli.drills.play import Keep, play
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.drills.rogue_hq import RogueHq


def rogue_hq(*, clients: int = 6, keep: Keep = None, json: bool = False) -> int:
    """Somebody with headquarters' keys forks its log, certifies a relay of his own and turns DNS.

    Parameters
    ----------
    clients
        Clients that want two owners' cosignatures, and as many that trust headquarters alone.
    json
        One JSON object as the last line.
    """
    if clients < 1:
        raise UsageError("--clients from 1")
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "rogue-hq",
        lambda home: RogueHq(home, clock, entropy).run(clients),
        keep=keep,
        json=json,
    )
