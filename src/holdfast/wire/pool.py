"""The verbs of a relay or replica (D12), as HTTP/1.1 `POST /v1/<verb>` with one frame each way.

| verb      | who          | does                                                             |
|-----------|--------------|------------------------------------------------------------------|
| hello     | anyone       | names the node, gives a challenge                                |
| open      | group, node  | proves an access key (or a node's identity key), gives a session |
| push      | group, node  | stores blobs, answers with receipts after fsync                  |
| pull      | group        | what came after a cursor                                         |
| get       | group, node  | bodies by id, whole or a range                                   |
| have      | group        | which of these ids are here                                      |
| list      | group        | ids by born day, for reconciling after a lost cursor             |
| watch     | group        | long poll over many tags                                         |
| reconcile | node         | compares and fetches what a server of the same slot lacks        |
| report    | group        | "I cannot reach that server"                                     |
| attest    | group        | signs what it has and how far its numbers go                     |

`GET /health` is public JSON. Errors are an `ErrorReply` frame with a 4xx or 5xx status.
"""

from __future__ import annotations

from enum import IntEnum

from holdfast.logic.fleet.model import NodeId, SlotId, Version
from holdfast.wire.codec import Message
from holdfast.wire.records import Staple
from holdfast.wire.signed import Signed

VERSION = 1
CONTENT_TYPE = "application/vnd.holdfast.v1"


class BlobClass(IntEnum):
    """Two classes travel (D12); the third is a probe's and is forgotten."""

    LOG = 1
    BULK = 2
    CANARY = 3


class ErrorReply(Message):
    """`code` is a word of PROTOCOL.md; `retry_after_s` is 0 when waiting does not help."""

    code: str
    message: str
    retry_after_s: float = 0.0


# --- hello, open ---------------------------------------------------------------------------------
class HelloRequest(Message):
    versions: tuple[int, ...]


class HelloReply(Message):
    version: int
    identity: bytes
    """The node's Ed25519 identity key; its BLAKE3 is the node id."""
    incarnation: bytes
    challenge: bytes
    wall_s: float
    revocations: Version


class SessionProof(Message):
    """Body of a `Type.SESSION` signature (D17). `leaf` is SHA-256 of the server's TLS leaf DER."""

    challenge: bytes
    node: NodeId
    leaf: bytes
    slot: SlotId


class OpenRequest(Message):
    """`proof` is signed by the group's access key (`peer` false) or a node's identity key."""

    proof: Signed
    peer: bool = False
    record: Version | None = None
    """The newest record of the slot the caller has seen; a newer one is stapled to the reply."""
    revocations: Version | None = None
    witnesses: Version | None = None
    """Versions of the revocation list and the witness set the caller has; newer ones come back."""
    ticket: bytes = b""


class OpenReply(Message):
    session: bytes
    idle_s: float
    incarnation: bytes
    head: int
    """The highest sequence of this tag, 0 when empty."""
    record: Staple | None
    revocations: Staple | None
    witnesses: Staple | None
    quota_bytes: int
    used_bytes: int


# --- push ----------------------------------------------------------------------------------------
class PushRequest(Message):
    """Bodies follow as attachments of `sizes`. A node names the `tag` it pushes for; a group
    pushes for its own."""

    session: bytes
    blob_class: BlobClass
    sizes: tuple[int, ...]
    tag: bytes = b""


class ReceiptBatch(Message):
    """Signed by the node identity after fsync: one per commit, over all blobs in it (D15)."""

    node: NodeId
    incarnation: bytes
    root: bytes
    size: int
    committed_at: float


class Receipt(Message):
    """One blob's place in a batch: `leaf index` and the RFC 6962 audit path to the root."""

    blob: bytes
    sequence: int
    duplicate: bool
    index: int
    path: tuple[bytes, ...]


class PushReply(Message):
    batch: Signed
    receipts: tuple[Receipt, ...]


# --- pull, get, have, list, watch ----------------------------------------------------------------
class PullRequest(Message):
    session: bytes
    incarnation: bytes
    after: int
    items_max: int
    blob_class: BlobClass | None = None


class Item(Message):
    sequence: int
    blob: bytes
    size: int
    blob_class: BlobClass
    inline: bool = False


class PullReply(Message):
    """Bodies of the items marked `inline` follow, in order."""

    items: tuple[Item, ...]
    head: int
    more: bool


class GetRequest(Message):
    """`length` 0 is to the end. A range is allowed for one id only."""

    session: bytes
    blobs: tuple[bytes, ...]
    offset: int = 0
    length: int = 0
    tag: bytes = b""


class GetReply(Message):
    """-1 stands for a blob that is not here. A reply stops early at the request limit: `sizes` may
    be shorter than asked, and the caller asks again for the rest."""

    sizes: tuple[int, ...]


class HaveRequest(Message):
    session: bytes
    blobs: tuple[bytes, ...]


class HaveReply(Message):
    """One byte per id, 1 when durable here."""

    present: bytes


class ListRequest(Message):
    """Items by (born day, id) from a born day on; `after` pages."""

    session: bytes
    born_from: int
    items_max: int
    after: tuple[int, bytes] | None = None


class ListReply(Message):
    items: tuple[Item, ...]
    born: tuple[int, ...]
    more: bool


class WatchRequest(Message):
    """`after[i]` is the sequence already seen for `sessions[i]`."""

    sessions: tuple[bytes, ...]
    after: tuple[int, ...]
    wait_s: float


class WatchReply(Message):
    """Heads in the order asked; -1 for a session that is gone."""

    heads: tuple[int, ...]
    records: tuple[Version | None, ...] = ()


# --- reconcile -----------------------------------------------------------------------------------
class DaySummary(Message):
    """Items of one slot and born day: how many, and the sum of BLAKE3(tag|id|class) mod 2^256."""

    born: int
    count: int
    total: bytes


class BucketSummary(Message):
    """As `DaySummary`, for the items of the day whose id starts with byte `bucket`."""

    bucket: int
    count: int
    total: bytes


class ReconcileItem(Message):
    tag: bytes
    blob: bytes
    size: int
    blob_class: BlobClass


class ReconcileRequest(Message):
    """Three questions, told apart by what is set: days; buckets of `born`; items of `bucket`."""

    session: bytes
    born: int | None = None
    bucket: int | None = None


class ReconcileReply(Message):
    days: tuple[DaySummary, ...] = ()
    buckets: tuple[BucketSummary, ...] = ()
    items: tuple[ReconcileItem, ...] = ()


# --- report --------------------------------------------------------------------------------------
class ReportRequest(Message):
    """ "I cannot reach `name`, since ..." (seed 004 §3.1, §7.1). Times are Unix seconds."""

    session: bytes
    name: str
    first_failed_at: float
    region: str


# --- attest --------------------------------------------------------------------------------------
class AttestRequest(Message):
    """Ask the server to sign for which of these ids it has, and its head. Asked when receipts are
    audited, not with every reading: it costs the server a signature, and the caller
    `ATTEST_COST` requests."""

    session: bytes
    blobs: tuple[bytes, ...]


class Attestation(Message):
    """Signed by the node identity: what it says of one tag at `at` (Unix seconds). `present` is one
    byte per id, 1 when durable; `head` the highest sequence ever given out."""

    node: NodeId
    incarnation: bytes
    tag: bytes
    head: int
    blobs: tuple[bytes, ...]
    present: bytes
    at: float


class AttestReply(Message):
    attestation: Signed


class Empty(Message):
    """A reply with nothing to say."""
