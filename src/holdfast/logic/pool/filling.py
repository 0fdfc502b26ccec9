"""Whether a server holds what its slot holds (D11, D13).

Since it took its seat in a slot, a server compares with every peer in turn. It is *filled* once it
has held everything that two of the peers it can reach hold; one, when only one is left. A replica
asks replicas: relays have forgotten the old days. Filled stays filled for as long as the seat does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from holdfast.logic.fleet.model import NodeId, Role

FILLED_BY: Final = 2


class Filling:
    """Of one slot, since this server sits in it."""

    def __init__(self) -> None:
        self._done: set[NodeId] = set()
        self._reachable: set[NodeId] = set()
        self.filled = False

    def unreachable(self, node: NodeId) -> None:
        """A peer did not answer, or is excluded."""
        self._reachable.discard(node)

    def compared(self, node: NodeId, *, whole: bool) -> None:
        """A peer answered; `whole`: we hold all that it holds."""
        self._reachable.add(node)
        if whole:
            self._done.add(node)

    def settle(self, role: Role, peers: Sequence[tuple[NodeId, Role]]) -> bool:
        """Look again, with the peers that the slot has now: whether this server is filled."""
        self.filled = self.filled or self._is_filled(role, dict(peers))
        return self.filled

    def _is_filled(self, role: Role, peers: dict[NodeId, Role]) -> bool:
        if not peers:
            return True
        reachable = self._reachable & peers.keys()
        if role is Role.REPLICA:
            kin = {node for node in reachable if peers[node] is Role.REPLICA}
            reachable = kin or reachable
        return bool(reachable) and len(self._done & reachable) >= min(FILLED_BY, len(reachable))
