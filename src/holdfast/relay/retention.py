"""When a relay forgets (D11, D13). A replica never does in version 1 (D20).

A born day older than the TTL goes when, for every slot that has anything of it, a replica was seen
to hold all of it. Past a hard cap it goes regardless, and that is said aloud: a relay that kept
everything would fill up, and a relay that forgot silently would break what "stored" means.
"""

from __future__ import annotations

import logging

from holdfast.logic.fleet.model import Role
from holdfast.relay.desk import Desk
from holdfast.relay.reconcile import Reconciler

_log = logging.getLogger("holdfast.relay.retention")


class Retention:
    """Drops what may be dropped; called after each round of reconciling."""

    def __init__(self, desk: Desk, reconciler: Reconciler) -> None:
        self._desk = desk
        self._reconciler = reconciler

    async def sweep(self) -> None:
        """Drop every day that is due. Raises OperationFault when the disk fails."""
        if self._desk.role is not Role.RELAY:
            return
        today, policy = self._desk.today(), self._desk.policy
        for born in self._desk.store.born_days():
            age_days = today - born
            if age_days <= policy.ttl_days:
                continue
            confirmed = self._confirmed(born)
            if not confirmed and age_days <= policy.ttl_days_hard:
                continue
            dropped = await self._desk.store.drop_day(born)
            self._reconciler.forget_day(born)
            if confirmed:
                self._desk.counts["days_expired"] += 1
                _log.info("day %d expired: %d blobs", born, dropped)
            else:
                self._desk.counts["days_dropped_unconfirmed"] += 1
                _log.error("day %d dropped at the hard cap, no replica confirmed it", born)

    def _confirmed(self, born: int) -> bool:
        return all(
            self._reconciler.confirmed(slot, day)
            for slot in self._desk.store.slots_of(born)
            for day in self._desk.store.days(slot)
            if day.born == born
        )
