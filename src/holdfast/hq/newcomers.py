"""Tells the leader's brain of nodes that joined or renewed, whichever HQ process admitted them."""

from __future__ import annotations

from holdfast.hq.brain import Brain
from holdfast.hq.join import node_row
from holdfast.logic.fleet.model import NodeId
from holdfast.logic.fleet.rows import NODES, NodeRow, NodeState
from holdfast.rim.clock import Clock
from holdfast.rim.control.follow import follow
from holdfast.rim.control.store import Batch, ControlStore


class Newcomers:
    """Follows node rows. A row is news when its certificate is; the rest is the brain's own ink."""

    def __init__(self, store: ControlStore, brain: Brain, clock: Clock) -> None:
        self._store = store
        self._brain = brain
        self._clock = clock
        self._serials: dict[NodeId, str] = {}
        self._revision = 0

    async def load(self) -> None:
        """Remember what the brain, which starts after this, finds by itself."""
        reply = await self._store.range(NODES)
        rows = [node_row(kv) for kv in reply.items]
        self._serials = {row.node: row.serial for row in rows}
        self._revision = reply.revision

    async def run(self) -> None:
        """Until cancelled."""
        await follow(self._store, NODES, self._revision, self._see, self._reload, self._clock)

    async def _see(self, batch: Batch) -> None:
        for event in batch.events:
            if not event.deleted:
                await self._meet(node_row(event.kv))

    async def _reload(self) -> int:
        reply = await self._store.range(NODES)
        for kv in reply.items:
            await self._meet(node_row(kv))
        return reply.revision

    async def _meet(self, row: NodeRow) -> None:
        if row.state is NodeState.ACTIVE and self._serials.get(row.node) != row.serial:
            await self._brain.joined(row)
            self._serials[row.node] = row.serial
