"""What HQ writes down: one row per control-store key (D25-D27).

| key                       | row            |
|---------------------------|----------------|
| /fleet/servers/<name>     | ServerRow      |
| /fleet/nodes/<node id>    | NodeRow        |
| /fleet/slots/<slot hex>   | SlotRow        |
| /fleet/intents/<id>       | IntentRow      |
| /fleet/debts/<slot>/<name>| DebtRow        |
| /fleet/providers/<name>   | ProviderRow    |
| /fleet/freeze             | FreezeRow      |
| /fleet/standby            | StandbyRow     |
| /fleet/moves/<slot hex>   | MoveRow        |
| /fleet/rebalance          | RebalanceRow   |
| /fleet/turns/<name>       | TurnRow        |
| /fleet/rotation           | RotationRow    |
| /trust/tokens/<hash hex>  | TokenRow       |
| /trust/certificates/<serial> | CertificateRow |
| /trust/keys/<SPKI hash hex> | serial of the one certificate this TLS key got |
| /trust/spawns/<intent id> | key of the token that is good for the spawn |
| /trust/applications/<id>  | ApplicationRow |
| /trust/revocations        | the newest Staple of Revocations |
| /audit/<sequence, 16 digits> | AuditRow    |
| /audit-head               | logic.audit.Head |
| /log/<index, 16 digits>   | leaf of the transparency log |
| /log-head                 | how many leaves |
| /dns/<name>               | rim.dns.records.Entry |
| /credentials/<provider>   | logic.trust.credentials.CredentialRow |
| /hq/leader                | lease-bound    |
| /hq/term                  | decimal        |
| /hq/restored              | hq.restored.Restored |
| /continuity/slot          | hex of the slot that keeps snapshots |

Heartbeats and loads are soft state and are never written; only transitions are, with the time of
the first failure, so that timers survive a failover (D27). Times are Unix seconds. `key_of` gives
a fleet row's key: node ids in base32, slots in hex.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from holdfast.crypto.pure import base32
from holdfast.logic.fleet.model import NodeId, Role, Seat, SlotId, Tier, Version


class ServerState(StrEnum):
    """A logical server: planned (no machine yet), spawning, active, or retired for good."""

    PLANNED = "planned"
    SPAWNING = "spawning"
    ACTIVE = "active"
    RETIRED = "retired"


class ServerRow(msgspec.Struct, frozen=True):
    """A logical server and the node that serves it now (`node` empty before the first join)."""

    name: str
    role: Role
    region: str
    provider: str
    owner: str
    state: ServerState = ServerState.PLANNED
    node: NodeId = b""
    addresses: tuple[str, ...] = ()
    tier: Tier = Tier.GREEN
    first_failed_at: float = 0.0
    seated_at: float = 0.0
    filled: bool = False
    tier_at: float = 0.0
    """When the tier last changed."""
    draining: bool = False
    """No new groups: it is leaving, or answers and is no use (D28, §6.3)."""
    leaving: bool = False
    """Its node asked to go: it serves on until somebody has taken the seat."""


class NodeState(StrEnum):
    """A node id is active, retired (superseded, may be reaped) or revoked; never active again."""

    ACTIVE = "active"
    RETIRED = "retired"
    REVOKED = "revoked"


class NodeRow(msgspec.Struct, frozen=True):
    """One machine that once joined."""

    node: NodeId
    identity: bytes
    name: str
    role: Role
    region: str
    provider: str
    owner: str
    addresses: tuple[str, ...]
    serial: str
    cert_expires_at: int
    joined_at: float
    intent: str = ""
    state: NodeState = NodeState.ACTIVE
    reaped_at: float = 0.0
    """When the provider confirmed that the machine is gone; 0 while it may still run."""
    cell: str = ""
    """Of an entry or a core."""


class SlotRow(msgspec.Struct, frozen=True):
    """A slot by the names of its servers; `staple` is the MessagePack of the newest Staple.

    `seats` are the seats of that newest record, relays first. `changed_at` and its two parts are
    when a seat last got another node: clients follow one such change per role in ten minutes (D4).
    """

    slot: SlotId
    region: str
    version: Version
    relays: tuple[str, ...]
    replicas: tuple[str, ...]
    changed_at: float
    groups: int = 0
    staple: bytes = b""
    seats: tuple[Seat, ...] = ()
    relays_changed_at: float = 0.0
    replicas_changed_at: float = 0.0


class IntentState(StrEnum):
    """written -> ordered (the provider said yes) -> joined -> done; or failed."""

    WRITTEN = "written"
    ORDERED = "ordered"
    JOINED = "joined"
    DONE = "done"
    FAILED = "failed"


class IntentRow(msgspec.Struct, frozen=True):
    """An action HQ has decided on, written before it is begun (D25).

    `action` is spawn, standby or reap. `reason` is launch, heal, repay, rotate, drain, standby or
    returned. The provider's resource name is `id`; `replaces` is the node that loses the seat,
    `resource` the provider's name of the machine to reap. A standby has no name, and a role that
    means nothing, until a seat needs its machine: then the same intent becomes a spawn.
    """

    id: str
    term: int
    action: str
    name: str
    role: Role
    provider: str
    region: str
    reason: str
    state: IntentState
    created_at: float
    replaces: NodeId = b""
    resource: str = ""
    node: NodeId = b""
    attempts: int = 0
    error: str = ""
    owner: str = ""
    ordered_at: float = 0.0
    """When the provider accepted the order."""
    ended_at: float = 0.0
    warm: bool = False
    """A spawn whose machine stood by."""


class DebtRow(msgspec.Struct, frozen=True):
    """A seat that shares a failure domain with another seat of its slot and role (ADR 0003)."""

    slot: SlotId
    name: str
    provider: str
    since: float


class ProviderRow(msgspec.Struct, frozen=True):
    """A hosting provider HQ may order from. `state` is up or lost (BLACK)."""

    name: str
    regions: tuple[str, ...]
    state: str = "up"
    lost_at: float = 0.0
    jurisdiction: str = ""
    back_at: float = 0.0
    """When it last came back from lost; debts are repaid only after it has stayed up a while."""


class FreezeRow(msgspec.Struct, frozen=True):
    """HQ suspects itself and spawns nothing (D29). Absent while the fleet looks alive.

    `cleared` once the freeze was lifted over a fleet that still looks dead: it does not come back.
    """

    since: float
    dead: int
    fleet: int
    providers: tuple[str, ...]
    cleared: bool = False


class StandbyRow(msgspec.Struct, frozen=True):
    """How many machines stand by in every region of every provider that serves there."""

    per_place: int


class MoveRow(msgspec.Struct, frozen=True):
    """A slot's seat that went from one server to another and is being filled there (§6.2).

    While the row is there, `former_node` is told that it left the slot: it keeps its sessions and
    is read from (ADR 0017). `node` is who took the seat.
    """

    slot: SlotId
    role: Role
    former: str
    former_node: NodeId
    name: str
    node: NodeId
    began_at: float


class RebalanceRow(msgspec.Struct, frozen=True):
    """Slots are being moved until loads are even. Absent when nobody asked, or when it is done."""

    since: float
    author: str
    moves_per_min: int
    before: float
    """Fullest over mean when it began."""
    moved: int = 0


class TurnRow(msgspec.Struct, frozen=True):
    """A server whose machine shall be replaced in its turn; `node` is who sits there still."""

    name: str
    node: NodeId
    asked_at: float
    author: str
    at_once: int
    began_at: float = 0.0
    """When its node was told to go; 0 while it waits."""


class RotationRow(msgspec.Struct, frozen=True):
    """Machines older than `every_days` get their turn, `at_once` at a time (§6.3)."""

    every_days: float
    at_once: int
    author: str
    since: float


class TokenRow(msgspec.Struct, frozen=True):
    """A one-time join token, known by the BLAKE3 of its secret (D8).

    `used_by` is the BLAKE3 of the identity key that burned it: the same key replays and gets the
    same certificate, another is refused and audited by name. Without a name it is the token of a
    machine that stands by: good for nothing until headquarters writes a name and a role into it.
    """

    role: Role
    name: str
    region: str
    provider: str
    owner: str
    cell: str
    expires_at: float
    intent: str = ""
    used_by: bytes = b""
    reply: bytes = b""


class CertificateRow(msgspec.Struct, frozen=True):
    """An issued certificate, DER, who it was issued to, and the intermediate that signed it."""

    serial: str
    node: NodeId
    der: bytes
    issued_at: float
    expires_at: int
    issuer: bytes = b""


class Ballot(msgspec.Struct, frozen=True):
    """One owner's word on an application; a later one replaces it while the vote is open."""

    owner: str
    yes: bool
    at: float


