"""`holdfast drill slowloris`, and the hostile process it starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import uvloop

from holdfast.cli.drills.play import Keep, play
from holdfast.crypto.certinfo import from_pem
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.drills.hostile import Hostile
from holdfast.sim.drills.slowloris import Slowloris, allow_descriptors


def slowloris(
    *,
    hostile: int = 10_000,
    honest: int = 200,
    seconds: float = 30.0,
    seed: int = 1,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """Hang thousands of connections on one relay and see what honest clients feel.

    Parameters
    ----------
    hostile
        Connections that are silent, or send a byte now and then.
    honest
        Clients that push and verify receipts meanwhile.
    seconds
        How long honest clients are measured, once without and once with the hostile ones.
    seed
        When honest clients come, and which of their connections are new.
    json
        One JSON object as the last line.
    """
    if hostile < 1 or honest < 1 or seconds <= 0:
        raise UsageError("--hostile and --honest are at least 1, --seconds above 0")
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "slowloris",
        lambda home: Slowloris(home, clock, entropy, seed).run(hostile, honest, seconds),
        keep=keep,
        json=json,
        run=uvloop.run,  # both client processes share the cores with the relay: lean ones
    )


def hostile(*, address: str, roots: Path, count: int, tally: Path) -> None:
    """The hostile process of `slowloris`; runs as long as its parent."""
    allow_descriptors(count)
    pinned = from_pem(roots.read_bytes())
    uvloop.run(_hostile(address, pinned, count, tally))


async def _hostile(address: str, roots: Sequence[bytes], count: int, tally: Path) -> None:
    await Hostile(address, roots, SystemClock(), count).run(tally)
