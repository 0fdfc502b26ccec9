"""When an entry or a core that drains may go (seed 000: nothing else breaks when somebody leaves).

An entry is needed while a live device may hold a subscription that names it, and then for as long
as a client takes to start anew with what it fetched and to end what it had open. A core is needed
for a while only: entries left it at once.

What is known here lasts as long as headquarters' process; one that starts again waits anew, which
errs on the safe side. Times are wall seconds, because fetches are; `scale` is how many seconds of
the limits pass in one of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.limits.access import DRAIN_S, EPOCH_AGE_S_MAX, SWITCH_REAL_S_MIN, SWITCH_S
from holdfast.logic.fleet.model import NodeId


class Drains:
    """The nodes that drain: since when, and since when nobody needs them."""

    def __init__(self, scale: float = 1.0) -> None:
        self._scale = scale
        self._switch_s = max(SWITCH_S / scale, SWITCH_REAL_S_MIN)
        self._since: dict[NodeId, float] = {}
        self._free_since: dict[NodeId, float] = {}

    def forget(self, node: NodeId) -> None:
        """It does not drain, or is gone."""
        self._since.pop(node, None)
        self._free_since.pop(node, None)

    def may_go(self, node: NodeId, fetched: Iterable[float], now: float) -> bool:
        """Whether nobody needs `node`, which drains. `fetched`: when each live device that may hold
        it last got its subscription, 0 for never; of a core none."""
        since = self._since.setdefault(node, now)
        drained_s = (now - since) * self._scale
        held = any(0 < at <= since for at in fetched)
        if drained_s < DRAIN_S or (held and drained_s < EPOCH_AGE_S_MAX):
            self._free_since.pop(node, None)
            return False
        return now - self._free_since.setdefault(node, now) >= self._switch_s
