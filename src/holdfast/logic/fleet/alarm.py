"""Alerts that begin and end (the table is `logic.fleet.alerts`).

    absent -> pending -> open -> clearing -> ended          a condition, with hysteresis
    absent -> open -> ended                                 an event: acknowledged, or a week old

A condition must hold for `hold_s` before it is an alert, and be gone for `clear_s` before it ends,
so nothing flaps; a subject has one alert of a kind however often it is sighted. An acknowledged
condition stays open, quietly, until it ends. What is open is a row; what is pending or clearing is
soft, and begins anew in a new process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from holdfast.limits.operating import ALERTS_NAMED_MAX
from holdfast.logic.fleet.alerts import (
    RULES,
    TABLE,
    Concerns,
    Facts,
    Kind,
    Rule,
    Severity,
    Sighting,
)
from holdfast.logic.fleet.model import OPERATOR

OTHERS: Final = "others"
"""The subject of the one alert that counts what is past `ALERTS_NAMED_MAX`."""
_GRAVER: Final = {Severity.NOTICE: Severity.WARNING, Severity.WARNING: Severity.CRITICAL}
_ORDER: Final = {severity: rank for rank, severity in enumerate(Severity)}


class AlertRow(msgspec.Struct, frozen=True):
    """An open alert. `what` and `step` are sentences; times are Unix seconds, 0 for never."""

    kind: Kind
    subject: str
    severity: Severity
    concerns: Concerns
    what: str
    step: str
    began_at: float
    owner: str = OPERATOR
    acknowledged_by: str = ""
    acknowledged_at: float = 0.0

    @property
    def id(self) -> str:
        """As it is acknowledged by."""
        return f"{self.kind}:{self.subject}"


class Change(msgspec.Struct, frozen=True):
    """What a look found: alerts that began and that ended."""

    begun: tuple[AlertRow, ...] = ()
    ended: tuple[AlertRow, ...] = ()


class Alarm:
    """The machine. Give it the rows that are stored; `look` every few seconds."""

    def __init__(self, rows: Iterable[AlertRow] = (), scale: float = 1.0) -> None:
        assert scale > 0
        self._scale = scale
        self._open: dict[str, AlertRow] = {row.id: row for row in rows}
        self._since: dict[str, float] = {}
        self._gone: dict[str, float] = {}

    def rows(self) -> tuple[AlertRow, ...]:
        """What is open: not acknowledged first, then the gravest, then the newest."""

        def order(row: AlertRow) -> tuple[bool, int, float, str]:
            return bool(row.acknowledged_by), _ORDER[row.severity], -row.began_at, row.id

        return tuple(sorted(self._open.values(), key=order))

    def look(self, facts: Facts) -> Change:
        """Compare what is so with what is open. `facts.at` never goes back."""
        begun: list[AlertRow] = []
        seen: set[str] = set()
        for rule in TABLE:
            for row in self._sighted(rule, facts):
                seen.add(row.id)
                if self._begins(row, rule, facts.at):
                    self._open[row.id] = row
                    begun.append(row)
        for id in [id for id in self._since if id not in seen]:
            del self._since[id]
        ended = tuple(self._ended(seen, facts.at))
        for row in ended:
            del self._open[row.id]
            self._gone.pop(row.id, None)
        return Change(tuple(begun), ended)

    def acknowledge(self, id: str, by: str, now: float) -> AlertRow | None:
        """Somebody has seen it. The row as it is now; None when no such alert is open."""
        row = self._open.get(id)
        if row is None or row.acknowledged_by:
            return row
        row = msgspec.structs.replace(row, acknowledged_by=by, acknowledged_at=now)
        self._open[id] = row
        return row

    # --- Parts -----------------------------------------------------------------------------------
    def _sighted(self, rule: Rule, facts: Facts) -> Iterator[AlertRow]:
        """A row for each sighting; past the bound one for all the rest."""

        def is_open(subject: str) -> bool:
            return f"{rule.kind}:{subject}" in self._open

        found = sorted(rule.find(facts, is_open), key=lambda s: (not is_open(s.subject), s.subject))
        for sighting in found[:ALERTS_NAMED_MAX]:
            yield _row(rule, sighting, facts.at)
        rest = found[ALERTS_NAMED_MAX:]
        if rest:
            what = f"{len(rest):,} more like these"
            yield _row(rule, msgspec.structs.replace(rest[0], subject=OTHERS, what=what), facts.at)

    def _begins(self, row: AlertRow, rule: Rule, now: float) -> bool:
        """Whether it becomes an alert now. One that is open learns the newest words."""
        self._gone.pop(row.id, None)
        known = self._open.get(row.id)
        if known is not None:
            changed = {"what": row.what, "step": row.step, "severity": row.severity}
            self._open[row.id] = msgspec.structs.replace(known, **changed)
            return False
        since = self._since.setdefault(row.id, now)
        if now - since < rule.hold_s / self._scale:
            return False
        del self._since[row.id]
        return True

    def _ended(self, seen: set[str], now: float) -> Iterator[AlertRow]:
        for row in list(self._open.values()):
            rule = RULES[row.kind]
            if rule.lasts:
                if row.acknowledged_by or now - row.began_at >= rule.clear_s / self._scale:
                    yield row
            elif row.id not in seen:
                gone_at = self._gone.setdefault(row.id, now)
                if now - gone_at >= rule.clear_s / self._scale:
                    yield row


def whose(row: AlertRow) -> str:
    """For whom it is: `operator`, `member`, `owner of the node (ann)`."""
    by_name = row.concerns is Concerns.OWNER and row.owner != OPERATOR
    return f"{row.concerns} ({row.owner})" if by_name else str(row.concerns)


def _row(rule: Rule, sighting: Sighting, now: float) -> AlertRow:
    severity = _GRAVER.get(rule.severity, rule.severity) if sighting.grave else rule.severity
    return AlertRow(
        kind=rule.kind,
        subject=sighting.subject,
        severity=severity,
        concerns=rule.concerns,
        what=sighting.what,
        step=sighting.step,
        began_at=now,
        owner=sighting.owner,
    )
