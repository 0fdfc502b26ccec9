"""Whether a client follows a new slot record (D4, D1).

HQ signs slot records; a hostile HQ could sign one that names six servers of its own. So a client
follows only gradually. Against the record it follows now, a new one must

* name exactly three relays and three replicas, no name and no node twice (the first one too);
* be of the same network and slot, and of a higher version;
* keep at least 2 of the 3 relays and 2 of the 3 replicas. A seat is kept when both its logical
  name and its node id are: a new machine behind an old name is a change of that seat;
* come at least ten minutes after the previous change it followed. The clock runs per role: one
  relay and one replica in ten minutes is what one record may change, in one step or in two;
* be cosigned by `witnesses_needed` owners of the witness set, as being in the log; none are asked
  for while the network has not two such owners, and the record then counts as *unwitnessed*,
  which clients show.

A record that `OVERRIDE_OWNERS` owners of the witness set have signed an override for is followed
whatever it changes and whenever it comes; its shape and version still count.

New addresses of the same nodes change no seat and are followed at once. What is refused as too
soon is followed when its time comes; what is too different needs an override, or another locator
from somebody trusted. Times are elapsed seconds of the caller's clock, so drills can scale them.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from holdfast.limits import RECORD_CHANGE_S_MIN
from holdfast.limits.trust import WITNESSES_NEEDED
from holdfast.logic.fleet.model import Seat, SlotRecord

KEPT_MIN = 2
OVERRIDE_OWNERS = WITNESSES_NEEDED
NEVER = float("-inf")


class Known(msgspec.Struct, frozen=True):
    """The record a client follows, and when it last followed a change of each role's seats."""

    record: SlotRecord
    relays_changed_at: float = NEVER
    replicas_changed_at: float = NEVER
    witnesses: int = 0

    @property
    def unwitnessed(self) -> bool:
        """Shown to people as such."""
        return self.witnesses < WITNESSES_NEEDED


class Verdict(StrEnum):
    """Why a record is followed or not."""

    ADOPT = "adopt"
    SAME = "same"
    OLDER = "older"
    MISSHAPEN = "misshapen"
    """Not three relays and three replicas: extra seats would let strangers in uncounted."""
    FOREIGN = "foreign"
    CONFLICT = "conflict"
    """The version we know, with other contents: HQ signed both. Keep them as evidence."""
    UNWITNESSED = "unwitnessed"
    TOO_DIFFERENT = "too different"
    TOO_SOON = "too soon"


class Judgement(msgspec.Struct, frozen=True):
    """`known` is what to follow from now on. `retry_at` is set for TOO_SOON."""

    verdict: Verdict
    known: Known | None
    relays_kept: int = 0
    replicas_kept: int = 0
    retry_at: float = 0.0


def judge(
    known: Known | None,
    offered: SlotRecord,
    now: float,
    *,
    witnesses: int = 0,
    witnesses_needed: int = 0,
    approved: int = 0,
) -> Judgement:
    """Judge `offered`, whose signature the caller has verified, at elapsed time `now`.

    With nothing known the record is the first and is followed: its signer is vouched for by a
    pinned root, and there is nothing to compare it with.
    """
    if not offered.is_whole():
        return Judgement(Verdict.MISSHAPEN, known)
    if known is None:
        return Judgement(Verdict.ADOPT, Known(offered, witnesses=witnesses))
    refusal = _refusal(known.record, offered)
    if refusal is not None:
        return Judgement(refusal, known)
    relays, relays_change = _compare(known.record.relays, offered.relays)
    replicas, replicas_change = _compare(known.record.replicas, offered.replicas)
    overridden = approved >= OVERRIDE_OWNERS
    if (relays < KEPT_MIN or replicas < KEPT_MIN) and not overridden:
        return Judgement(Verdict.TOO_DIFFERENT, known, relays, replicas)
    if not overridden and (relays_change or replicas_change) and witnesses < witnesses_needed:
        return Judgement(Verdict.UNWITNESSED, known, relays, replicas)
    retry_at = max(
        known.relays_changed_at + RECORD_CHANGE_S_MIN if relays_change else NEVER,
        known.replicas_changed_at + RECORD_CHANGE_S_MIN if replicas_change else NEVER,
    )
    if now < retry_at and not overridden:
        return Judgement(Verdict.TOO_SOON, known, relays, replicas, retry_at)
    adopted = Known(
        offered,
        now if relays_change else known.relays_changed_at,
        now if replicas_change else known.replicas_changed_at,
        witnesses,
    )
    return Judgement(Verdict.ADOPT, adopted, relays, replicas)


def _refusal(current: SlotRecord, offered: SlotRecord) -> Verdict | None:
    """What the versions alone decide."""
    if (offered.network, offered.slot) != (current.network, current.slot):
        return Verdict.FOREIGN
    if offered.version < current.version:
        return Verdict.OLDER
    if offered.version == current.version:
        return Verdict.SAME if offered == current else Verdict.CONFLICT
    return None


def _compare(current: tuple[Seat, ...], offered: tuple[Seat, ...]) -> tuple[int, bool]:
    """How many seats both have with the same node, and whether any seat differs."""
    before, after = ({(seat.name, seat.node) for seat in seats} for seats in (current, offered))
    return len(before & after), before != after
