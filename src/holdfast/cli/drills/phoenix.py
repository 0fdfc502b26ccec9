"""`holdfast drill phoenix`."""

from __future__ import annotations

from holdfast.cli.drills.inside import go_inside
from holdfast.cli.drills.play import Keep, play
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.drills.phoenix import PhoenixDrill


def phoenix(
    *,
    clients: int = 4,
    cores: int = 2,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """A cluster and every headquarters are lost, disks too, and rebuilt from the words.

    Parameters
    ----------
    clients
        Real clients of the lost cluster.
    cores
        Cores of the lost cluster, beside its entry.
    json
        One JSON object as the last line.
    """
    if clients < 1 or cores < 1:
        raise UsageError("--clients and --cores from 1")
    go_inside()
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "phoenix",
        lambda home: PhoenixDrill(home, clock, entropy).run(clients, cores),
        keep=keep,
        json=json,
    )
