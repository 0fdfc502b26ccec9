"""What happens to the fleet, and what it asks of the world in return.

Events are what the driver feeds to `Fleet.step`; orders are what it finds in `Effects.send`. Each
order is answered by an event; an order that was lost in a crash is given again, so the driver
carries out every order in a way that repeating it does no harm (D25).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast.logic.fleet.model import Load, NodeId, SlotId
from holdfast.logic.fleet.rows import IntentRow, NodeRow
from holdfast.logic.fleet.tiers import Witnessed


# --- Events --------------------------------------------------------------------------------------
class Beat(msgspec.Struct, frozen=True):
    """A node's heartbeat, its certificate verified."""

    node: NodeId
    load: Load
    addresses: tuple[str, ...] = ()
    filled: bool = False
    filled_of: bytes = b""
    """The records it means (`logic.fleet.filled`); empty from a node that does not say."""


class Joined(msgspec.Struct, frozen=True):
    """A node has its certificate; the row is already durable."""

    row: NodeRow


class Left(msgspec.Struct, frozen=True):
    """A node asks to go. It serves on until somebody has taken its seat."""

    node: NodeId
    reason: str


class Retire(msgspec.Struct, frozen=True):
    """An entry or a core has nothing left to do: its clients went elsewhere."""

    node: NodeId
    reason: str


class Revoked(msgspec.Struct, frozen=True):
    """A node is on the revocation list."""

    node: NodeId


class Machine(msgspec.Struct, frozen=True):
    """A machine as its provider lists it. `name` is the id of the intent that ordered it."""

    name: str
    running: bool


class Surveyed(msgspec.Struct, frozen=True):
    """A provider listed its machines (None: it did not answer)."""

    provider: str
    machines: tuple[Machine, ...] | None


class Ordered(msgspec.Struct, frozen=True):
    """The provider accepted the spawn, now or before."""

    intent: str


class OrderFailed(msgspec.Struct, frozen=True):
    """It did not. `final` is a plain no; otherwise the order may even have gone through."""

    intent: str
    error: str
    final: bool


class Reaped(msgspec.Struct, frozen=True):
    """The machine of a reap intent is gone, or never was."""

    intent: str


class ReapFailed(msgspec.Struct, frozen=True):
    intent: str
    error: str


class Pointed(msgspec.Struct, frozen=True):
    """DNS says where `name` is; `node` is what it says now."""

    name: str
    node: NodeId


class PointFailed(msgspec.Struct, frozen=True):
    name: str
    error: str


class Launch(msgspec.Struct, frozen=True):
    """The operator wants a relay and a replica in every region at every provider (§11.1), or
    `per_region` of each role in every region, spread over the providers."""

    providers: Sequence[str]
    regions: Sequence[str]
    per_region: int = 0


class Allocate(msgspec.Struct, frozen=True):
    """A new group wants a slot near `region`."""

    region: str


class Populate(msgspec.Struct, frozen=True):
    """So many groups of one region come at once, from elsewhere."""

    region: str
    groups: int


class Confirm(msgspec.Struct, frozen=True):
    """The operator confirms that the loss is real: the freeze ends (D29)."""

    author: str


class StandsBy(msgspec.Struct, frozen=True):
    """The machine of a standby intent asked whether it is needed."""

    intent: str


class KeepStandbys(msgspec.Struct, frozen=True):
    """The operator wants so many machines standing by in every region of every provider."""

    per_place: int


class Rebalance(msgspec.Struct, frozen=True):
    """An operator wants slots moved until loads are even; again sets a new pace."""

    author: str
    moves_per_min: int


class StopRebalance(msgspec.Struct, frozen=True):
    """No more moves; those under way are carried through."""

    author: str


class Rotate(msgspec.Struct, frozen=True):
    """An operator wants these servers on fresh machines, the oldest first."""

    names: tuple[str, ...]
    author: str
    at_once: int


class ScheduleRotation(msgspec.Struct, frozen=True):
    """The standing order; `every_days` 0 ends it and what waits because of it."""

    author: str
    every_days: float
    at_once: int = 1


class Tick(msgspec.Struct, frozen=True):
    """Time went by. Once a second does; `Effects.timers` names no earlier need."""


Event = (
    Witnessed
    | Beat
    | Joined
    | Left
    | Retire
    | Revoked
    | Surveyed
    | Ordered
    | OrderFailed
    | Reaped
    | ReapFailed
    | Pointed
    | PointFailed
    | Launch
    | Allocate
    | Populate
    | Confirm
    | StandsBy
    | KeepStandbys
    | Rebalance
    | StopRebalance
    | Rotate
    | ScheduleRotation
    | Tick
)


# --- Orders --------------------------------------------------------------------------------------
class Order(msgspec.Struct, frozen=True):
    """Spawn: list, and create under the intent's id unless it is listed, with one join token. The
    machine of a warm intent is there: its token is given a name."""

    intent: IntentRow


class Reap(msgspec.Struct, frozen=True):
    """Delete the machine `intent.resource` at `intent.provider`."""

    intent: IntentRow


class Point(msgspec.Struct, frozen=True):
    """Make DNS say where `name` is. `previous` is the node it should say now, empty for any."""

    name: str
    addresses: tuple[str, ...]
    node: NodeId
    previous: NodeId = b""


class Survey(msgspec.Struct, frozen=True):
    """List the machines of `provider`."""

    provider: str


class Granted(msgspec.Struct, frozen=True):
    """The answer to `Allocate`; None when there is no slot yet."""

    slot: SlotId | None


class Populated(msgspec.Struct, frozen=True):
    """The answer to `Populate`: (slot, groups) of each slot that got some."""

    shares: tuple[tuple[SlotId, int], ...]


Send = Order | Reap | Point | Survey | Granted | Populated
