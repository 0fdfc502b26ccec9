"""The access layer on the wire: what HQ orders of entries and cores, what they report, what a
client's configuration is rendered from.

Orders ride in `wire.hq.Desired.access`; they are whole, never a difference. An entry or a core is
told of its own cell and of nothing else (seed 001: zero trust between nodes).

| method and path                   | who            | shape                             |
|-----------------------------------|----------------|-----------------------------------|
| POST /v1/access/usage             | entry, core    | UsageReport -> UsageReceipt       |
| GET  /v1/access/subscriptions/{token} | token      | -> SubscriptionView               |
"""

from __future__ import annotations

from typing import Final

from holdfast.logic.access.choice import Target
from holdfast.logic.access.model import CellId, ExitPolicy, PathEpoch, Transport
from holdfast.logic.access.subscription import (
    Endpoint,
    SubscriptionState,
    SubscriptionView,
    Usage,
)
from holdfast.logic.fleet.model import NodeId
from holdfast.wire.codec import Message

OWN: Final = "own"
"""Subject of a core's counter of its owner's traffic ..."""
RESERVE: Final = "reserve"
"""... and of everybody else's."""


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
    """PEM, one for each issuer of certificates in use."""


class CoreOrders(Message):
    """What a core must know: whom it answers and what its owner allows.

    The two `until` are values of the core's own counters, of the spool `incarnation`: what others,
    and the owner, may use before it is cut. A core with another spool counts from zero, and takes
    what is left: `reserve_until` less `reserve_counted`.
    """

    cell: CellId
    core_domain: str
    lane: str
    """The label of its owner's lane."""
    policy: ExitPolicy
    entries: tuple[NodeId, ...]
    """Whom it answers."""
    incarnation: bytes
    reserve_counted: int
    reserve_until: int
    own_until: int
    """-1 for no cap."""
    crls: tuple[bytes, ...] = ()
    """PEM, one for each issuer of certificates in use."""


class Counter(Message):
    """Bytes since the reporter's counters began; they only grow."""

    subject: str
    """A device on an entry; `OWN` or `RESERVE` on a core."""
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
    "OWN",
    "RESERVE",
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
