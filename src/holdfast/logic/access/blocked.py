"""Blocked or dead? The signal of Sigil Gate's failover: clients vanish while heartbeats live.

| heartbeats of the entries | clients                     | verdict                         |
|---------------------------|-----------------------------|---------------------------------|
| stopped                   | whatever                    | the node is dead                |
| go on                     | vanish at one entry         | its address is blocked          |
| go on                     | vanish at all of the cell   | the cell's name is blocked      |

"Vanish" compares with the most clients seen within the last window, and asks for a number that
chance does not explain. The detector only judges; what follows is headquarters' decision.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from holdfast.limits.access import BLOCK_CLIENTS_MIN, BLOCK_FRACTION, BLOCK_WINDOW_S


class Verdict(StrEnum):
    FINE = "fine"
    ADDRESS_BLOCKED = "address-blocked"
    NAME_BLOCKED = "name-blocked"


class Detector:
    """Watches the entries of one cell. Times are seconds of any one clock."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[float, int]]] = {}

    def beat(self, entry: str, clients: int, now: float) -> None:
        """A heartbeat of `entry` with its number of clients (distinct devices)."""
        series = self._seen.setdefault(entry, deque())
        series.append((now, clients))
        while series and series[0][0] < now - 2 * BLOCK_WINDOW_S:
            series.popleft()

    def forget(self, entry: str) -> None:
        """This entry is gone or drains: that its clients leave means nothing."""
        self._seen.pop(entry, None)

    def judge(self, now: float) -> tuple[Verdict, tuple[str, ...]]:
        """The verdict on the cell, and the entries whose clients vanished."""
        usual: dict[str, int] = {}
        left: dict[str, int] = {}
        for entry, series in self._seen.items():
            fresh = [count for at, count in series if at >= now - BLOCK_WINDOW_S / 2]
            if not fresh:
                continue  # its heartbeats stopped: the node is dead, which others notice
            usual[entry] = max(count for _, count in series)
            left[entry] = fresh[-1]
        gone = tuple(sorted(e for e in usual if _vanished(usual[e], left[e])))
        if not gone:
            return Verdict.FINE, ()
        busy = [e for e in usual if usual[e] >= BLOCK_CLIENTS_MIN]
        if len(gone) == len(busy) and _vanished(sum(usual.values()), sum(left.values())):
            return Verdict.NAME_BLOCKED, gone
        return Verdict.ADDRESS_BLOCKED, gone


def _vanished(usual: int, left: int) -> bool:
    return usual >= BLOCK_CLIENTS_MIN and left < usual * BLOCK_FRACTION
