"""Checkpoints of the transparency log: signed here, cosigned by nodes, stapled to statements.

Each HQ process signs checkpoints of the one log in the control store with its own identity, at
most one in `CHECKPOINT_PERIOD_S`. Nodes ask for the newest (they reach us, never the other way
round), check that it extends what they know, and send a cosignature. The best cosigned checkpoint
is a row in the store, so that every process staples the same; nodes whose records it newly covers
are told again.

Better is: as many owners of the witness set as before, or enough for clients, and then longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.errors import OperationFault, PeerFault
from holdfast.hq.authority import Authority
from holdfast.hq.desired import DesiredBook
from holdfast.hq.transparency import LOG_HEAD, TransparencyLog
from holdfast.limits import WATCH_WAIT_S_MAX
from holdfast.limits.trust import CHECKPOINT_PERIOD_S, WITNESSES_MAX
from holdfast.logic.fleet.rows import NodeRow
from holdfast.logic.trust.checkpoint import Checkpoint, log_origin, witness_name
from holdfast.logic.trust.note import (
    Line,
    Note,
    cosigned_at,
    parse_line,
    parse_note,
    signature_line,
)
from holdfast.logic.trust.witnesses import WitnessSet
from holdfast.rim.clock import Clock
from holdfast.rim.control.follow import follow
from holdfast.rim.control.store import Batch, ControlStore, KeyValue, Put, unchanged
from holdfast.wire.codec import pack, unpack
from holdfast.wire.envelope import verify
from holdfast.wire.hq import CheckpointReply
from holdfast.wire.logged import leaf_of
from holdfast.wire.records import Logged, Override, Staple
from holdfast.wire.signed import Signed, Type, decode_body

_FOLLOWED: Final = "/log-"
COSIGNED: Final = "/log-cosigned"
OVERRIDES: Final = "/log-overrides/"
_SIZES_KEPT: Final = 16
LAG_S: Final = 5.0
"""Real seconds in which an honest HQ has read what another one logged."""
_ROW_BYTES_MAX: Final = 1 << 20


class CosignedRow(msgspec.Struct, frozen=True):
    """The best cosigned checkpoint. `note` holds the lines, `owners` those of the witness set."""

    size: int
    note: bytes
    signer: bytes
    proof: bytes
    owners: tuple[str, ...]


class Checkpoints:
    """See the module. `witnesses` is the set that clients are told, `book` what nodes are told."""

    def __init__(
        self,
        store: ControlStore,
        authority: Authority,
        log: TransparencyLog,
        clock: Clock,
        witnesses: Callable[[], WitnessSet | None],
        book: DesiredBook,
    ) -> None:
        self._store = store
        self._authority = authority
        self._log = log
        self._clock = clock
        self._witnesses = witnesses
        self._book = book
        self.origin = log_origin(authority.domain, authority.network)
        self.cosigned: CosignedRow | None = None
        self.tasks: list[asyncio.Task[None]] = []
        """Following the store; one that ends has failed."""
        self.published = 0
        """Size of the newest checkpoint that nodes are offered."""
        self._signed: dict[int, Note] = {}
        self._lines: dict[int, dict[bytes, tuple[str, Line]]] = {}
        self._settled = 0
        self._index: dict[bytes, int] = {}
        self._overrides: dict[bytes, dict[bytes, Signed]] = {}
        self._grown, self._news = asyncio.Event(), asyncio.Event()

    # --- Life ------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Load and follow. Raises OperationFault."""
        revision = await self._load()
        self._grown.set()
        work = follow(self._store, _FOLLOWED, revision, self._see, self._load, self._clock)
        self.tasks = [asyncio.create_task(work), asyncio.create_task(self._publish())]

    async def stop(self) -> None:
        """Stop following."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _load(self) -> int:
        reply = await self._store.range(_FOLLOWED)
        for kv in reply.items:
            await self._learn(kv)
        return reply.revision

    async def _see(self, batch: Batch) -> None:
        for event in batch.events:
            await self._learn(event.kv)

    async def _learn(self, kv: KeyValue) -> None:
        if kv.key == LOG_HEAD:
            await self._log.open()
            self._grown.set()
        elif kv.key == COSIGNED:
            await self._log.open()
            self.cosigned = msgspec.msgpack.decode(kv.value, type=CosignedRow)
            self._tell(self.cosigned, kv.mod_revision)
        elif kv.key.startswith(OVERRIDES):
            self._take_override(unpack(Signed, kv.value, bytes_max=_ROW_BYTES_MAX), kv.mod_revision)

    async def _publish(self) -> None:
        """A new checkpoint when leaves have come, not more often than the period."""
        while True:
            await self._grown.wait()
            self._grown.clear()
            if len(self._log.tree) > self.published:
                self.published = len(self._log.tree)
                self._news.set()
                self._news = asyncio.Event()
            await self._clock.sleep_real(CHECKPOINT_PERIOD_S)

    # --- Signing ---------------------------------------------------------------------------------
    def note(self, size: int) -> Note:
        """The checkpoint of the first `size` leaves, signed by this HQ."""
        found = self._signed.get(size)
        if found is None:
            text = Checkpoint(self.origin, size, self._log.tree.root(size)).text()
            public, signature = self._authority.sign_note(text)
            found = Note(text, (signature_line(self.origin, public, signature),))
            self._signed[size] = found
            for old in sorted(self._signed)[:-_SIZES_KEPT]:
                del self._signed[old]
                self._lines.pop(old, None)
        return found

    def newest(self) -> bytes:
        """The best cosigned checkpoint, or else a fresh one of ours: what `/checkpoint` serves."""
        if self.cosigned is not None:
            return self.cosigned.note
        return self.note(len(self._log.tree)).render()

    async def offer(self, node: NodeRow, after: int) -> CheckpointReply:
        """A checkpoint for `node`, who cosigned size `after`; waits while there is nothing new."""
        wanted = self.published > after or (self.published == after and self._wants(node, after))
        if not wanted:
            # One who knows more than we do waits only for us to catch up with our own store.
            wait_s = WATCH_WAIT_S_MAX if self.published >= after else LAG_S
            try:
                async with self._clock.real_timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                pass
        size = self.published
        consistency = self._log.tree.consistency(after, size) if after <= size else ()
        return CheckpointReply(
            note=self.note(size).render(),
            signer=self._authority.identity_public,
            proof=self._authority.intermediate,
            after=after,
            consistency=consistency,
        )

    def _wants(self, node: NodeRow, size: int) -> bool:
        """Whether a cosignature of this node for that size would be news here."""
        if node.node in self._lines.get(size, {}):
            return False
        return self.cosigned is None or self.cosigned.size < size or self._lacks(node.owner)

    def _lacks(self, owner: str) -> bool:
        assert self.cosigned is not None
        return owner not in self.cosigned.owners

    # --- Cosignatures ----------------------------------------------------------------------------
    async def cosign(self, node: NodeRow, size: int, text: str) -> None:
        """Take a node's cosignature of a checkpoint we signed. Raises PeerFault."""
        note = self.note(size) if size == self.published else self._signed.get(size)
        if note is None:
            raise PeerFault("no such checkpoint lately; ask for the newest", code="conflict")
        line = parse_line(text)
        name = witness_name(self._authority.domain, node.node)
        if cosigned_at(note.text, line, name, node.identity) is None:
            raise PeerFault("not a cosignature of this checkpoint by this node", code="signature")
        lines = self._lines.setdefault(size, {})
        lines[node.node] = (node.owner, line)
        await self._keep(size, note)

    async def _keep(self, size: int, note: Note) -> None:
        """Write the checkpoint down when it is better than the one that is written."""
        while True:
            kv = await self._store.get(COSIGNED)
            held = msgspec.msgpack.decode(kv.value, type=CosignedRow) if kv else None
            row = self._row(size, note, held)
            if held is not None and not _better(row, held, self._needed()):
                return
            if (
                await self._store.txn(
                    [unchanged(COSIGNED, kv)], [Put(COSIGNED, msgspec.msgpack.encode(row))]
                )
            ).succeeded:
                return

    def _row(self, size: int, note: Note, held: CosignedRow | None) -> CosignedRow:
        """What we collected for `size`, members of the set first, with what is held already."""
        chosen = self._witnesses()
        members = {key.node for key in chosen.witnesses} if chosen else set()
        items = sorted(self._lines.get(size, {}).items(), key=lambda item: item[0] not in members)
        items = items[:WITNESSES_MAX]
        owners = {owner for node, (owner, _) in items if not members or node in members}
        whole = note.with_lines(line for _, (_, line) in items)
        signer, proof = self._authority.identity_public, self._authority.intermediate
        if held is not None and held.size == size:
            mine, theirs = whole, parse_note(held.note)
            if theirs.text == mine.text:
                whole = theirs.with_lines(mine.lines)
                owners |= set(held.owners)
                signer, proof = held.signer, held.proof
        return CosignedRow(size, whole.render(), signer, proof, tuple(sorted(owners)))

    def _needed(self) -> int:
        chosen = self._witnesses()
        return max(chosen.needed if chosen else 0, 1)

    # --- Stapling --------------------------------------------------------------------------------
    def attach(self, staple: Staple) -> Staple:
        """The same statement with its place in the best cosigned checkpoint, and overrides."""
        row = self.cosigned
        overrides = tuple(self._overrides.get(hash_bytes(staple.signed.body), {}).values())
        if row is None or row.size > len(self._log.tree):
            return msgspec.structs.replace(staple, overrides=overrides)
        index = self._log.index(leaf_of(staple.signed))
        if index is None or index >= row.size:
            return msgspec.structs.replace(staple, overrides=overrides)
        path = self._log.tree.path(index, row.size)
        logged = Logged(index, path, row.note, row.signer, row.proof)
        return msgspec.structs.replace(staple, logged=logged, overrides=overrides)

    def _tell(self, row: CosignedRow, revision: int) -> None:
        """Wake the nodes whose records are covered now and were not, with enough owners, before."""
        slots, staples = [], self._book.staples()
        if len(self._index) > 4 * len(staples) + 1_000:
            self._index.clear()
        for slot, staple in staples:
            if self._covers(row, self._index_of(staple)):
                slots.append(slot)
        chosen = self._book.witnesses
        if chosen is not None and self._covers(row, self._log.index(leaf_of(chosen.signed))):
            self._book.touch_all(revision)
        if len(row.owners) >= self._needed():
            self._settled = max(self._settled, row.size)
        self._book.touch(slots, revision)

    def _covers(self, row: CosignedRow, index: int | None) -> bool:
        return index is not None and self._settled <= index < row.size

    def _index_of(self, staple: bytes) -> int | None:
        """Leaf index of a stored statement; remembered, as slots are many."""
        digest = hash_bytes(staple)
        if digest not in self._index:
            signed = unpack(Staple, staple, bytes_max=_ROW_BYTES_MAX).signed
            index = self._log.index(leaf_of(signed))
            if index is None:
                return None
            self._index[digest] = index
        return self._index[digest]

    # --- Overrides -------------------------------------------------------------------------------
    async def override(self, node: NodeRow, signed: Signed) -> Override:
        """Keep an owner's word that a record be followed. Raises PeerFault."""
        if signed.signer != node.identity:
            raise PeerFault("an override that another node signed", code="signature")
        statement = verify(Type.OVERRIDE, Override, signed)
        if statement.network != self._authority.network or len(statement.record) != 32:
            raise PeerFault("an override of another network")
        key = f"{OVERRIDES}{statement.record.hex()}/{node.node.hex()}"
        if not (await self._store.txn([], [Put(key, pack(signed))])).succeeded:
            raise OperationFault("the override was not stored; try again")
        return statement

    def _take_override(self, signed: Signed, revision: int) -> None:
        statement = decode_body(Type.OVERRIDE, Override, signed)
        self._overrides.setdefault(statement.record, {})[signed.signer] = signed
        self._book.touch([statement.slot], revision)


def _better(row: CosignedRow, held: CosignedRow, needed: int) -> bool:
    if len(row.owners) < min(needed, len(held.owners)):
        return False
    if row.size != held.size:
        return row.size > held.size or len(held.owners) < needed <= len(row.owners)
    return len(row.owners) > len(held.owners)
