"""Usage without loss and without double count: counters that only grow (issue: Marzban #1832).

Two halves of one rule. A *meter* on the node turns readings of a proxy, which start at zero with
every process, into totals that never fall and are durable before they are told. The *ledger* at
headquarters keeps the highest total of every (node, incarnation, subject) and counts only what is
above it, so a report may come twice, late, or after any restart of either side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec


class Total(msgspec.Struct, frozen=True):
    """Bytes of one subject since a spool began."""

    upload: int = 0
    download: int = 0


class Spool(msgspec.Struct, frozen=True):
    """What a node must not forget: the totals of its incarnation and how often it reported."""

    incarnation: bytes
    sequence: int
    totals: dict[str, Total]
    acknowledged: int = 0
    unreported: frozenset[str] = frozenset()
    """Subjects that moved since the last receipt."""


class Meter:
    """A node's half. `spool` is written down before a report made from it leaves."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self._last: dict[str, Total] = {}

    def restarted(self) -> None:
        """The proxy is a new process: its counters start at zero."""
        self._last = {}

    def read(self, readings: Mapping[str, Total]) -> bool:
        """Take a reading of all counters in; whether anything moved (then persist `spool`).

        A reading below the last one means that the counter was reset behind our back: what it shows
        now is all new.
        """
        totals = dict(self.spool.totals)
        moved: set[str] = set()
        for subject, now in readings.items():
            before = self._last.get(subject, Total())
            up, down = _grown(before.upload, now.upload), _grown(before.download, now.download)
            if up or down:
                held = totals.get(subject, Total())
                totals[subject] = Total(held.upload + up, held.download + down)
                moved.add(subject)
            self._last[subject] = now
        if not moved:
            return False
        spool = self.spool
        self.spool = msgspec.structs.replace(
            spool,
            totals=totals,
            sequence=spool.sequence + 1,
            unreported=spool.unreported | moved,
        )
        return True

    def report(self) -> tuple[int, tuple[tuple[str, Total], ...]]:
        """(sequence, totals that HQ has not confirmed); nothing when it knows all."""
        spool = self.spool
        return spool.sequence, tuple((s, spool.totals[s]) for s in sorted(spool.unreported))

    def confirmed(self, sequence: int, told: Iterable[str]) -> None:
        """HQ has the report of `sequence` for good. What moved since then stays unreported."""
        spool = self.spool
        left = spool.unreported - set(told) if sequence == spool.sequence else spool.unreported
        self.spool = msgspec.structs.replace(
            spool, acknowledged=max(sequence, spool.acknowledged), unreported=left
        )


def credit(
    known: Mapping[str, Total], told: Iterable[tuple[str, Total]]
) -> tuple[dict[str, Total], dict[str, Total]]:
    """The ledger's rule for one reporter: (new highest totals, what each subject gains)."""
    highest = dict(known)
    gains: dict[str, Total] = {}
    for subject, total in told:
        held = highest.get(subject, Total())
        up = max(0, total.upload - held.upload)
        down = max(0, total.download - held.download)
        if up or down:
            highest[subject] = Total(held.upload + up, held.download + down)
            before = gains.get(subject, Total())
            gains[subject] = Total(before.upload + up, before.download + down)
    return highest, gains


def _grown(before: int, now: int) -> int:
    return now - before if now >= before else now
