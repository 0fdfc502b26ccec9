"""HQ's API: JSON over TLS. Nodes show their certificate (mTLS); joining and slots need none.

| method and path            | who         | shape                          |
|----------------------------|-------------|--------------------------------|
| GET  /v1/root              | anyone      | -> RootReply                   |
| POST /v1/join              | token       | JoinRequest -> JoinReply       |
| POST /v1/join-requests     | anyone      | Application -> ApplicationReply|
| GET  /v1/join-requests/{id}| anyone      | -> ApplicationReply            |
| GET  /v1/applications      | node        | -> ApplicationList             |
| POST /v1/applications/{id}/votes | node  | Vote -> Empty                  |
| POST /v1/slots             | anyone      | SlotRequest -> SlotReply       |
| GET  /v1/slots/{slot}      | anyone      | -> SlotReply                   |
| GET  /v1/revocations       | anyone      | -> StapleReply                 |
| POST /v1/renew             | node        | RenewRequest -> JoinReply      |
| POST /v1/heartbeat         | node        | Heartbeat -> HeartbeatReply    |
| POST /v1/access/usage      | entry, core | UsageReport -> UsageReceipt    |
| GET  /v1/access/subscriptions/{token} | anyone | -> SubscriptionView     |
| GET  /sub/{token}[/{format}]          | anyone | -> a client's own format |
| GET  /v1/desired?after=N&wire=W | node   | long poll -> Desired           |
| GET  /v1/releases/{id}     | node        | -> the archive, binary         |
| POST /v1/alerts            | node        | Alert -> Empty                 |
| POST /v1/accusations       | store node  | Accusation -> Empty            |
| POST /v1/leave             | node        | LeaveRequest -> Empty          |
| GET  /v1/checkpoint?after=N| node        | long poll -> CheckpointReply   |
| POST /v1/cosignatures      | node        | Cosignature -> Empty           |
| POST /v1/log-faults        | node        | LogFault -> Empty              |
| POST /v1/overrides         | node        | OverrideRequest -> Empty       |
| GET  /v1/witnesses         | anyone      | -> StapleReply                 |
| GET  /v1/ticket-keys       | anyone      | -> StapleReply                 |
| POST /v1/tickets           | a grant     | TicketRequest -> TicketReply   |
| GET  /checkpoint           | anyone      | -> a signed note               |
| GET  /tile/...             | anyone      | -> hashes or entries, binary   |

Bytes are base64 in JSON (msgspec's default).
"""

from __future__ import annotations

from holdfast.logic.fleet.model import Load, NetworkId, NodeId, Role, SlotId, Tier, Version
from holdfast.wire.access import CoreOrders, EntryOrders
from holdfast.wire.codec import Message
from holdfast.wire.records import Staple
from holdfast.wire.signed import Signed


class RootReply(Message):
    """Fetched over unverified TLS; the caller compares fingerprints, then reconnects (D8)."""

    network: NetworkId
    domain: str
    roots: tuple[bytes, ...]
    """DER certificates of every root now accepted."""


class NodeIdentity(Message):
    """Body of a `Type.NODE_IDENTITY` signature by the identity key: it owns this TLS key (D6)."""

    network: NetworkId
    spki: bytes
    """SubjectPublicKeyInfo DER of the CSR."""


class JoinRequest(Message):
    """`identity_signature` is the 64-byte signature of `NodeIdentity` by `identity`."""

    secret: bytes
    csr: bytes
    identity: bytes
    identity_signature: bytes
    addresses: tuple[str, ...]
    provider: str = ""
    """Claimed; HQ believes only what the token says where the token says anything."""
    version: str = ""
    network: NetworkId = b""
    """What the joiner believes of its token; refused, not burned, when HQ knows better."""
    role: Role | None = None


class StandbyRequest(Message):
    """A machine that stands by asks whether it is called. `secret` is its token's."""

    secret: bytes


class StandbyReply(Message):
    """`name` is empty while nobody needs the machine: ask again. Else it may join now."""

    name: str = ""
    role: Role | None = None


class JoinReply(Message):
    """`chain` is leaf then intermediate, DER."""

    chain: tuple[bytes, ...]
    node: NodeId
    name: str
    role: Role
    region: str
    provider: str
    owner: str
    roots: tuple[bytes, ...]
    heartbeat_s: float
    cell: str = ""
    """Of an entry or a core."""


class RenewRequest(Message):
    csr: bytes
    identity_signature: bytes


class Application(Message):
    """A stranger asks to join under the `approve`, `vote` or `open` policy."""

    role: Role
    owner: str
    reason: str
    sponsor: str = ""
    region: str = ""


class ApplicationItem(Message):
    """An application as members see it; `id` here is public and fetches no token."""

    id: str
    role: Role
    owner: str
    reason: str
    sponsor: str
    region: str
    state: str
    yes: int
    no: int


class ApplicationList(Message):
    items: tuple[ApplicationItem, ...]


class Vote(Message):
    """A member's word on an application, under the `vote` policy. The last one counts."""

    yes: bool


class ApplicationReply(Message):
    """`state` is queued, approved, declined. `token` only once approved; asking again makes the
    one given before worthless. `id` is the applicant's secret: it fetches the token."""

    id: str
    state: str
    reason: str = ""
    token: str = ""


