"""A session with one server for one tag of one slot (D17), and its verbs with types.

Opening proves an access key (or, between servers, a node's identity key) over the server's
challenge, its node id, the hash of the TLS leaf it showed and the slot: a proof caught by one
server is worth nothing at another. A session is a token, not a connection; when the server has
forgotten it, the next call opens a new one and goes on.

What a server says is checked where it can be: receipts prove every blob under the node's
signature, bodies hash to their ids. `incarnation`, `head` and `record` are as of the last opening.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from holdfast.crypto.blob import read_header
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes, node_id
from holdfast.errors import PeerFault
from holdfast.limits import HEADER_BYTES_MAX, POOL_REQUEST_S
from holdfast.logic.fleet.model import NodeId, SlotId, Version
from holdfast.logic.pool import cursors
from holdfast.rim.pool_client import PoolClient
from holdfast.wire.envelope import sign
from holdfast.wire.evidence import check_attestation
from holdfast.wire.frame import cut
from holdfast.wire.pool import (
    VERSION,
    Attestation,
    AttestReply,
    AttestRequest,
    BlobClass,
    BucketSummary,
    DaySummary,
    Empty,
    GetReply,
    GetRequest,
    HaveReply,
    HaveRequest,
    HelloReply,
    HelloRequest,
    ListReply,
    ListRequest,
    OpenReply,
    OpenRequest,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    ReconcileItem,
    ReconcileReply,
    ReconcileRequest,
    ReportRequest,
    SessionProof,
    WatchReply,
    WatchRequest,
)
from holdfast.wire.receipts import verify_receipts
from holdfast.wire.records import Staple
from holdfast.wire.signed import Signed, Type

T = TypeVar("T")
_ANSWER_S = 15.0
"""Real seconds on top of a long poll's own wait."""


class Have(msgspec.Struct, frozen=True):
    """What a caller knows already: the server staples what is newer. And a ticket to spend."""

    record: Version | None = None
    revocations: Version | None = None
    witnesses: Version | None = None
    ticket: bytes = b""


NOTHING_YET = Have()


