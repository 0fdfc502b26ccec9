"""From a joined node to a seat, and from the seat to DNS (seed 004 §2.3, §4.3).

A node that joins on an open spawn intent takes the seat at once when nobody serves there. When
the present node still serves (a debt is being repaid, a server drained), or may serve again for all
that HQ knows since its restart, it waits until clients would follow the change (D4), and is given
up if it falls silent meanwhile. A node without an
intent is somebody's own machine: it takes the name its token gave it, unless somebody serves there.
Everything else that joins is surplus and retired.

Whoever sits in a seat, DNS is told until DNS agrees: `points` maps a name to when it is told next.
"""

from __future__ import annotations

import msgspec

from holdfast.crypto.pure import base32
from holdfast.limits import SPAWN_TRIES_MAX
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.events import Point
from holdfast.logic.fleet.healing import Healing
from holdfast.logic.fleet.liveness import Heartbeats
from holdfast.logic.fleet.model import NodeId, Tier
from holdfast.logic.fleet.rows import (
    IntentRow,
    IntentState,
    NodeRow,
    NodeState,
    ServerRow,
    ServerState,
)
from holdfast.logic.fleet.slots import Slots
from holdfast.logic.fleet.state import DOWN, FleetState
from holdfast.logic.fleet.tiers import Tiers


