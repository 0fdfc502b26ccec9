"""Watches the entries' heartbeats for blocked names and addresses (`logic.access.blocked`).

Soft state of one HQ process, as all liveness is (D27).
"""

from __future__ import annotations

from collections import defaultdict

from holdfast.logic.access.blocked import Detector, Verdict
from holdfast.logic.access.model import CellId
from holdfast.logic.fleet.rows import NodeRow
from holdfast.rim.clock import Clock


class CellWatch:
    """A detector for each cell."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._detectors: defaultdict[CellId, Detector] = defaultdict(Detector)

    def beat(self, row: NodeRow, clients: int) -> None:
        """A heartbeat of an entry with its connected devices."""
        self._detectors[row.cell].beat(row.name, clients, self._clock.elapsed())

    def verdict(self, cell: CellId) -> Verdict:
        """What the heartbeats of a cell say now."""
        return self._detectors[cell].judge(self._clock.elapsed())[0]
