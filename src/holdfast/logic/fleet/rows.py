"""What HQ writes down: one row per control-store key (D25-D27).

| key                       | row            |
|---------------------------|----------------|
| /fleet/servers/<name>     | ServerRow      |
| /fleet/nodes/<node id>    | NodeRow        |
| /fleet/slots/<slot hex>   | SlotRow        |
| /fleet/intents/<id>       | IntentRow      |
| /fleet/debts/<slot>/<name>| DebtRow        |
| /fleet/providers/<name>   | ProviderRow    |
| /trust/tokens/<hash hex>  | TokenRow       |
| /trust/certificates/<serial> | CertificateRow |
| /trust/applications/<id>  | ApplicationRow |
| /trust/revocations        | the newest Staple of Revocations |
| /audit/<sequence, 16 digits> | AuditRow    |
| /hq/leader                | lease-bound    |
| /hq/term                  | decimal        |

Heartbeats and loads are soft state and are never written; only transitions are, with the time of
the first failure, so that timers survive a failover (D27). Times are Unix seconds.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from holdfast.logic.fleet.model import NodeId, Role, SlotId, Tier, Version


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


class SlotRow(msgspec.Struct, frozen=True):
    """A slot by the names of its servers; `staple` is the MessagePack of the newest Staple."""

    slot: SlotId
    region: str
    version: Version
    relays: tuple[str, ...]
    replicas: tuple[str, ...]
    changed_at: float
    groups: int = 0
    staple: bytes = b""


class IntentState(StrEnum):
    """written -> ordered (the provider said yes) -> joined -> done; or failed."""

    WRITTEN = "written"
    ORDERED = "ordered"
    JOINED = "joined"
    DONE = "done"
    FAILED = "failed"


class IntentRow(msgspec.Struct, frozen=True):
    """An action HQ has decided on, written before it is begun (D25).

    `action` is spawn or reap. `reason` is launch, heal, repay, rotate, drain or returned. The
    provider's resource name is `id`; `replaces` is the node that loses the seat, `resource` the
    provider's name of the machine to reap.
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


class TokenRow(msgspec.Struct, frozen=True):
    """A one-time join token, known by the BLAKE3 of its secret (D8).

    `used_by` is the BLAKE3 of the identity key that burned it: the same key replays and gets the
    same certificate, another is refused and audited by name.
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
    """An issued certificate, DER, and who it was issued to."""

    serial: str
    node: NodeId
    der: bytes
    issued_at: float
    expires_at: int


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
