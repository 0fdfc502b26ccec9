"""What the brain needs of the rest of HQ: four narrow callables and a zone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from holdfast.hq.transparency import Prepared
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.model import NodeId, SlotRecord
from holdfast.logic.fleet.rows import IntentRow
from holdfast.wire.records import Staple


class Zone(Protocol):
    """The network's DNS zone: one logical name, where it is and which node serves it."""

    async def replace(
        self,
        name: str,
        addresses: Sequence[str],
        port: int,
        node: NodeId,
        previous: NodeId | None = None,
    ) -> None:
        """Make `name` resolve to `addresses` (IP literals), `port` and `node`.

        `previous` is the node the name must point at now (an RFC 2136 prerequisite), None for no
        prerequisite. A name that already says exactly this is left alone, without error. Raises
        OperationFault when the prerequisite does not hold or the server cannot be reached.
        """
        ...


class SignRecord(Protocol):
    """Sign a slot record as this HQ. Pure work: no I/O, may be called in a loop."""

    def __call__(self, record: SlotRecord) -> Staple: ...


class RecordLog(Protocol):
    """The transparency log, for records that are written: their leaves join the transaction."""

    async def prepare(self, staples: Sequence[bytes]) -> Prepared | None:
        """What appends those of `staples` (MessagePack) that are not in yet; None for none."""
        ...

    def took(self, prepared: Prepared) -> None:
        """The transaction with `prepared` in it happened."""
        ...


class IssueToken(Protocol):
    """The one-time join token of a spawn, as the text that goes into `user_data`.

    Durable when it returns. Asked again for the same intent after a crash, it may give another
    token: whichever is used first burns the intent, and the brain reaps what joins second. The
    machine of a warm intent has its token already: it is called, and there is no text to give.
    """

    async def __call__(self, intent: IntentRow) -> str: ...


class AuditSink(Protocol):
    """Append lines to the audit chain, in order."""

    async def __call__(self, lines: Sequence[Audit]) -> None: ...