class Session:
    """An open session. Make it with `Session.open`; it holds no connection of its own."""

    def __init__(
        self, client: PoolClient, key: SigningKey, slot: SlotId, peer: bool, have: Have
    ) -> None:
        self.client = client
        self.slot = slot
        self.tag = hash_bytes(key.public)
        self.node: NodeId = b""
        self.incarnation = b""
        self.head = 0
        self.record: Staple | None = None
        """The newest slot record, unverified, when the server knows one newer than ours."""
        self.revocations = Version(0, 0)
        self.revocation_list: Staple | None = None
        self.witness_set: Staple | None = None
        """The revocation list and witness set, unverified, when the server's are newer."""
        self.quota_bytes = 0
        self.used_bytes = 0
        self.ticket: Callable[[], bytes] = bytes
        """Gives the ticket of this tag, empty without one; asked when a server wants one."""
        self._key = key
        self._peer = peer
        self._seen = have
        self._token = b""
        self._opening = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        client: PoolClient,
        key: SigningKey,
        slot: SlotId,
        *,
        peer: bool = False,
        have: Have = NOTHING_YET,
    ) -> Session:
        """Open a session with the server behind `client`.

        `key` is the group's access key, or with `peer` the calling server's identity key. `have`
        says what the caller knows already. Raises what
        `PoolClient.call` raises; PeerFault with code `certificate` when the server's identity is
        not the one in its certificate.
        """
        session = cls(client, key, slot, peer, have)
        await session.reopen(b"")
        return session

    @property
    def token(self) -> bytes:
        """The current session token; changes when the session is opened anew."""
        return self._token

    async def reopen(self, stale: bytes) -> None:
        """Open again unless somebody else has already replaced the `stale` token."""
        async with self._opening:
            if self._token and self._token != stale:
                return
            await self.client.connect()
            hello, _ = await self.client.call("hello", HelloRequest((VERSION,)), HelloReply)
            node = node_id(hello.identity)
            if node != self.client.peer.node:
                raise PeerFault(
                    "the server's identity is not its certificate's", code="certificate"
                )
            proof = SessionProof(hello.challenge, node, self.client.leaf, self.slot)
            signed = sign(self._key, Type.SESSION, proof)
            seen = self._seen
            request = OpenRequest(
                signed, self._peer, seen.record, seen.revocations, seen.witnesses, seen.ticket
            )
            reply, _ = await self.client.call("open", request, OpenReply)
            self.node, self.revocations = node, hello.revocations
            self.incarnation, self.head = reply.incarnation, reply.head
            self.record = reply.record
            self.revocation_list, self.witness_set = reply.revocations, reply.witnesses
            self.quota_bytes, self.used_bytes = reply.quota_bytes, reply.used_bytes
            self._token = reply.session

    def saw(self, have: Have) -> None:
        """Tell the server at the next opening what we have."""
        self._seen = have

    async def _with_token(self, work: Callable[[bytes], Awaitable[T]]) -> T:
        """Run `work` with the token, once more with a new one when the server forgot it."""
        token = self._token
        try:
            return await work(token)
        except PeerFault as fault:
            if fault.code != "session":
                raise
        await self.reopen(token)
        return await work(self._token)

    # --- Blobs -----------------------------------------------------------------------------------
    async def push(
        self,
        blob_class: BlobClass,
        blobs: Sequence[bytes],
        *,
        tag: bytes = b"",
        ids: Sequence[bytes] | None = None,
    ) -> PushReply:
        """Store blobs; returns once the server vouches for every one of them. `ids` are theirs,
        where the caller has just hashed them.

        The caller keeps to `BLOBS_PER_PUSH_MAX` and `REQUEST_BYTES_MAX`. A node names the `tag`.
        Raises PeerFault with code `receipt` when the receipts do not prove what was pushed.
        """
        sizes = tuple(len(blob) for blob in blobs)
        ids = [hash_bytes(blob) for blob in blobs] if ids is None else ids
        born = [read_header(blob).born for blob in blobs]
        pushed = list(zip(ids, sizes, born, strict=True))

        async def call(token: bytes) -> PushReply:
            header = PushRequest(token, blob_class, sizes, tag)
            return (await self.client.call("push", header, PushReply, blobs))[0]

        try:
            reply = await self._with_token(call)
        except PeerFault as fault:
            if fault.code != "ticket" or not await self._spend():
                raise
            reply = await self._with_token(call)
        verify_receipts(reply, node=self.node, tag=tag or self.tag, pushed=pushed)
        return reply

    async def _spend(self) -> bool:
        """Open anew with the tag's ticket; false when there is none."""
        ticket = self.ticket()
        if not ticket:
            return False
        self._seen = msgspec.structs.replace(self._seen, ticket=ticket)
        await self.reopen(self._token)
        return True

    async def pull(
        self, after: int, items_max: int, blob_class: BlobClass | None = None
    ) -> tuple[PullReply, dict[bytes, bytes]]:
        """What came after a sequence of this incarnation, and the bodies that came along.

        Raises PeerFault with code `incarnation` when the store is not the one the cursor is of:
        then `list` and reconcile by id. Bodies are checked against their ids.
        """

        async def call(token: bytes) -> tuple[PullReply, memoryview]:
            header = PullRequest(token, self.incarnation, after, items_max, blob_class)
            return await self.client.call("pull", header, PullReply)

        reply, rest = await self._with_token(call)
        inline = [item for item in reply.items if item.inline]
        bodies = _cut(rest, [item.size for item in inline])
        checked = {
            item.blob: _checked(item.blob, body) for item, body in zip(inline, bodies, strict=True)
        }
        if not cursors.in_order(after, [item.sequence for item in reply.items]):
            raise PeerFault("pulled items are not in order behind the cursor", code="order")
        return reply, checked

    async def get(self, blobs: Sequence[bytes], *, tag: bytes = b"") -> dict[bytes, bytes]:
        """Bodies of those blobs that are there, checked against their ids. The caller keeps to
        `IDS_PER_REQUEST_MAX`; several requests are made when one reply cannot hold them all."""
        bodies: dict[bytes, bytes] = {}
        rest = list(blobs)
        while rest:
            asked = tuple(rest)

            async def call(token: bytes, asked: tuple[bytes, ...] = asked) -> list[bytes | None]:
                header = GetRequest(token, asked, tag=tag)
                reply, data = await self.client.call("get", header, GetReply)
                return _bodies(asked, reply, data)

            answers = await self._with_token(call)
            for blob, body in zip(asked, answers, strict=False):
                if body is not None:
                    bodies[blob] = body
            rest = rest[len(answers) :]
        return bodies

    async def get_range(self, blob: bytes, offset: int, length: int) -> bytes | None:
        """Part of one blob, which cannot be checked by itself; None when it is not there."""

        async def call(token: bytes) -> bytes | None:
            header = GetRequest(token, (blob,), offset, length)
            reply, data = await self.client.call("get", header, GetReply)
            return bytes(data) if reply.sizes and reply.sizes[0] >= 0 else None

        return await self._with_token(call)

    async def have(self, blobs: Sequence[bytes]) -> list[bool]:
        """Which of these ids are durable there, in order."""

        async def call(token: bytes) -> HaveReply:
            return (await self.client.call("have", HaveRequest(token, tuple(blobs)), HaveReply))[0]

        reply = await self._with_token(call)
        if len(reply.present) != len(blobs):
            raise PeerFault("an answer about other ids than asked", code="nonsense")
        return [flag == 1 for flag in reply.present]

    async def attest(self, blobs: Sequence[bytes]) -> tuple[Signed, Attestation]:
        """The server's signed word on which of `blobs` it has and how far its sequences go; at
        most `ATTEST_IDS_MAX`. Raises PeerFault (`attestation`) when it signs anything else."""

        async def call(token: bytes) -> AttestReply:
            header = AttestRequest(token, tuple(blobs))
            return (await self.client.call("attest", header, AttestReply))[0]

        signed = (await self._with_token(call)).attestation
        try:
            said = check_attestation(signed)
        except PeerFault as fault:
            raise PeerFault(f"an attestation that is none: {fault}", code="attestation") from fault
        about = (said.node, said.incarnation, said.tag, said.blobs)
        if about != (self.node, self.incarnation, self.tag, tuple(blobs)):
            raise PeerFault("an attestation about something else", code="attestation")
        return signed, said

    async def list(
        self, born_from: int, items_max: int, after: tuple[int, bytes] | None = None
    ) -> ListReply:
        """Items by (born day, id) from a day on, for reconciling by id."""

        async def call(token: bytes) -> ListReply:
            header = ListRequest(token, born_from, items_max, after)
            return (await self.client.call("list", header, ListReply))[0]

        reply = await self._with_token(call)
        if len(reply.born) != len(reply.items):
            raise PeerFault("a listing without its days", code="nonsense")
        return reply

    async def watch(self, after: int, wait_s: float) -> WatchReply:
        """Wait up to `wait_s` real seconds for something past `after`, or for a new record."""
        return await watch([self], [after], wait_s)

    # --- Servers of a slot -----------------------------------------------------------------------
    async def days(self) -> tuple[DaySummary, ...]:
        """Everything the peer has of the slot, by born day."""
        return (await self._reconcile(None, None)).days

    async def buckets(self, born: int) -> tuple[BucketSummary, ...]:
        """The buckets of one day that hold anything."""
        return (await self._reconcile(born, None)).buckets

    async def bucket_items(self, born: int, bucket: int) -> tuple[ReconcileItem, ...]:
        """The items of one bucket."""
        return (await self._reconcile(born, bucket)).items

    async def _reconcile(self, born: int | None, bucket: int | None) -> ReconcileReply:
        async def call(token: bytes) -> ReconcileReply:
            header = ReconcileRequest(token, born, bucket)
            return (await self.client.call("reconcile", header, ReconcileReply))[0]

        return await self._with_token(call)

    # --- Hints -----------------------------------------------------------------------------------
    async def report(self, name: str, first_failed_at: float, region: str) -> None:
        """ "I cannot reach the server `name`" (seed 004 §7.1). `first_failed_at` is Unix time."""

        async def call(token: bytes) -> None:
            header = ReportRequest(token, name, first_failed_at, region)
            await self.client.call("report", header, Empty)

        await self._with_token(call)


