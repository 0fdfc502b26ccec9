"""HQ's view as a page: what the brain shows, in the page's words.

The brain gives the same view object until something changes; so long, the page stays the same but
for its time, and costs nothing to make again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec

from holdfast.hq.brain_view import FleetView, ServerView
from holdfast.logic.fleet.alarm import AlertRow, whose
from holdfast.logic.fleet.rows import FreezeRow, IntentRow, ServerState
from holdfast.rim.clock import Clock
from holdfast.web.model import (
    AlertLine,
    DebtLine,
    FleetPage,
    ProviderLine,
    ServerTile,
    SlotLine,
    SpawnTile,
)
from holdfast.web.words import count, listing

NODE_LETTERS: Final = 8
"""Of a node id, as the timeline shows it too."""


class FleetSource(Protocol):
    """Whoever knows the fleet: HQ's brain."""

    def view(self) -> FleetView:
        """The fleet now."""
        ...

    def changes(self) -> AsyncIterator[int]:
        """A number after each change."""
        ...


class FleetPages:
    """Pages of a `FleetSource`, for a `Board`."""

    def __init__(
        self,
        source: FleetSource,
        clock: Clock,
        alerts: Callable[[], Sequence[AlertRow]] = tuple,
    ) -> None:
        """`alerts` gives what calls for a person, as it should be read."""
        self._source = source
        self._alerts = alerts
        self._clock = clock
        self._view: FleetView | None = None
        self._page = FleetPage(0.0)

    def page(self) -> FleetPage:
        """The fleet now."""
        view = self._source.view()
        if view is not self._view:
            self._page = page_of(view, self._view, self._page.slots)
            self._view = view
        alerts = tuple(map(_alert, self._alerts()))
        return msgspec.structs.replace(self._page, at=self._clock.wall(), alerts=alerts)

    def changes(self) -> AsyncIterator[int]:
        """As the source has them."""
        return self._source.changes()


def page_of(
    view: FleetView, before: FleetView | None = None, slots: tuple[SlotLine, ...] = ()
) -> FleetPage:
    """The page that shows `view`; where `before` had the same slots, they are shown as `slots`."""
    if before is None or before.slots is not view.slots:
        lines = (SlotLine(s.slot, s.region, s.relays, s.replicas, s.groups) for s in view.slots)
        slots = tuple(lines)
    return FleetPage(
        at=view.at,
        network=view.domain,
        servers=tuple(map(_server, view.servers)),
        spawns=tuple(_spawns(view)),
        providers=tuple(ProviderLine(p.name, p.lost_at) for p in view.providers),
        slots=slots,
        debts=tuple(DebtLine(d.slot.hex(), d.name, d.provider, d.since) for d in view.debts),
        frozen=view.freeze is not None,
        frozen_reason=_frozen(view.freeze),
        timeline=view.timeline,
        scale=view.scale,
    )


def _server(view: ServerView) -> ServerTile:
    return ServerTile(
        name=view.name,
        role=view.role,
        region=view.region,
        provider=view.provider,
        owner=view.owner,
        state=view.state,
        tier=view.tier,
        first_failed_at=view.first_failed_at,
        node=view.node[:NODE_LETTERS],
        address=next(iter(view.addresses), ""),
        sessions=view.load.sessions,
        stored_bytes=view.load.stored_bytes,
        filled=view.filled,
        silent=view.silent,
        draining=view.draining,
        full=not view.load.writable,
        proofs=view.proofs,
    )


def _spawns(view: FleetView) -> Iterable[SpawnTile]:
    """Machines on their way to a seat that somebody holds; a first one is the seat's own tile."""
    first = {server.name for server in view.servers if server.state is not ServerState.ACTIVE}
    for intent in view.intents:
        if intent.action == "spawn" and intent.name not in first:
            yield _spawn(intent)


def _spawn(intent: IntentRow) -> SpawnTile:
    return SpawnTile(
        id=intent.id,
        name=intent.name,
        role=intent.role,
        region=intent.region,
        provider=intent.provider,
        state=intent.state,
        reason=intent.reason,
    )


def _frozen(freeze: FreezeRow | None) -> str:
    if freeze is None:
        return ""
    where = listing(sorted(freeze.providers))
    dead = f"{freeze.dead:,} of {count(freeze.fleet, 'server')}"
    return f"{dead} on {where} seem dead at once, so HQ suspects itself"


def _alert(row: AlertRow) -> AlertLine:
    return AlertLine(
        id=row.id,
        severity=row.severity.value,
        subject=row.subject,
        what=row.what,
        step=row.step,
        whose=whose(row),
        began_at=row.began_at,
        acknowledged_by=row.acknowledged_by,
    )
