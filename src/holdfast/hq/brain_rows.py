"""The fleet's rows in the control store: load them all, write what a step changed.

Every write compares the term, so that a deposed HQ changes nothing (D25). A step that changes more
than a transaction may hold is written in pieces: any prefix of them is a state the fleet machine
can start from, because it asks everything of the rows each time (D26). Node rows have a second
author, who renews certificates: of them only what the fleet decides is written, onto what is
stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from holdfast.errors import OperationFault
from holdfast.hq.brain_ports import RecordLog
from holdfast.hq.leader import TERM, guard
from holdfast.hq.restored import last_restore
from holdfast.hq.transparency import Prepared
from holdfast.limits import TXN_OPERATIONS_MAX
from holdfast.logic.fleet.rows import (
    DEBTS,
    FREEZE,
    INTENTS,
    MOVES,
    NODES,
    PROVIDERS,
    REBALANCE,
    ROTATION,
    SERVERS,
    SLOTS,
    STANDBY,
    TURNS,
    DebtRow,
    FleetRow,
    FreezeRow,
    IntentRow,
    MoveRow,
    NodeRow,
    NodeState,
    ProviderRow,
    RebalanceRow,
    RotationRow,
    ServerRow,
    SlotRow,
    StandbyRow,
    TurnRow,
)
from holdfast.rim.control.store import (
    Compare,
    ControlStore,
    Delete,
    KeyValue,
    Operation,
    Put,
    absent,
    unchanged,
)

Change = tuple[str, FleetRow | None]
Sign = Callable[[FleetRow | None], FleetRow | None]
SHAPES: Final[dict[str, Any]] = {
    SERVERS: ServerRow,
    NODES: NodeRow,
    SLOTS: SlotRow,
    INTENTS: IntentRow,
    DEBTS: DebtRow,
    PROVIDERS: ProviderRow,
    FREEZE: FreezeRow,
    STANDBY: StandbyRow,
    MOVES: MoveRow,
    REBALANCE: RebalanceRow,
    TURNS: TurnRow,
    ROTATION: RotationRow,
}
RETRIES_MAX: Final = 32
"""How often a node may renew, or others log, under our hands before we call it a fault."""
_PIECE: Final = TXN_OPERATIONS_MAX - 8


class Deposed(OperationFault):
    """Another HQ leads with a newer term; this one must stop deciding."""

    def __init__(self) -> None:
        super().__init__("another headquarters leads now; ask it", retryable=True)


class Rows:
    """The store as the brain sees it. `term` is the term it loaded under; `log`, where there is
    one, gets a leaf for every slot record that is written."""

    def __init__(self, store: ControlStore, log: RecordLog | None = None) -> None:
        self._store = store
        self._log = log
        self._guard: Compare = absent(TERM)
        self.term = 0
        self.epoch = 0
        """How often headquarters was restored (D3)."""
        self._loaded = False

    async def load(self) -> list[FleetRow]:
        """All rows of the fleet. Raises OperationFault; Deposed when the term is not the one of
        the first load: a brain lives and dies with its term."""
        kv = await self._store.get(TERM)
        term = int(kv.value) if kv else 0
        if self._loaded and term != self.term:
            raise Deposed
        self.term, self._loaded = term, True
        self.epoch = (await last_restore(self._store)).epoch
        self._guard = guard(self.term) if kv else absent(TERM)
        rows: list[FleetRow] = []
        for prefix, shape in SHAPES.items():
            reply = await self._store.range(prefix)
            rows += [decode(item, shape) for item in reply.items]
        return rows

    async def save(self, changes: Sequence[Change], sign: Sign = lambda row: row) -> None:
        """Write the changes of one step or more, as they came about: each prefix of what is
        written was the truth once. `sign` finishes a row. Raises Deposed, OperationFault."""
        for piece in _pieces(changes):
            await self._write([(key, sign(row)) for key, row in piece])

    async def _write(self, piece: Sequence[Change]) -> None:
        for _ in range(RETRIES_MAX):
            compares = [self._guard]
            operations: list[Operation] = []
            for key, row in piece:
                if isinstance(row, NodeRow):
                    kv = await self._store.get(key)
                    compares.append(unchanged(key, kv))
                    row = merge(decode(kv, NodeRow), row) if kv else row
                operations.append(Delete(key) if row is None else Put(key, _encode(row)))
            leaves = await self._leaves(piece)
            if leaves is not None:
                compares += leaves.compares
                operations += leaves.puts
            if (await self._store.txn(compares, operations)).succeeded:
                if leaves is not None and self._log is not None:
                    self._log.took(leaves)
                return
            if not (await self._store.txn([self._guard], [])).succeeded:
                raise Deposed
        raise OperationFault("node rows or the log keep changing under the fleet's hands")

    async def _leaves(self, piece: Sequence[Change]) -> Prepared | None:
        """What logs the records of a piece together with their rows."""
        staples = [row.staple for _, row in piece if isinstance(row, SlotRow) and row.staple]
        return await self._log.prepare(staples) if self._log is not None and staples else None


def merge(stored: NodeRow, decided: NodeRow) -> NodeRow:
    """What the fleet decides of a node, on what is stored. REVOKED is for ever."""
    revoked = NodeState.REVOKED in (stored.state, decided.state)
    return msgspec.structs.replace(
        stored,
        state=NodeState.REVOKED if revoked else decided.state,
        addresses=decided.addresses,
        reaped_at=max(stored.reaped_at, decided.reaped_at),
    )


def decode(kv: KeyValue, shape: type[Any]) -> Any:
    """A stored row. A row that does not decode is damage: OperationFault, not retryable."""
    try:
        return msgspec.msgpack.decode(kv.value, type=shape)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise OperationFault(f"row {kv.key} is damaged: {error}", retryable=False) from error


def _encode(row: FleetRow) -> bytes:
    return msgspec.msgpack.encode(row)


def _pieces(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    """What fits into a transaction each, in order; of a key that changes twice in one of them, the
    last row. A slot row may bring a leaf; room is left for the compares of the term and the log's
    head."""
    piece: dict[str, FleetRow | None] = {}
    size = 0
    for key, row in changes:
        weight = 0 if key in piece else 2 if isinstance(row, SlotRow) else 1
        if size + weight > _PIECE:
            yield tuple(piece.items())
            piece, size = {}, 0
        piece[key] = row
        size += weight
    if piece:
        yield tuple(piece.items())