class Seating:
    """The machine between joining and serving. `founding` collects regions with a new server."""

    def __init__(
        self,
        state: FleetState,
        liveness: Heartbeats,
        tiers: Tiers,
        healing: Healing,
        slots: Slots,
    ) -> None:
        self._state = state
        self._liveness = liveness
        self._tiers = tiers
        self._healing = healing
        self._slots = slots
        self._guests: dict[NodeId, float] = {}  # joined, not yet seated -> last heard
        self._moved_at: dict[str, float] = {}
        self._points: dict[str, float] = {}
        self._point_failures: dict[str, int] = {}
        self._previous: dict[str, NodeId] = {}
        self.founding: set[str] = set()

    # --- Joining ---------------------------------------------------------------------------------
    def is_new(self, row: NodeRow) -> bool:
        """Whether a node found at start joined without the fleet having heard of it."""
        if row.state is not NodeState.ACTIVE or row.node in self._state.name_of:
            return False
        server = self._state.servers.get(row.name)
        return server is None or row.joined_at > server.seated_at

    def joined(self, row: NodeRow, now: float) -> list[Audit]:
        """Take a node that has its certificate. Repeating it changes nothing."""
        state = self._state
        known = state.nodes.get(row.node)
        if known is not None and known.state is not NodeState.ACTIVE:
            return []
        state.learn(row)
        if row.node in state.name_of:
            return self.moved(row.name, row.addresses, now)
        if known is not None and not self.is_new(row):
            return []  # a former node renewed its certificate; its seat is taken
        intent = state.intents.get(row.intent)
        if intent is None and not row.intent:
            return self._volunteered(row, now)
        if intent is not None and intent.name == row.name:
            if intent.state in (IntentState.WRITTEN, IntentState.ORDERED):
                self._healing.joined(intent, row.node)
                return [_joined(row, intent)]
            if intent.node == row.node and intent.state is IntentState.JOINED:
                return []
            if intent.node == row.node and intent.state is IntentState.DONE:
                return self._seat(row, intent, now)
        return self._healing.retire(row, "surplus")

    def _volunteered(self, row: NodeRow, now: float) -> list[Audit]:
        server = self._state.servers.get(row.name)
        if server is not None and server.node and server.tier not in DOWN:
            return self._healing.retire(row, "surplus")
        audit = [_joined(row, None)]
        spawn = self._healing.spawn(row.name)
        if spawn is not None:
            audit += self._healing.fail(spawn, "another node took the seat", now, blame=False)
        return audit + self._seat(row, None, now)

    def heard(self, node: NodeId, now: float) -> None:
        """A node without a seat gave a sign of life."""
        if node in self._guests:
            self._guests[node] = now

    def try_seat(self, intent: IntentRow, now: float) -> list[Audit]:
        """Give the seat to the node that joined on `intent`, if it may have it now."""
        assert intent.state is IntentState.JOINED
        server, row = self._state.servers[intent.name], self._state.nodes[intent.node]
        if row.state is not NodeState.ACTIVE:
            return self._healing.fail(intent, "the newcomer was shut out", now, blame=False)
        hearsay = self._tiers.is_hearsay(server.name, now)
        serves = bool(server.node) and (hearsay or server.tier not in DOWN)
        if serves and (hearsay or not self._slots.may_change(server.name, now)):
            heard_at = max(self._guests.setdefault(row.node, now), self._state.listens_from)
            if now - heard_at <= self._state.pace.silent_s:
                return []
            del self._guests[row.node]
            return self._healing.fail(intent, "the newcomer fell silent", now)
        self._guests.pop(row.node, None)
        return self._seat(row, intent, now)

    # --- Seats -----------------------------------------------------------------------------------
    def _seat(self, row: NodeRow, intent: IntentRow | None, now: float) -> list[Audit]:
        name, old = row.name, self._state.servers.get(row.name)
        if intent is not None:
            self._healing.seated(intent, now)
        server = ServerRow(
            name=name,
            role=row.role,
            region=row.region,
            provider=row.provider,
            owner=row.owner,
            state=ServerState.ACTIVE,
            node=row.node,
            addresses=row.addresses,
            seated_at=now,
            tier_at=now,
        )
        self._state.put(server)
        self._tiers.forget(name)
        self._liveness.expect(name, now)
        self._slots.touch(name)
        self._previous[name] = old.node if old else b""
        self.point(name)
        self.founding.add(row.region)
        audit = [_seated(server, old, intent, now)]
        if old is not None and old.node and old.tier in DOWN and self._state.is_member(old.node):
            audit += self._healing.retire(self._state.nodes[old.node], "dead")
        debt = self._slots.debts_of_slots(name, now)
        return audit + ([debt] if debt else [])

    def moved(self, name: str, addresses: tuple[str, ...], now: float) -> list[Audit]:
        """The same node answers at other addresses. A second move too soon after the first is
        taken up by a later heartbeat."""
        server = self._state.servers[name]
        if not addresses or addresses == server.addresses:
            return []
        if now - self._moved_at.get(name, float("-inf")) < self._state.pace.address_change_s:
            return []
        self._moved_at[name] = now
        self._state.put(msgspec.structs.replace(server, addresses=addresses))
        node = self._state.nodes.get(server.node)
        if node is not None:
            self._state.put(msgspec.structs.replace(node, addresses=addresses))
        self._slots.touch(name)
        self._previous[name] = server.node
        self.point(name)
        return [Audit("server.moved", name, {"addresses": list(addresses)})]

    # --- DNS -------------------------------------------------------------------------------------
    def point(self, name: str) -> None:
        """Tell DNS where `name` is, until it agrees."""
        self._points[name] = 0.0
        self._point_failures.pop(name, None)

    def points(self, now: float) -> list[Point]:
        """What to tell DNS now."""
        due = [name for name, at in self._points.items() if at <= now]
        send = []
        for name in due:
            server = self._state.servers[name]
            self._points[name] = now + self._state.pace.spawn_retry_s_max
            previous = self._previous.get(name, b"")
            send.append(Point(name, server.addresses, server.node, previous))
        return send

    def pointed(self, name: str, node: NodeId) -> list[Audit]:
        """DNS agrees."""
        if self._state.servers[name].node != node:
            return []
        self._points.pop(name, None)
        self._previous.pop(name, None)
        return [Audit("dns.pointed", name, {"node": base32(node)})]

    def point_failed(self, name: str, error: str, now: float) -> list[Audit]:
        """It does not. After a few tries what it said before no longer matters."""
        failures = self._point_failures[name] = self._point_failures.get(name, 0) + 1
        if failures >= SPAWN_TRIES_MAX:
            self._previous.pop(name, None)
        pace = self._state.pace
        wait_s = min(pace.spawn_retry_s * failures, pace.spawn_retry_s_max)
        self._points[name] = now + wait_s
        return [Audit("dns.refused", name, {"error": error})]


def _joined(row: NodeRow, intent: IntentRow | None) -> Audit:
    detail = {
        "node": base32(row.node),
        "intent": intent.id if intent else "",
        "provider": row.provider,
        "owner": row.owner,
    }
    return Audit("node.joined", row.name, detail)


def _seated(
    server: ServerRow, old: ServerRow | None, intent: IntentRow | None, now: float
) -> Audit:
    """The line §4.3 asks for: who died, for how long, who took over, where."""
    failed_at = old.first_failed_at if old else 0.0
    detail = {
        "node": base32(server.node),
        "replaces": base32(old.node) if old and old.node else "",
        "reason": intent.reason if intent else "volunteer",
        "provider": server.provider,
        "former_provider": old.provider if old and old.node else "",
        "region": server.region,
        "failed_s": round(now - failed_at, 3) if failed_at else 0.0,
        "was": (old.tier if old else Tier.GREEN).value,
    }
    return Audit("server.seated", server.name, detail)
