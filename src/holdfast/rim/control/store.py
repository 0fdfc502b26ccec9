"""The control store's interface: etcd's shape with etcd's limits (D26).

Vocabulary. The store holds *keys* under one growing *revision*: every transaction that changes
anything makes one revision. A key remembers the revision that created it, the one that last
changed it, and how often it changed since (`version`). A *lease* is a time to live that several
keys may hang on; when it ends, they are deleted in one revision. A *watch* replays changes in
revision order from a revision on, one `Batch` for each revision, none lost and none twice.

Rules a caller may rely on, whatever stands under the interface (`control_conformance.py`):

* `txn` is the only way to write, is atomic and linearizable, and is durable when it returns;
* a cancelled or failed (`OperationFault`) `txn` may still have happened: read again, then decide;
* history is bounded: a watch from too far back raises `Compacted`; read the range, start anew;
* `ttl_s` and expiry are elapsed seconds of the store's Clock. A restarted store gives every lease
  its full time again, as etcd does after an election: late is safe, early is not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from holdfast.errors import OperationFault, UsageError
from holdfast.limits import TXN_OPERATIONS_MAX, VALUE_BYTES_MAX

KEY_BYTES_MAX: Final = 1_024
"""Keys are printable ASCII: a path, not a payload."""


class KeyValue(msgspec.Struct, frozen=True):
    """One key at one revision. `lease` is 0 for a key that lives until deleted."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


class Field(StrEnum):
    """What a compare looks at. An absent key has version, create and mod revision 0."""

    VERSION = "version"
    CREATE_REVISION = "create_revision"
    MOD_REVISION = "mod_revision"
    VALUE = "value"


class Relation(StrEnum):
    """How the key's field must stand to the operand."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    GREATER = ">"


class Compare(msgspec.Struct, frozen=True):
    """One condition of a transaction. A VALUE compare of an absent key never holds."""

    key: str
    field: Field
    operand: int | bytes
    relation: Relation = Relation.EQUAL


class Put(msgspec.Struct, frozen=True):
    """Set `key`; the lease given replaces the key's lease (0 is none)."""

    key: str
    value: bytes
    lease: int = 0


class Delete(msgspec.Struct, frozen=True):
    """Remove `key`; an absent one is no change."""

    key: str


class Get(msgspec.Struct, frozen=True):
    """Read `key` inside the transaction, after the operations before it."""

    key: str


Operation = Put | Delete | Get


class TxnReply(msgspec.Struct, frozen=True):
    """`reads` holds one entry per `Get` of the branch that ran, None for an absent key.

    `revision` is the store's revision after the transaction.
    """

    succeeded: bool
    revision: int
    reads: tuple[KeyValue | None, ...] = ()


class RangeReply(msgspec.Struct, frozen=True):
    """Keys in order, all as of `revision`; watch from `revision + 1` misses nothing."""

    items: tuple[KeyValue, ...]
    revision: int
    more: bool = False


class Event(msgspec.Struct, frozen=True):
    """A change of one key. A deletion has version 0, an empty value and its own mod_revision."""

    kv: KeyValue
    deleted: bool = False


class Batch(msgspec.Struct, frozen=True):
    """Everything one revision changed under the watched prefix."""

    revision: int
    events: tuple[Event, ...]


class Compacted(OperationFault):
    """The history before `revision` is gone: read the range again and watch from there."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"history before revision {revision} is compacted; read again, then watch")
        self.revision = revision


class LeaseGone(OperationFault):
    """The lease has expired or was revoked; its keys are deleted. Grant a new one."""

    def __init__(self, lease: int) -> None:
        super().__init__(f"lease {lease} is gone; grant a new one", retryable=False)
        self.lease = lease


class ControlStore(Protocol):
    """What HQ stands on. Every method may raise OperationFault; bad arguments raise UsageError."""

    async def get(self, key: str) -> KeyValue | None:
        """The key as it is now."""
        ...

    async def range(self, prefix: str, limit: int = 0, after: str = "") -> RangeReply:
        """Keys that start with `prefix`, in order, at most `limit` (0: all), after key `after`."""
        ...

    async def txn(
        self,
        compares: Sequence[Compare],
        success: Sequence[Operation],
        failure: Sequence[Operation] = (),
    ) -> TxnReply:
        """Run `success` if every compare holds, else `failure`; all of it or nothing.

        Raises UsageError past D26's limits, for a key written twice, or for a malformed key;
        LeaseGone when a Put names a lease that is not there.
        """
        ...

    def watch(self, prefix: str, from_revision: int) -> AsyncIterator[Batch]:
        """Changes under `prefix` at or after `from_revision`, for ever. Raises Compacted."""
        ...

    async def grant(self, ttl_s: float) -> int:
        """A new lease, alive for `ttl_s` elapsed seconds; never 0."""
        ...

    async def keep_alive(self, lease: int) -> None:
        """Start the lease's time again. Raises LeaseGone."""
        ...

    async def revoke(self, lease: int) -> None:
        """End the lease now and delete its keys; a lease that is gone is no error."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget superseded values at or before `revision`; what is current stays."""
        ...

    async def revision(self) -> int:
        """The newest revision; 0 for a store never written."""
        ...

    async def close(self) -> None:
        """Release the store; open watches end."""
        ...


def absent(key: str) -> Compare:
    """Holds when `key` does not exist."""
    return Compare(key, Field.VERSION, 0)


def present(key: str) -> Compare:
    """Holds when `key` exists."""
    return Compare(key, Field.VERSION, 0, Relation.GREATER)


def unchanged(key: str, kv: KeyValue | None) -> Compare:
    """Holds when `key` is still exactly what was read: `kv`, or absent for None."""
    return Compare(key, Field.MOD_REVISION, kv.mod_revision if kv else 0)


def value_is(key: str, value: bytes) -> Compare:
    """Holds when `key` exists and holds `value`."""
    return Compare(key, Field.VALUE, value)


def check_key(key: str) -> None:
    """Raise UsageError unless `key` is 1 to KEY_BYTES_MAX printable ASCII characters."""
    if not 0 < len(key) <= KEY_BYTES_MAX or not (key.isascii() and key.isprintable()):
        raise UsageError(f"control key {key[:64]!r} is not 1-{KEY_BYTES_MAX} printable characters")


def check_txn(
    compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation]
) -> None:
    """Raise UsageError for what etcd would refuse: too many, too large, twice the same key."""
    if max(len(compares), len(success), len(failure)) > TXN_OPERATIONS_MAX:
        raise UsageError(f"transaction of more than {TXN_OPERATIONS_MAX} operations; cut it up")
    for compare in compares:
        check_key(compare.key)
        wants_bytes = compare.field is Field.VALUE
        if isinstance(compare.operand, bytes) is not wants_bytes:
            raise UsageError(f"compare of {compare.field} with a {type(compare.operand).__name__}")
    for branch in (success, failure):
        written: set[str] = set()
        for operation in branch:
            check_key(operation.key)
            if isinstance(operation, Get):
                continue
            if operation.key in written:
                raise UsageError(f"transaction writes {operation.key} twice")
            written.add(operation.key)
            if isinstance(operation, Put) and len(operation.value) > VALUE_BYTES_MAX:
                raise UsageError(
                    f"value of {operation.key} is {len(operation.value)} bytes, "
                    f"limit {VALUE_BYTES_MAX}; store it in chunks"
                )
