"""The audit chain: every line names the hash of the line before it.

A row is stored as the MessagePack of `AuditRow`; its hash is BLAKE3 over exactly those bytes, and
the next row's `previous` is that hash. The first row's `previous` is 32 zero bytes. Change, drop,
add or reorder one row and every later link breaks; cut the end off and only somebody who remembers
a later head can tell, which is why heads are shown, exported and put into the transparency log,
whose witnesses hold HQ to them.

The export is JSON Lines for programs outside HQ: one object per row with its fields readable, and
the stored bytes themselves in base64 (`row`), which alone are what the chain vouches for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.rows import AuditRow
from holdfast.logic.trust import directory
from holdfast.logic.trust.directory import Leaf

AUDIT: Final = "/audit/"
AUDIT_HEAD: Final = "/audit-head"
"""The newest sequence and hash, changed in the transaction that adds rows."""
GENESIS: Final = bytes(32)
SEQUENCE_DIGITS: Final = 16


class Head(msgspec.Struct, frozen=True):
    """How far the chain goes. Sequence 0 is the empty chain; the first row is number 1."""

    sequence: int = 0
    hash: bytes = GENESIS


class Break(msgspec.Struct, frozen=True):
    """A place where the chain does not hold, and why. `sequence` is the row's place, from 1."""

    sequence: int
    problem: str


def audit_key(sequence: int) -> str:
    """The control-store key of row `sequence`."""
    return f"{AUDIT}{sequence:0{SEQUENCE_DIGITS}}"


def extend(
    head: Head, lines: Sequence[Audit], *, at: float, term: int, author: str
) -> tuple[list[bytes], Head]:
    """The rows for `lines` after `head`, as stored, and the head they make."""
    stored = []
    for line in lines:
        row = AuditRow(
            sequence=head.sequence + 1,
            at=at,
            term=term,
            author=author,
            verb=line.verb,
            subject=line.subject,
            detail=msgspec.json.encode(line.detail, order="sorted"),
            previous=head.hash,
        )
        data = msgspec.msgpack.encode(row)
        stored.append(data)
        head = Head(row.sequence, hash_bytes(data))
    return stored, head


def check(rows: Iterable[bytes], remembered: Sequence[Head] = ()) -> tuple[Head, list[Break]]:
    """Walk the chain from its first row; give the head it has and every break found.

    The chain must also contain every `remembered` head: what somebody saw of it earlier.
    """
    head, breaks = Head(), list[Break]()
    missing = [known for known in remembered if known != head]
    for place, data in enumerate(rows, start=1):
        try:
            row = msgspec.msgpack.decode(data, type=AuditRow)
        except (msgspec.DecodeError, ValueError) as error:
            breaks.append(Break(place, f"not an audit row: {error}"))
        else:
            if row.sequence != place:
                breaks.append(Break(place, f"row says it is number {row.sequence}"))
            if row.previous != head.hash:
                breaks.append(Break(place, "does not follow from the row before it"))
        head = Head(place, hash_bytes(data))
        missing = [known for known in missing if known != head]
    for known in missing:
        breaks.append(Break(known.sequence, "a remembered head is not in this chain"))
    return head, breaks


def head_leaf(head: Head) -> Leaf:
    """The leaf of the transparency log that makes witnesses remember a head."""
    return Leaf(directory.AUDIT_HEAD, msgspec.msgpack.encode(head))


def logged_heads(leaves: Iterable[bytes]) -> list[Head]:
    """The heads among leaves of the log: what the chain must contain. Others are passed over."""
    heads = []
    for data in leaves:
        try:
            kind, body = msgspec.msgpack.decode(data, type=tuple[str, bytes])
            if kind == directory.AUDIT_HEAD:
                heads.append(msgspec.msgpack.decode(body, type=Head))
        except (msgspec.DecodeError, ValueError):
            continue
    return heads


class ExportLine(msgspec.Struct, frozen=True):
    """One line of the export. Hashes are hex; `row` is the stored bytes."""

    sequence: int
    at: float
    term: int
    author: str
    verb: str
    subject: str
    detail: dict[str, Any]
    previous: str
    hash: str
    row: bytes


def export_line(data: bytes) -> ExportLine:
    """A stored row, readable. Raises ValueError for bytes that are no row."""
    try:
        row = msgspec.msgpack.decode(data, type=AuditRow)
        detail = msgspec.json.decode(row.detail, type=dict[str, Any])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ValueError(f"not an audit row: {error}") from error
    return ExportLine(
        sequence=row.sequence,
        at=row.at,
        term=row.term,
        author=row.author,
        verb=row.verb,
        subject=row.subject,
        detail=detail,
        previous=row.previous.hex(),
        hash=hash_bytes(data).hex(),
        row=data,
    )


def import_line(line: bytes | str) -> bytes:
    """The stored bytes in one JSON line of an export. Raises ValueError."""
    try:
        return msgspec.json.decode(line, type=ExportLine).row
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a line of an audit export: {error}") from error
