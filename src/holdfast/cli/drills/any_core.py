"""`holdfast drill any-core`."""

from __future__ import annotations

from holdfast.cli.drills.inside import go_inside
from holdfast.cli.drills.play import Keep, play
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.drills.any_core import AnyCore


def any_core(
    *,
    cores: int = 5,
    calls: int = 50,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """Every verb through every core; then cores, etcd and every headquarters die.

    Parameters
    ----------
    cores
        Core nodes, two of which are killed.
    calls
        Calls that each of three callers makes at least, while things die.
    json
        One JSON object as the last line.
    """
    if cores < 3:
        raise UsageError("three cores at least: two of them die")
    go_inside()
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "any-core",
        lambda home: AnyCore(home, clock, entropy).run(cores, calls),
        keep=keep,
        json=json,
    )
