"""`holdfast drill accounting`."""

from __future__ import annotations

from holdfast.cli.drills.inside import go_inside
from holdfast.cli.drills.play import Keep, play
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.drills.accounting import AccountingDrill


def accounting(*, megabytes: int = 20, keep: Keep = None, json: bool = False) -> int:
    """Download while headquarters, an entry and a core go and come; compare the books.

    Parameters
    ----------
    megabytes
        Of each download, MiB.
    json
        One JSON object as the last line.
    """
    if megabytes < 1:
        raise UsageError("at least one megabyte")
    go_inside()
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "accounting",
        lambda home: AccountingDrill(home, clock, entropy).run(megabytes),
        keep=keep,
        json=json,
    )
