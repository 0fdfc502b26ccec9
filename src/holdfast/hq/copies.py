"""The newest sealed snapshot as nodes fetch it: with our word that it is one (ADR 0044).

Every entry and core keeps it, so that a headquarters can be made anew from any machine that lives.
It is in memory only, of the headquarters that leads; that one takes a snapshot as it begins.
"""

from __future__ import annotations

from holdfast.crypto.pure import hash_bytes
from holdfast.errors import OperationFault
from holdfast.hq.authority import Authority
from holdfast.logic.fleet.model import NodeId
from holdfast.wire.codec import pack
from holdfast.wire.front import CopyHead, StoreCopy
from holdfast.wire.signed import Type
from holdfast.wire.snapshot import Snapshot


class Copies:
    """What is handed out, and who has it."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._digest = b""
        self._packed = b""
        self._held: dict[NodeId, bytes] = {}

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

    def give(self, node: NodeId, held: bytes) -> bytes:
        """The packed `StoreCopy`; empty when `held` is the digest of the newest. Raises
        OperationFault where there is none."""
        if not self._packed:
            raise OperationFault("no copy of the store here; ask another headquarters")
        self._held[node] = held
        return b"" if held == self._digest else self._packed

    @property
    def holders(self) -> int:
        """Nodes that said they hold the newest."""
        return sum(held == self._digest for held in self._held.values()) if self._digest else 0
