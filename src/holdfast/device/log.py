"""The log of one group on this device: stored as it travelled, folded as it comes.

A log blob holds one `Signed` operation. Signature, author and group are checked before anything is
kept; what is kept is the bytes, so that they can be passed on and folded again at the next start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from holdfast.crypto.atrest import AtRest
from holdfast.crypto.keys import SigningKey
from holdfast.errors import PeerFault
from holdfast.fabric.database import Database
from holdfast.logic.group.operation import (
    VERSIONS,
    Operation,
    check_operation,
    operation_id,
)
from holdfast.logic.group.reducer import GroupState, Outcome
from holdfast.wire.codec import pack
from holdfast.wire.envelope import sign, verify
from holdfast.wire.signed import Signed, Type, decode_body, unpack_signed

OPERATION = "operations.signed"
ENCLOSURE = "enclosures.payload"
"""Where sealed values stand (`crypto.atrest`)."""


class Written(msgspec.Struct, frozen=True):
    """An operation made here, not yet stored anywhere."""

    id: bytes
    operation: Operation
    payload: bytes


class GroupLog:
    """Operations of `group`, and the state they fold to. A `LogSink` of the fabric."""

    def __init__(self, database: Database, group: bytes, at_rest: AtRest | None = None) -> None:
        """`at_rest` seals what is kept; None keeps it as it is, for tests."""
        self.group = group
        self._at_rest = at_rest
        self.outcomes: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self._database = database
        self.state = GroupState.load(group, self._operations())
        for (operation,) in database.run("select operation from gaps where grp = ?", (group,)):
            if operation in self.state.dag.missing():
                self.state.dag.name_gap(operation)

    def __len__(self) -> int:
        return len(self.state.dag)

    # --- reading -------------------------------------------------------------------------------
    def take(self, blob: bytes, payload: bytes) -> None:
        """Check, keep and fold one operation. Raises PeerFault."""
        signed = unpack_signed(payload)
        operation = verify(Type.OPERATION, Operation, signed)
        check_operation(operation, self.group, signed.signer)
        name = operation_id(signed.body, signed.signer, signed.signature)
        if name in self.state.dag:
            return
        with self._database.commit():
            self._insert(name, payload)
        self._fold(name, operation)

    def missing(self) -> Sequence[bytes]:
        """Parents that are not here."""
        return self.state.dag.missing()

    def name_gap(self, operation: bytes) -> None:
        """Every server was asked for `operation` in vain (D18)."""
        with self._database.commit():
            self._database.run("insert or ignore into gaps values (?, ?)", (self.group, operation))
        self.state.dag.name_gap(operation)

    # --- writing -------------------------------------------------------------------------------
    def prepare(
        self, key: SigningKey, kind: str, entries: bytes, *, counted: bool = True
    ) -> Written:
        """A new operation on top of everything known. `store` it with its blob, then `fold`. A
        person's root does not count its operations."""
        operation = Operation(
            group=self.group,
            author=key.public,
            parents=self.state.dag.parents(),
            kind=kind,
            version=VERSIONS[kind],
            entries=entries,
            n=self.state.next_n(key.public) if counted else 0,
        )
        signed = sign(key, Type.OPERATION, operation)
        name = operation_id(signed.body, signed.signer, signed.signature)
        return Written(name, operation, pack(signed))

    def store(self, written: Written) -> None:
        """Keep an operation made here; part of the transaction that puts it into the outbox."""
        self._insert(written.id, written.payload)

    def fold(self, written: Written) -> None:
        """Fold an operation made here, now that it is durable."""
        self._fold(written.id, written.operation)

    def _insert(self, name: bytes, payload: bytes) -> None:
        if self._at_rest is not None:
            payload = self._at_rest.seal(OPERATION, payload)
        self._database.run(
            "insert or ignore into operations (id, grp, signed) values (?, ?, ?)",
            (name, self.group, payload),
        )

    def _fold(self, name: bytes, operation: Operation) -> None:
        self.outcomes[self.state.add(name, operation)] += 1
        if self.state.stale:
            gaps = self.state.dag.gaps()
            self.state = GroupState.load(self.group, self._operations())
            for gap in gaps:
                self.state.dag.name_gap(gap)

    def _operations(self) -> Iterator[tuple[bytes, Operation]]:
        """What is kept, as it was verified when it came."""
        rows = self._database.run(
            "select id, signed from operations where grp = ? order by number", (self.group,)
        )
        for operation, kept in rows:
            payload = self._at_rest.open(OPERATION, kept) if self._at_rest else kept
            yield operation, decode_body(Type.OPERATION, Operation, unpack_signed(payload))


class Enclosures:
    """Signed papers that lie in a log beside its operations: device statements, slot records."""

    def __init__(self, database: Database, group: bytes, at_rest: AtRest | None = None) -> None:
        self._database = database
        self._group = group
        self._at_rest = at_rest

    def all(self) -> list[bytes]:
        """Every payload kept, oldest first."""
        rows = self._database.run(
            "select payload from enclosures where grp = ? order by number", (self._group,)
        )
        if self._at_rest is None:
            return [payload for (payload,) in rows]
        return [self._at_rest.open(ENCLOSURE, payload) for (payload,) in rows]

    def keep(self, payload: bytes) -> None:
        """Keep a payload whose signature was checked. Part of the caller's transaction, if any."""
        if self._at_rest is not None:
            payload = self._at_rest.seal(ENCLOSURE, payload)
        with self._database.commit():
            self._database.run(
                "insert or ignore into enclosures (grp, payload) values (?, ?)",
                (self._group, payload),
            )


def signed_type(payload: bytes) -> Type:
    """What kind of signed object a payload is. Raises PeerFault."""
    signed: Signed = unpack_signed(payload)
    try:
        return Type(signed.body[0])
    except (IndexError, ValueError) as error:
        raise PeerFault("log payload of an undeclared type") from error