class AboutReply(Message):
    """Who answers: its version and its wall clock, Unix seconds."""

    version: str
    at: float


class Standing(Message):
    """A member as headquarters and the servers of its slots see it (seed 004 §4)."""

    name: str
    tier: Tier
    witnesses: int
    """Servers whose own probes of it fail just now."""
    first_failed_at: float
    """Unix seconds; 0 while it answers."""
    addresses: tuple[str, ...]


class SlotRequest(Message):
    region: str


class EvidenceReport(Message):
    """A proof of misbehaviour (`wire.evidence`), from whoever has one."""

    evidence: bytes


class EvidenceReply(Message):
    """`kept` is false when HQ has it already, or enough like it."""

    id: bytes
    kept: bool


class SlotReply(Message):
    record: Staple


class StapleReply(Message):
    staple: Staple


class Heartbeat(Message):
    term: int
    desired: int
    revocations: Version
    load: Load
    addresses: tuple[str, ...]
    cert_serial: str
    cert_expires_at: int
    filled: bool
    """Every day of every slot here reconciled with a peer since this node took its seat."""
    version: str
    release: bytes = b""
    """What the role runs, as `wire.release.release_id` has it; empty: the installation's own."""
    proved: bool = False
    """Its role has served long enough for the node to trust the release."""
    refused: bytes = b""
    """A release that this node was told to run and went back from ..."""
    refused_why: str = ""
    """... and why."""
    deferred_until: float = 0.0
    """The owner puts upgrades off until then, Unix seconds; 0: not at all."""
    filled_of: bytes = b""
    """Which records `filled` is said of, as `logic.fleet.filled` has it."""


class HeartbeatReply(Message):
    desired: int
    revocations: Version
    term: int


class Terms(Message):
    """What this network grants a group, where it is not the servers' own default (D17)."""

    group_bytes_max: int
    requests_per_s: float
    """Real seconds; a request costs 1 and 1 more for each 64 KiB."""
    requests_burst: float


class TicketTerms(Message):
    """A class of tickets as HQ is set up to issue it (D17); terms as in `Terms`."""

    name: str
    group_bytes_max: int
    requests_per_s: float
    requests_burst: float


class Desired(Message):
    """What HQ wants of one node, whole, at `version`. `term` fences a deposed HQ (D25)."""

    version: int
    term: int
    name: str
    role: Role
    slots: tuple[Staple, ...]
    revocations: Staple | None
    retired: bool = False
    draining: bool = False
    entry: EntryOrders | None = None
    core: CoreOrders | None = None
    report_tag_age_s: float = 86_400.0
    resolvers: tuple[str, ...] = ()
    """`host:port` of the network's DNS servers."""
    terms: Terms | None = None
    witnesses: Staple | None = None
    """The newest witness set, which servers staple for clients (ADR 0010)."""
    ticket_keys: Staple | None = None
    """Keys under which a new tag's ticket must be signed; without any, none is asked for."""
    left: tuple[Staple, ...] = ()
    """Newest records of slots in which another node has taken this one's seat: until it is retired
    it lets their clients read and shows them the way."""
    wire: int = 1
    """The newest node wire that HQ speaks (`wire.versions`)."""
    release: Staple | None = None
    """What to run (`wire.release`); None: what is installed."""
    release_required_at: float = 0.0
    """From then on HQ asks even owners who defer, Unix seconds; 0: never."""


class ProbeResult(Message):
    """One relay's own check of another. `failures` is the run of failures up to now."""

    name: str
    node: NodeId
    ok: bool
    failures: int
    first_failed_at: float
    """Unix seconds; 0 when ok."""


class Alert(Message):
    """What a surviving server says of `name` (seed 004 §4): its own tier and its evidence."""

    name: str
    node: NodeId
    tier: Tier
    clients: int
    """Distinct tags that reported within the window."""
    clients_active: int
    """Distinct tags active here on slots shared with `name`."""
    regions: tuple[str, ...]
    first_reported_at: float
    probe: ProbeResult | None
    observed_at: float


class Accusation(Message):
    """A server caught its peer `name` in a lie that nobody signed: one server's word, no proof."""

    name: str
    node: NodeId
    lie: str
    """A word of `logic.pool.lies.Lie`."""


class CheckpointReply(Message):
    """A checkpoint to cosign, and the proof that it extends the one of size `after`. `signer` is
    the identity of the HQ that signed the note, `proof` its intermediate (DER)."""

    note: bytes
    signer: bytes
    proof: bytes
    after: int
    consistency: tuple[bytes, ...]


class Cosignature(Message):
    """A witness's signature line for the checkpoint of `size`."""

    size: int
    line: str


class LogFault(Message):
    """A witness was shown a log that does not extend the one it knows: both notes."""

    reason: str
    held: bytes
    offered: bytes


class OverrideRequest(Message):
    """A `Type.OVERRIDE` signature by the calling node's identity."""

    signed: Signed


class LeaveRequest(Message):
    reason: str


class Problem(Message):
    """Error body of HQ's API."""

    error: str
    message: str


class SlotQuery(Message):
    slot: SlotId