async def watch(sessions: Sequence[Session], after: Sequence[int], wait_s: float) -> WatchReply:
    """One long poll over many sessions with one server. A head of -1: that session was gone and
    has been opened anew; ask again."""
    assert sessions
    client = sessions[0].client
    assert all(session.client is client for session in sessions), "one server at a time"
    tokens = tuple(session.token for session in sessions)
    header = WatchRequest(tokens, tuple(after), wait_s)
    assert len(sessions) * 64 < HEADER_BYTES_MAX
    timeout_s = max(wait_s, 0.0) + max(_ANSWER_S, POOL_REQUEST_S)
    reply, _ = await client.call("watch", header, WatchReply, timeout_s=timeout_s)
    if len(reply.heads) != len(sessions):
        raise PeerFault("heads of other sessions than asked", code="nonsense")
    for session, token, head in zip(sessions, tokens, reply.heads, strict=True):
        if head < 0:
            await session.reopen(token)
    return reply


def _bodies(asked: Sequence[bytes], reply: GetReply, data: memoryview) -> list[bytes | None]:
    """The answers to the first ids asked for; at least one, or the caller would ask forever."""
    if not 0 < len(reply.sizes) <= len(asked) or any(size < -1 for size in reply.sizes):
        raise PeerFault("an answer about other ids than asked", code="nonsense")
    pieces = iter(_cut(data, [size for size in reply.sizes if size >= 0]))
    return [
        _checked(blob, next(pieces)) if size >= 0 else None
        for blob, size in zip(asked, reply.sizes, strict=False)
    ]


def _cut(data: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    try:
        return cut(data, sizes)
    except PeerFault as fault:
        raise PeerFault("bodies of other sizes than named", code="nonsense") from fault


def _checked(blob: bytes, body: memoryview) -> bytes:
    data = bytes(body)
    if hash_bytes(data) != blob:
        raise PeerFault("a body that is not the blob asked for", code="tampered")
    return data


__all__ = ["Have", "Session", "verify_receipts", "watch"]
