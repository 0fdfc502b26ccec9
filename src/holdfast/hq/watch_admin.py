"""The operator's verbs for watching the network, mounted on the admin port.

| method and path                    | shape                                     |
|------------------------------------|-------------------------------------------|
| GET  /admin/v1/alerts              | -> AlertItems: open ones, gravest first   |
| POST /admin/v1/alerts/acknowledge  | Acknowledgement -> Done                   |
| GET  /admin/v1/metrics             | -> Prometheus text; also at GET /metrics  |
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from holdfast.errors import OperationFault
from holdfast.hq.alerts import AlertBook
from holdfast.hq.audit import head_of
from holdfast.hq.brain_view import FleetView
from holdfast.hq.parts import Parts
from holdfast.hq.verbs import EVERYBODY, READERS, RUNNERS, Asked, Done, Verb
from holdfast.logic.audit import AUDIT_HEAD
from holdfast.logic.fleet.alarm import whose
from holdfast.logic.fleet.alerts import Concerns, Kind, Severity
from holdfast.wire.codec import Message


class AlertItem(Message):
    """An open alert. `id` acknowledges it; `step` says what to do. Times are Unix seconds."""

    id: str
    kind: Kind
    subject: str
    severity: Severity
    concerns: Concerns
    owner: str
    whose: str
    """Both in words."""
    what: str
    step: str
    began_at: float
    acknowledged_by: str
    acknowledged_at: float


class AlertItems(Message):
    items: tuple[AlertItem, ...]


class Acknowledgement(Message):
    """The alert's id."""

    id: str


class WatchVerbs:
    """The handlers. `view` is the fleet as it was last seen, also while another HQ leads."""

    def __init__(self, parts: Parts, view: Callable[[], FleetView]) -> None:
        self._parts = parts
        self._view = view

    def verbs(self) -> tuple[Verb, ...]:
        """The rows of these verbs; the other admin verbs are beside them."""
        return (
            Verb("GET", "/alerts", READERS, self.alerts),
            Verb("POST", "/alerts/acknowledge", RUNNERS, self.acknowledge, Acknowledgement),
            Verb("GET", "/metrics", EVERYBODY, self.metrics),
        )

    def _book(self) -> AlertBook:
        if self._parts.alerts is None:
            raise OperationFault("this headquarters does not lead; ask another one")
        return self._parts.alerts

    async def alerts(self, _asked: Asked, _body: Any) -> AlertItems:
        """What calls for a person just now."""
        return alert_items(self._book())

    async def acknowledge(self, asked: Asked, body: Acknowledgement) -> Done:
        """Say that somebody has seen an alert."""
        row = await self._book().acknowledge(body.id, asked.author)
        await self._parts.audit.line("alert.acknowledged", row.id, author=asked.author)
        return Done(row.id)

    async def metrics(self, _asked: Asked, _body: Any) -> Response:
        """Figures for Prometheus."""
        from holdfast.hq.metrics import CONTENT_TYPE, Figures, exposition  # slow to load

        parts = self._parts
        row, keeper = parts.checkpoints.cosigned, parts.keeper
        figures = Figures(
            leading=parts.brain is not None,
            term=parts.desired.term,
            view=self._view(),
            alerts=parts.alerts.rows() if parts.alerts is not None else (),
            intermediate_expires_at=parts.authority.expires_at,
            audit_sequence=head_of(await parts.store.get(AUDIT_HEAD)).sequence,
            log_size=len(parts.log.tree),
            cosigned_size=row.size if row is not None else 0,
            nodes=len(parts.desired.active()),
            snapshots={k.shelf: k.at for k in keeper.kept.values()} if keeper is not None else {},
        )
        return Response(await asyncio.to_thread(exposition, figures), media_type=CONTENT_TYPE)


def alert_items(book: AlertBook) -> AlertItems:
    """What is open, as the port shows it."""
    return AlertItems(
        tuple(
            AlertItem(
                id=row.id,
                kind=row.kind,
                subject=row.subject,
                severity=row.severity,
                concerns=row.concerns,
                owner=row.owner,
                whose=whose(row),
                what=row.what,
                step=row.step,
                began_at=row.began_at,
                acknowledged_by=row.acknowledged_by,
                acknowledged_at=row.acknowledged_at,
            )
            for row in book.rows()
        )
    )
