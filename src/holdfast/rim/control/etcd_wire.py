"""etcd's JSON gateway in our words: keys and values in base64, 64-bit numbers as strings.

An empty etcd stands at revision 1, ours at 0, so every revision is shifted by one at this border.
Structs name only the fields that are read; etcd leaves out what is zero.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from holdfast.rim.control.store import (
    Batch,
    Compare,
    Delete,
    Event,
    Field,
    Get,
    KeyValue,
    Operation,
    Put,
    Relation,
    TxnReply,
)

PREFIX_END: Final = "\x7f"
"""Sorts after every character a key may hold."""
_TARGETS: Final = {
    Field.VERSION: ("VERSION", "version"),
    Field.CREATE_REVISION: ("CREATE", "create_revision"),
    Field.MOD_REVISION: ("MOD", "mod_revision"),
    Field.VALUE: ("VALUE", "value"),
}
_RELATIONS: Final = {
    Relation.EQUAL: "EQUAL",
    Relation.NOT_EQUAL: "NOT_EQUAL",
    Relation.LESS: "LESS",
    Relation.GREATER: "GREATER",
}


class Header(msgspec.Struct):
    """What every answer begins with."""

    revision: int = 1


class Kv(msgspec.Struct):
    """mvccpb.KeyValue."""

    key: bytes = b""
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0
    lease: int = 0


class Range(msgspec.Struct):
    """RangeResponse."""

    header: Header = msgspec.field(default_factory=Header)
    kvs: list[Kv] = []
    more: bool = False


class OpReply(msgspec.Struct):
    """ResponseOp; only reads are looked at."""

    response_range: Range | None = None


class Txn(msgspec.Struct):
    """TxnResponse."""

    header: Header
    succeeded: bool = False
    responses: list[OpReply] = []


class Grant(msgspec.Struct):
    """LeaseGrantResponse."""

    ID: int = 0


class KeepAlive(msgspec.Struct):
    """LeaseKeepAliveResponse, in a stream; a TTL of zero says that the lease is gone."""

    TTL: int = 0


class KeepAliveLine(msgspec.Struct):
    """One message of that stream."""

    result: KeepAlive = msgspec.field(default_factory=KeepAlive)


class Change(msgspec.Struct):
    """mvccpb.Event."""

    kv: Kv
    type: str = "PUT"


class Watched(msgspec.Struct):
    """WatchResponse."""

    header: Header = msgspec.field(default_factory=Header)
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: list[Change] = []


class WatchLine(msgspec.Struct):
    """One message of a watch."""

    result: Watched | None = None
    error: dict[str, Any] | None = None


class Fault(msgspec.Struct):
    """What the gateway says when it says no."""

    error: str = ""
    code: int = 0


def ours(revision: int) -> int:
    """etcd's revision in our count."""
    return revision - 1


def theirs(revision: int) -> int:
    """Our revision in etcd's count."""
    return revision + 1


def text(data: bytes | str) -> str:
    """Base64 of a key or value."""
    return b64encode(data.encode() if isinstance(data, str) else data).decode()


def key_value(kv: Kv) -> KeyValue:
    """A living key."""
    return KeyValue(
        kv.key.decode(),
        kv.value,
        ours(kv.create_revision),
        ours(kv.mod_revision),
        kv.version,
        kv.lease,
    )


def batches(watched: Watched) -> list[Batch]:
    """Events of one message by revision; etcd never cuts a revision in two."""
    found: dict[int, list[Event]] = {}
    for change in watched.events:
        deleted = change.type == "DELETE"
        kv = change.kv
        if deleted:
            gone = KeyValue(kv.key.decode(), b"", 0, ours(kv.mod_revision), 0)
            event = Event(gone, deleted=True)
        else:
            event = Event(key_value(kv))
        found.setdefault(event.kv.mod_revision, []).append(event)
    return [Batch(revision, tuple(events)) for revision, events in sorted(found.items())]


def span(prefix: str, after: str = "") -> dict[str, str]:
    """The keys that start with `prefix` and come after `after`."""
    start = max(prefix, after + "\x00") if after else prefix
    return {"key": text(start), "range_end": text(prefix + PREFIX_END)}


def txn_body(
    compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation]
) -> dict[str, Any]:
    """TxnRequest."""
    return {
        "compare": [_compare(compare) for compare in compares],
        "success": [_operation(operation) for operation in success],
        "failure": [_operation(operation) for operation in failure],
    }


def txn_reply(reply: Txn, branch: Sequence[Operation]) -> TxnReply:
    """The answers to the `Get`s of the branch that ran."""
    reads: list[KeyValue | None] = []
    for operation, answer in zip(branch, reply.responses, strict=True):
        if isinstance(operation, Get):
            kvs = answer.response_range.kvs if answer.response_range else []
            reads.append(key_value(kvs[0]) if kvs else None)
    return TxnReply(reply.succeeded, ours(reply.header.revision), tuple(reads))


def _compare(compare: Compare) -> dict[str, Any]:
    target, name = _TARGETS[compare.field]
    operand: Any = compare.operand
    if isinstance(operand, bytes):
        operand = text(operand)
    elif compare.field is not Field.VERSION and operand > 0:
        operand = str(theirs(operand))
    else:
        operand = str(operand)  # an absent key stands at zero on both sides
    return {
        "key": text(compare.key),
        "target": target,
        "result": _RELATIONS[compare.relation],
        name: operand,
    }


def _operation(operation: Operation) -> dict[str, Any]:
    match operation:
        case Put():
            put: dict[str, Any] = {"key": text(operation.key), "value": text(operation.value)}
            if operation.lease:
                put["lease"] = str(operation.lease)
            return {"request_put": put}
        case Delete():
            return {"request_delete_range": {"key": text(operation.key)}}
        case Get():
            return {"request_range": {"key": text(operation.key)}}
