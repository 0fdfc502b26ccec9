"""Telling the survivors which servers do not answer, each once (seed 004 §3.1, §7.1).

The client reports and moves on: it diagnoses nothing and waits for nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from holdfast.errors import HoldfastError, PeerFault
from holdfast.fabric.session import Session
from holdfast.logic.pool.health import Report

if TYPE_CHECKING:
    from holdfast.fabric.roster import Roster


class Herald:
    """Delivers the reports that the health of a roster owes."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def tell(self, recipient: str) -> None:
        """Deliver what `recipient` is owed, in the background."""
        if recipient not in self._tasks and self._roster.health.reports_owed(recipient):
            task = asyncio.create_task(self._tell(recipient))
            self._tasks[recipient] = task
            task.add_done_callback(lambda _: self._tasks.pop(recipient, None))

    async def close(self) -> None:
        """Leave it at that."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self, recipient: str) -> None:
        key, reports = self._roster.key, self._roster.health.reports_owed(recipient)
        if key is None:
            return
        try:
            await self._roster.call(recipient, key, lambda s: self._deliver(s, reports))
        except HoldfastError:
            return

    async def _deliver(self, session: Session, reports: tuple[Report, ...]) -> None:
        for report in reports:
            region = self._roster.network.region
            try:
                await session.report(report.name, report.first_failed_at, region)
            except PeerFault:
                pass  # it does not want to hear this from us; once is enough
            self._roster.health.told([report])
