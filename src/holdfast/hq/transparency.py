"""The transparency log: every certificate, slot record and revocation list HQ ever signed (D15).

Leaves lie in the control store, one row each, under `/log/<index>`; the head row says how
many. The RFC 6962 tree is rebuilt in memory from the rows. Whoever writes compares the head, so
that two HQ processes on one store make one log.

What is logged is appended in the transaction that issues it (D8): `prepare` gives the conditions
and writes to put beside one's own, `took` is told when that transaction happened. A statement that
has no transaction of its own (`note`), such as HQ's own certificate, is appended by `settle`, which
callers await before they let the statement out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from holdfast.logic.trust.directory import CERTIFICATE, REVOCATIONS, SLOT_RECORD, WITNESSES, Leaf
from holdfast.logic.trust.merkle import Tree, leaf_hash
from holdfast.rim.control.store import Compare, ControlStore, KeyValue, Put, absent, unchanged

LOG: Final = "/log/"
LOG_HEAD: Final = "/log-head"
_LEAVES_PER_TXN: Final = 60
_PAGE: Final = 1_000


class LogHead(msgspec.Struct, frozen=True):
    """How many leaves there are."""

    size: int = 0


class Prepared(msgspec.Struct, frozen=True):
    """What a transaction must compare and put so that leaves join the log with it."""

    compares: tuple[Compare, ...]
    puts: tuple[Put, ...]
    leaves: tuple[bytes, ...]
    first: int


def leaf_key(index: int) -> str:
    """The control-store key of leaf `index`, from 0."""
    return f"{LOG}{index:016}"


class TransparencyLog:
    """The log over one control store; `open` it before use."""

    def __init__(self, store: ControlStore) -> None:
        self._store = store
        self._tree = Tree()
        self._known: dict[bytes, int] = {}
        self._pending: list[bytes] = []
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Read what there is. Raises OperationFault."""
        await self._catch_up()

    def index(self, leaf: Leaf) -> int | None:
        """Where the leaf lies, as far as is known here."""
        return self._known.get(leaf_hash(leaf.data()))

    async def leaves(self, start: int, count: int) -> list[bytes]:
        """The data of up to `count` leaves from `start` on, as they were logged."""
        after = leaf_key(start - 1) if start else ""
        page = await self._store.range(LOG, limit=count, after=after)
        return [item.value for item in page.items]

    @property
    def tree(self) -> Tree:
        """The tree as far as it is known here."""
        return self._tree

    def contains(self, leaf: Leaf) -> bool:
        """Whether the leaf is in the log already, or about to be."""
        data = leaf.data()
        return leaf_hash(data) in self._known or data in self._pending

    def note(self, leaf: Leaf) -> None:
        """Remember a leaf for the next `settle`; one that is there already is left out."""
        if not self.contains(leaf):
            self._pending.append(leaf.data())

    async def settle(self) -> None:
        """Append what was noted; durable when it returns. Raises OperationFault."""
        while self._pending:
            async with self._turn:
                batch = tuple(self._pending[:_LEAVES_PER_TXN])
                if not batch:
                    return
                prepared = await self._prepare(batch)
                reply = await self._store.txn(prepared.compares, prepared.puts)
                if reply.succeeded:
                    del self._pending[: len(batch)]
                    self.took(prepared)

    async def prepare(self, leaves: Sequence[Leaf]) -> Prepared:
        """Conditions and writes that append `leaves`; another's append makes them fail."""
        return await self._prepare([leaf.data() for leaf in leaves])

    def took(self, prepared: Prepared) -> None:
        """The transaction with `prepared` in it happened."""
        if len(self._tree) == prepared.first:
            for data in prepared.leaves:
                self._grow(data)

    async def _prepare(self, leaves: Sequence[bytes]) -> Prepared:
        kv = await self._catch_up()
        first = len(self._tree)
        assert len(leaves) <= _LEAVES_PER_TXN
        keys = [leaf_key(first + offset) for offset in range(len(leaves))]
        head = LogHead(first + len(leaves))
        return Prepared(
            compares=(unchanged(LOG_HEAD, kv), *map(absent, keys)),
            puts=(
                Put(LOG_HEAD, msgspec.msgpack.encode(head)),
                *(Put(key, data) for key, data in zip(keys, leaves, strict=True)),
            ),
            leaves=tuple(leaves),
            first=first,
        )

    async def _catch_up(self) -> KeyValue | None:
        """Read leaves that others appended; the head row that goes with the tree as it then is."""
        while True:
            kv = await self._store.get(LOG_HEAD)
            size = head_of(kv).size
            while len(self._tree) < size:
                after = leaf_key(len(self._tree) - 1) if len(self._tree) else ""
                page = await self._store.range(LOG, limit=_PAGE, after=after)
                for item in page.items:
                    if item.key == leaf_key(len(self._tree)):
                        self._grow(item.value)
            if len(self._tree) == size:
                return kv

    def _grow(self, data: bytes) -> None:
        self._known.setdefault(leaf_hash(data), self._tree.append(data))


def head_of(kv: KeyValue | None) -> LogHead:
    """The head in the store's row; the empty log's for none."""
    return msgspec.msgpack.decode(kv.value, type=LogHead) if kv else LogHead()


__all__ = [
    "CERTIFICATE",
    "LOG",
    "LOG_HEAD",
    "REVOCATIONS",
    "SLOT_RECORD",
    "WITNESSES",
    "Leaf",
    "LogHead",
    "Prepared",
    "TransparencyLog",
    "head_of",
    "leaf_key",
]
