"""The access layer on the wire: what HQ orders of entries and cores, what they report, what a
client's configuration is rendered from.

Orders ride in `wire.hq.Desired.access`; they are whole, never a difference. An entry or a core is
told of its own cell and of nothing else (seed 001: zero trust between nodes).

| method and path                   | who            | shape                             |
|-----------------------------------|----------------|-----------------------------------|
| POST /v1/access/usage             | entry, core    | UsageReport -> UsageReceipt       |
| GET  /v1/access/subscription/{token} | token       | -> SubscriptionView               |
"""

from __future__ import annotations

from holdfast.logic.access.choice import Target
from holdfast.logic.access.model import CellId, ExitPolicy, PathEpoch, Transport
from holdfast.logic.access.subscription import (
    Endpoint,
    SubscriptionState,
    SubscriptionView,
    Usage,
)
from holdfast.wire.codec import Message


class User(Message):
    """One device as an entry's Xray knows it: an opaque id, its credential, its lane."""

    device: str
    credential: str
    lane: str


class Lane(Message):
    """Where the devices of one owner go. `label` is opaque: equal owners, equal labels."""

    label: str
    targets: tuple[Target, ...]


class EntryOrders(Message):
    """What an entry must know: its cell's name and paths, its users, the cores."""

    cell: CellId
    domain: str
    core_domain: str
    epochs: tuple[PathEpoch, ...]
    users: tuple[User, ...]
    lanes: tuple[Lane, ...]
    crls: tuple[bytes, ...] = ()
    """DER, one for each issuer of certificates in use."""


class CoreOrders(Message):
    """What a core must know: whom it answers and what its owner allows."""

    cell: CellId
    core_domain: str
    lane: str
    """The label of its owner's lane."""
    policy: ExitPolicy
    reserve_left: int
    """Bytes that others may still use, as of `counted`."""
    total_left: int
    """Bytes that everybody may still use; -1 for no cap."""
    counted: int = 0
    """The sequence of the last usage report that the two above include."""
    crls: tuple[bytes, ...] = ()


class Counter(Message):
    """Bytes since the reporter's counters began; they only grow."""

    subject: str
    """A device on an entry; a lane's label, or empty for all others, on a core."""
    upload: int
    download: int


class UsageReport(Message):
    """All counters of one incarnation that moved since the last receipt. Sending it twice, late or
    out of order counts nothing twice: HQ keeps the highest value of each counter."""

    incarnation: bytes
    """16 random bytes, minted with the spool."""
    sequence: int
    counters: tuple[Counter, ...]


class UsageReceipt(Message):
    """HQ has it for good, up to `sequence`."""

    sequence: int


__all__ = [
    "CoreOrders",
    "Counter",
    "Endpoint",
    "EntryOrders",
    "Lane",
    "SubscriptionState",
    "SubscriptionView",
    "Target",
    "Transport",
    "Usage",
    "UsageReceipt",
    "UsageReport",
    "User",
]