class ApplicationRow(msgspec.Struct, frozen=True):
    """Somebody asked to join. `state` is queued, approved or declined."""

    id: str
    role: Role
    owner: str
    reason: str
    sponsor: str
    state: str
    at: float
    answer: str = ""
    token: str = ""
    """Hash, in hex, of the token that was fetched last."""
    region: str = ""
    ballots: tuple[Ballot, ...] = ()


class AuditRow(msgspec.Struct, frozen=True):
    """One line of the audit chain: `previous` is BLAKE3 of the row before it, as stored."""

    sequence: int
    at: float
    term: int
    author: str
    verb: str
    subject: str
    detail: bytes
    """JSON object."""
    previous: bytes


# --- Keys ----------------------------------------------------------------------------------------
SERVERS: Final = "/fleet/servers/"
NODES: Final = "/fleet/nodes/"
SLOTS: Final = "/fleet/slots/"
INTENTS: Final = "/fleet/intents/"
DEBTS: Final = "/fleet/debts/"
PROVIDERS: Final = "/fleet/providers/"
FREEZE: Final = "/fleet/freeze"
STANDBY: Final = "/fleet/standby"

MOVES: Final = "/fleet/moves/"
REBALANCE: Final = "/fleet/rebalance"
TURNS: Final = "/fleet/turns/"
ROTATION: Final = "/fleet/rotation"

PlanRow = MoveRow | RebalanceRow | TurnRow | RotationRow
"""What an operator asked for and is not done yet."""
FleetRow = (
    ServerRow
    | NodeRow
    | SlotRow
    | IntentRow
    | DebtRow
    | ProviderRow
    | FreezeRow
    | StandbyRow
    | PlanRow
)


def node_key(node: NodeId) -> str:
    """Key of a NodeRow."""
    return NODES + base32(node)


def debt_key(slot: SlotId, name: str) -> str:
    """Key of a DebtRow."""
    return f"{DEBTS}{slot.hex()}/{name}"


def key_of(row: FleetRow) -> str:
    """The control-store key of a fleet row."""
    match row:
        case ServerRow() | ProviderRow():
            return (SERVERS if isinstance(row, ServerRow) else PROVIDERS) + row.name
        case NodeRow():
            return node_key(row.node)
        case SlotRow():
            return SLOTS + row.slot.hex()
        case IntentRow():
            return INTENTS + row.id
        case DebtRow():
            return debt_key(row.slot, row.name)
        case FreezeRow():
            return FREEZE
        case StandbyRow():
            return STANDBY
        case MoveRow():
            return MOVES + row.slot.hex()
        case RebalanceRow():
            return REBALANCE
        case TurnRow():
            return TURNS + row.name
        case RotationRow():
            return ROTATION
