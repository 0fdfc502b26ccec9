"""What HQ writes down of releases and rollouts (ADR 0041).

| key                     | row        |
|-------------------------|------------|
| /releases/<id hex>      | ReleaseRow |
| /fleet/rollout          | RolloutRow: the one under way, or the last |
| /fleet/places/<server>  | PlaceRow: what a server is to run |

Whether a server is well is soft state, as all liveness is (D27): an HQ that starts anew waits the
whole soak again. Times are Unix seconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

RELEASES: Final = "/releases/"
ROLLOUT: Final = "/fleet/rollout"
PLACES: Final = "/fleet/places/"


class RolloutState(StrEnum):
    """canary -> rolling -> done; halted by an operator; back and backed by one, or by a fault."""

    CANARY = "canary"
    ROLLING = "rolling"
    HALTED = "halted"
    DONE = "done"
    BACK = "back"
    BACKED = "backed"


class Phase(StrEnum):
    """A server in a rollout: waiting -> ordered -> kept; or back -> backed."""

    WAITING = "waiting"
    ORDERED = "ordered"
    KEPT = "kept"
    BACK = "back"
    BACKED = "backed"


class ReleaseRow(msgspec.Struct, frozen=True):
    """A release that HQ may hand out; `staple` as MessagePack, as it was signed."""

    id: bytes
    name: str
    version: str
    staple: bytes
    added_at: float
    added_by: str


class RolloutRow(msgspec.Struct, frozen=True):
    """One release on its way through the fleet. `release` and `back_to` are ids, empty for what is
    installed on each node."""

    id: str
    release: bytes
    back_to: bytes
    canary: str
    """The region that goes first."""
    state: RolloutState
    author: str
    started_at: float
    at_once: int = 1
    soak_s: float = 0.0
    """Unix seconds a server must be well before it is kept."""
    halting: bool = True
    """Whether a regression takes everything back."""
    required_at: float = 0.0
    """From then on owners who defer are asked all the same; 0: never."""
    reason: str = ""
    """Why it halted or went back."""
    strays: tuple[bytes, ...] = ()
    """Releases of rollouts that this one cut short on their way back: whoever still runs one is
    taken back too, should this one go back."""


class PlaceRow(msgspec.Struct, frozen=True):
    """What the server of this name is to run, whoever sits there."""

    name: str
    release: bytes = b""
    phase: Phase = Phase.WAITING
    ordered_at: float = 0.0
    share_before: float = 0.0
    """Share of its requests that failed by its own fault, before it was ordered."""
    deferred_until: float = 0.0
    """An operator puts it off until then."""
    rollout: str = ""
    """The rollout whose phase this is; in any other the server is waiting."""


def place_key(name: str) -> str:
    """Key of a PlaceRow."""
    return PLACES + name


def default_release(rollout: RolloutRow | None) -> bytes:
    """What a server without a place of its own runs: the release that went all the way."""
    if rollout is None:
        return b""
    return rollout.release if rollout.state is RolloutState.DONE else rollout.back_to
