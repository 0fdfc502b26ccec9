"""The spool of a node's counters: durable before a report leaves, small, replaced whole."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import OperationFault
from holdfast.limits.access import USAGE_ROWS_MAX
from holdfast.logic.access.accounting import Meter, Spool, Total
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import read_file, write_file
from holdfast.wire.access import Counter, UsageReport

FILE: Final = "usage.msgpack"
ROWS_PER_REPORT: Final = 90
"""Members of one report fit into one transaction of the control store."""
_log = logging.getLogger("holdfast.access.spool")


class UsageSpool:
    """A meter with its file."""

    def __init__(self, directory: Path, entropy: Entropy) -> None:
        self._path = directory / FILE
        data = read_file(self._path)
        try:
            spool = msgspec.msgpack.decode(data, type=Spool) if data else None
        except (msgspec.DecodeError, ValueError):
            _log.error("%s is damaged; counting anew", self._path)
            spool = None
        self.meter = Meter(spool or Spool(entropy.bytes(16), 0, {}))
        self._told: tuple[int, frozenset[str]] = (0, frozenset())

    def read(self, readings: Mapping[str, Total]) -> None:
        """Take a reading in; durable when this returns. Raises OperationFault."""
        if self.meter.read(dict(list(readings.items())[:USAGE_ROWS_MAX])):
            self._save()

    def report(self) -> UsageReport | None:
        """What HQ does not know yet, at most some rows of it; None when it knows all."""
        sequence, totals = self.meter.report()
        if not totals:
            return None
        rows = totals[:ROWS_PER_REPORT]
        self._told = sequence, frozenset(subject for subject, _ in rows)
        counters = tuple(Counter(subject, t.upload, t.download) for subject, t in rows)
        return UsageReport(self.meter.spool.incarnation, sequence, counters)

    def confirmed(self, sequence: int) -> None:
        """HQ has the report of `sequence`."""
        told, subjects = self._told
        if told == sequence:
            self.meter.confirmed(sequence, subjects)
            try:
                self._save()
            except OperationFault as fault:
                _log.warning("%s", fault)

    def _save(self) -> None:
        write_file(self._path, msgspec.msgpack.encode(self.meter.spool))
