"""`holdfast drill groups`."""

from __future__ import annotations

from pathlib import Path

from holdfast.cli.drills.play import Keep, play
from holdfast.errors import UsageError
from holdfast.sim.membership import Tally, campaign


def groups(
    *, permutations: int = 100_000, seed: int = 1, keep: Keep = None, json: bool = False
) -> int:
    """Add, remove and rekey at the same time, delivered in many random orders: one state.

    Parameters
    ----------
    permutations
        How many orders of delivery, fifty for each random history.
    seed
        Who does what when, and the orders.
    json
        One JSON object as the last line.
    """
    if permutations < 1:
        raise UsageError("--permutations is at least 1")

    async def drill(_: Path) -> Tally:
        return campaign(permutations, seed)

    return play("groups", drill, keep=keep, json=json)
