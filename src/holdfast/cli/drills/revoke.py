"""`holdfast drill revoke`."""

from __future__ import annotations

from holdfast.cli.drills.inside import go_inside
from holdfast.cli.drills.play import Keep, play
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.drills.revoke import RevokeDrill


def revoke(*, entries: int = 4, each: int = 4, keep: Keep = None, json: bool = False) -> int:
    """Exclude a core while clients of every entry download through it.

    Parameters
    ----------
    entries
        How many entries.
    each
        Downloads through each of them.
    json
        One JSON object as the last line.
    """
    if not 0 < entries <= 50 or each < 1:
        raise UsageError("1 to 50 entries, and a download for each")
    go_inside()
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "revoke",
        lambda home: RevokeDrill(home, clock, entropy).run(entries, each),
        keep=keep,
        json=json,
    )
