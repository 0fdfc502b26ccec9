"""The newest sealed snapshot as nodes fetch it: with our word that it is one (ADR 0044).

Every entry and core keeps it, so that a headquarters can be made anew from any machine that lives.
It is in memory only, of the headquarters that leads; that one takes a snapshot as it begins. A copy
may be hundreds of MiB: it leaves in pieces, once at a time to a node and to a few nodes at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from holdfast.crypto.pure import base32, hash_bytes
from holdfast.errors import OperationFault
from holdfast.hq.authority import Authority
from holdfast.hq.rates import Rates
from holdfast.limits.front import (
    COPIES_AT_ONCE_MAX,
    COPY_BURST,
    COPY_PER_S,
    COPY_PIECE_BYTES,
    FRONT_COPY_REAL_S,
)
from holdfast.logic.fleet.model import NodeId
from holdfast.rim.clock import Clock
from holdfast.wire.codec import pack
from holdfast.wire.front import CopyHead, StoreCopy
from holdfast.wire.signed import Type
from holdfast.wire.snapshot import Snapshot


class Transfer(Response):
    """A copy on its way, for which its node has the place until the last byte or the time is up."""

    def __init__(self, copies: Copies, node: NodeId, data: bytes) -> None:
        super().__init__(b"", media_type="application/octet-stream")
        self.headers["content-length"] = str(len(data))
        self._copies = copies
        self._node = node
        self._data = data

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._copies.place(self._node):
            start = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **start})
            with suppress(TimeoutError):  # the server cuts an answer that was not completed
                async with self._copies.clock.real_timeout(FRONT_COPY_REAL_S):
                    await self._pieces(send)

    async def _pieces(self, send: Send) -> None:
        view = memoryview(self._data)
        for at in range(0, len(view), COPY_PIECE_BYTES):
            piece = bytes(view[at : at + COPY_PIECE_BYTES])
            more = at + COPY_PIECE_BYTES < len(view)
            await send({"type": "http.response.body", "body": piece, "more_body": more})


class Copies:
    """What is handed out, and who has it."""

    def __init__(self, authority: Authority, clock: Clock) -> None:
        self._authority = authority
        self.clock = clock
        self._digest = b""
        self._packed = b""
        self._held: dict[NodeId, bytes] = {}
        self._sending: set[NodeId] = set()
        self._rates = Rates(clock, COPY_PER_S, COPY_BURST)

    def put(self, sealed: bytes, snapshot: Snapshot) -> None:
        """A newer one."""
        head = CopyHead(
            network=snapshot.network,
            made_at=snapshot.made_at,
            revision=snapshot.revision,
            epoch=snapshot.epoch,
            file_bytes=len(sealed),
            digest=hash_bytes(sealed),
        )
        staple = self._authority.sign(Type.STORE_COPY, head)
        self._digest = head.digest
        self._packed = pack(StoreCopy(staple, sealed))

    def forget(self) -> None:
        """Another headquarters leads: the newest is there."""
        self._digest, self._packed = b"", b""

    def give(self, node: NodeId, held: bytes) -> Transfer | None:
        """The packed `StoreCopy`; None when `held` is the digest of the newest. Raises
        OperationFault where there is none or no place, PeerFault (`too-many`) for one too often."""
        if not self._packed:
            raise OperationFault("no copy of the store here; ask another headquarters")
        self._held[node] = held
        if held == self._digest:
            return None
        self._check_place(node)
        self._rates.charge(base32(node))
        return Transfer(self, node, self._packed)

    @contextmanager
    def place(self, node: NodeId) -> Iterator[None]:
        """For a transfer. Raises OperationFault while the node has one, or too many others do."""
        self._check_place(node)
        self._sending.add(node)
        try:
            yield
        finally:
            self._sending.discard(node)

    def _check_place(self, node: NodeId) -> None:
        if node in self._sending:
            raise OperationFault("this node is being sent a copy")
        if len(self._sending) >= COPIES_AT_ONCE_MAX:
            raise OperationFault("others are being sent the copy; try again in a minute")

    @property
    def holders(self) -> int:
        """Nodes that said they hold the newest."""
        return sum(held == self._digest for held in self._held.values()) if self._digest else 0
