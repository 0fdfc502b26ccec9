"""The fleet as HQ holds it in memory: rows, indexes over them, and what changed in this step.

Every machine of the fleet reads and writes rows here and nowhere else. `put` and `drop` keep the
indexes right and remember the change; the step ends by taking the changes as its `persist`.
Nothing here that a restart must keep lives outside the rows.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.logic.fleet.model import STORES, NetworkId, NodeId, Role, Seat, SlotId, Tier
from holdfast.logic.fleet.pace import Pace, pace
from holdfast.logic.fleet.rows import (
    FREEZE,
    DebtRow,
    FleetRow,
    FreezeRow,
    IntentRow,
    IntentState,
    MoveRow,
    NodeRow,
    NodeState,
    PlanRow,
    ProviderRow,
    RebalanceRow,
    RotationRow,
    ServerRow,
    ServerState,
    SlotRow,
    StandbyRow,
    TurnRow,
    key_of,
)

DOWN = frozenset({Tier.RED, Tier.BLACK})
OPEN = frozenset({IntentState.WRITTEN, IntentState.ORDERED, IntentState.JOINED})


class FleetState:
    """Rows by name, with the indexes the machines need. `term` and `epoch` mark what it writes."""

    def __init__(
        self, network: NetworkId, *, scale: float = 1.0, term: int = 0, epoch: int = 0
    ) -> None:
        self.network = network
        self.pace: Pace = pace(scale)
        self.term = term
        self.epoch = epoch
        self.servers: dict[str, ServerRow] = {}
        self.nodes: dict[NodeId, NodeRow] = {}
        self.slots: dict[SlotId, SlotRow] = {}
        self.intents: dict[str, IntentRow] = {}
        self.debts: dict[tuple[SlotId, str], DebtRow] = {}
        self.providers: dict[str, ProviderRow] = {}
        self.listens_from = 0.0
        """Unix seconds: when HQ began to hear the fleet. It started, or was cut off until then."""
        self.freeze: FreezeRow | None = None
        self.standby = StandbyRow(0)
        self.moves: dict[SlotId, MoveRow] = {}
        """Slots with a seat that is being filled elsewhere."""
        self.rebalance: RebalanceRow | None = None
        self.turns: dict[str, TurnRow] = {}
        self.rotation: RotationRow | None = None
        self.name_of: dict[NodeId, str] = {}
        """Seated node -> logical name."""
        self.slots_of: dict[str, dict[SlotId, None]] = {}
        """Logical name -> its slots, in the order in which they were made."""
        self.nodes_of: dict[str, set[NodeId]] = {}
        self.node_on: dict[str, NodeId] = {}
        """A machine's name at its provider -> the node that joined from it."""
        self.servers_at: dict[str, set[str]] = {}
        """Provider -> logical names."""
        self.spawn_of: dict[str, str] = {}
        """Logical name -> its open spawn intent; a name has one at most."""
        self.open: dict[str, None] = {}
        """Ids of all open intents, oldest first."""
        self.debts_of: dict[str, set[SlotId]] = {}
        self.storing: set[str] = set()
        """Names of relays and replicas that a node sits on."""
        self.down: set[str] = set()
        """Names of servers that are RED or BLACK."""
        self.doubted: set[str] = set()
        """Names of servers that are YELLOW or ORANGE."""
        self.needy: set[str] = set()
        """Names of servers that have no node, are down, leaving or draining."""
        self.unreachable: set[str] = set()
        """Providers whose cloud API has not answered lately; soft, from surveys."""
        self._peers: dict[str, frozenset[str]] = {}
        self._changes: dict[str, FleetRow | None] = {}

    def load(self, rows: Iterable[FleetRow]) -> None:
        """Take rows as they are stored; nothing counts as changed."""
        for row in rows:
            self.put(row)
        self._changes.clear()

    def take_changes(self) -> tuple[tuple[str, FleetRow | None], ...]:
        """Key and new row (None: deleted) of everything changed since the last call."""
        changes = tuple(self._changes.items())
        self._changes.clear()
        return changes

    def learn(self, row: NodeRow) -> None:
        """Take a node row that somebody else has made durable."""
        self.put(row)
        self._changes.pop(key_of(row), None)

    # --- Writing ---------------------------------------------------------------------------------
    def put(self, row: FleetRow) -> None:
        """Add or replace a row. An equal row is no change."""
        match row:
            case ServerRow():
                changed = self._put_server(row)
            case NodeRow():
                changed = self.nodes.get(row.node) != row
                self.nodes[row.node] = row
                self.nodes_of.setdefault(row.name, set()).add(row.node)
                if row.intent:
                    self.node_on[row.intent] = row.node
            case SlotRow():
                changed = self._put_slot(row)
            case IntentRow():
                changed = self._put_intent(row)
            case DebtRow():
                changed = self.debts.get((row.slot, row.name)) != row
                self.debts[row.slot, row.name] = row
                self.debts_of.setdefault(row.name, set()).add(row.slot)
            case ProviderRow():
                changed = self.providers.get(row.name) != row
                self.providers[row.name] = row
            case FreezeRow():
                changed = self.freeze != row
                self.freeze = row
            case StandbyRow():
                changed = self.standby != row
                self.standby = row
            case MoveRow() | RebalanceRow() | TurnRow() | RotationRow():
                changed = self._put_plan(row)
        if changed:
            self._changes[key_of(row)] = row

    def drop_intent(self, intent: IntentRow) -> None:
        """Forget a finished intent."""
        assert intent.state not in OPEN, "an open intent is a promise"
        del self.intents[intent.id]
        self._changes[key_of(intent)] = None

    def drop_debt(self, debt: DebtRow) -> None:
        """A debt is repaid."""
        del self.debts[debt.slot, debt.name]
        self.debts_of[debt.name].discard(debt.slot)
        if not self.debts_of[debt.name]:
            del self.debts_of[debt.name]
        self._changes[key_of(debt)] = None

    def drop_freeze(self) -> None:
        """HQ trusts itself again."""
        self.freeze = None
        self._changes[FREEZE] = None

    def drop_plan(self, row: PlanRow) -> None:
        """What was asked for is done, or not wanted any more."""
        match row:
            case MoveRow():
                del self.moves[row.slot]
            case RebalanceRow():
                self.rebalance = None
            case TurnRow():
                del self.turns[row.name]
            case RotationRow():
                self.rotation = None
        self._changes[key_of(row)] = None

    def signed(self, row: SlotRow) -> None:
        """Take a slot row that only gained its staple; the driver persists it in this form."""
        assert row.staple, "an unsigned record is not signed"
        self.slots[row.slot] = row

    def _put_plan(self, row: PlanRow) -> bool:
        match row:
            case MoveRow():
                changed = self.moves.get(row.slot) != row
                self.moves[row.slot] = row
            case RebalanceRow():
                changed = self.rebalance != row
                self.rebalance = row
            case TurnRow():
                changed = self.turns.get(row.name) != row
                self.turns[row.name] = row
            case RotationRow():
                changed = self.rotation != row
                self.rotation = row
        return changed

    def _put_server(self, row: ServerRow) -> bool:
        old = self.servers.get(row.name)
        if old == row:
            return False
        if old is not None:
            self.name_of.pop(old.node, None)
            self.servers_at[old.provider].discard(row.name)
        self.servers[row.name] = row
        self.servers_at.setdefault(row.provider, set()).add(row.name)
        if row.node:
            self.name_of[row.node] = row.name
        self.storing.discard(row.name)
        if row.node and row.role in STORES and row.state is ServerState.ACTIVE:
            self.storing.add(row.name)
        self.down.discard(row.name)
        self.doubted.discard(row.name)
        self.needy.discard(row.name)
        if row.state is not ServerState.RETIRED and (
            not row.node or row.tier in DOWN or row.draining or row.leaving
        ):
            self.needy.add(row.name)
        if row.tier in DOWN:
            self.down.add(row.name)
        elif row.tier is not Tier.GREEN:
            self.doubted.add(row.name)
        return True

    def _put_slot(self, row: SlotRow) -> bool:
        old = self.slots.get(row.slot)
        if old == row:
            return False
        self.slots[row.slot] = row
        if old is None or (old.relays, old.replicas) != (row.relays, row.replicas):
            for name in old.relays + old.replicas if old else ():
                self.slots_of[name].pop(row.slot, None)
                self._peers.pop(name, None)
            for name in row.relays + row.replicas:
                self.slots_of.setdefault(name, {})[row.slot] = None
                self._peers.pop(name, None)
        return True

    def _put_intent(self, row: IntentRow) -> bool:
        old = self.intents.get(row.id)
        if old == row:
            return False
        self.intents[row.id] = row
        if row.state in OPEN:
            self.open[row.id] = None
        else:
            self.open.pop(row.id, None)
        if old is not None and self.spawn_of.get(old.name) == row.id:
            del self.spawn_of[old.name]
        if row.action == "spawn" and row.state in OPEN:
            assert row.name not in self.spawn_of, "one spawn for each name"
            self.spawn_of[row.name] = row.id
        return True

    # --- Reading ---------------------------------------------------------------------------------
    def peers(self, name: str) -> frozenset[str]:
        """Names that share a slot with `name`, without itself."""
        known = self._peers.get(name)
        if known is None:
            found: set[str] = set()
            for slot in self.slots_of.get(name, ()):
                row = self.slots[slot]
                found.update(row.relays, row.replicas)
            found.discard(name)
            known = self._peers[name] = frozenset(found)
        return known

    def group(self, slot: SlotRow, role: Role) -> tuple[str, ...]:
        """The names of a slot in one role."""
        return slot.relays if role is Role.RELAY else slot.replicas

    def is_up(self, provider: str) -> bool:
        """Whether HQ may order from `provider`."""
        row = self.providers.get(provider)
        return row is not None and row.state == "up"

    def is_member(self, node: NodeId) -> bool:
        """Whether `node` is neither retired nor revoked."""
        row = self.nodes.get(node)
        return row is not None and row.state is NodeState.ACTIVE

    def is_filled(self, server: ServerRow) -> bool:
        """Whether it lacks nothing: a server without slots has nothing to be filled with, and says
        that it is not."""
        return server.filled or (server.role in STORES and not self.slots_of.get(server.name))

    def is_leaving(self, node: NodeId) -> bool:
        """Whether a seat that `node` had is still being filled elsewhere."""
        return any(move.former_node == node for move in self.moves.values())

    def active(self) -> list[ServerRow]:
        """Servers that have a node."""
        return [row for row in self.servers.values() if row.state is ServerState.ACTIVE]


def seat(server: ServerRow) -> Seat:
    """The seat as a slot record would name it now."""
    return Seat(
        name=server.name,
        node=server.node,
        addresses=server.addresses,
        provider=server.provider,
        owner=server.owner,
        region=server.region,
    )
