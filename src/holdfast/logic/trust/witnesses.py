"""Whose cosignatures a client counts, and how that may change (D4, ADR 0010).

HQ names the witnesses in a signed, logged statement. A hostile HQ could name witnesses of its own;
so a client follows a new set only gradually. Against the set it follows now, once that has two
owners, a new one must

* be of a higher version, and keep two owners: there is no way back to none;
* differ in the nodes of at most one owner, who comes, goes, or changes machines: fewer than the
  two owners that a record needs;
* come at least an hour after the last change it followed;
* be in the log, cosigned by two owners of the set followed now.

The first set is believed as the first record is: two servers showed it. What is too different is
not followed, and the old set goes on counting. `next_set` is how an honest HQ keeps to this.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum

import msgspec

from holdfast.crypto.pure import node_id
from holdfast.limits.trust import (
    WITNESS_CHANGE_S_MIN,
    WITNESSES_MAX,
    WITNESSES_NEEDED,
    WITNESSES_PER_OWNER_MAX,
)
from holdfast.logic.fleet.model import NetworkId, Version


class WitnessKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node that cosigns: its Ed25519 identity key, and whose node it is."""

    identity: bytes
    owner: str

    @property
    def node(self) -> bytes:
        """Its node id."""
        return node_id(self.identity)


class WitnessSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a `Type.WITNESSES` signature. `witnesses` are sorted by (owner, identity)."""

    network: NetworkId
    version: Version
    issued_at: int
    witnesses: tuple[WitnessKey, ...]

    @property
    def owners(self) -> frozenset[str]:
        """Everybody who has a witness in it."""
        return frozenset(key.owner for key in self.witnesses)

    @property
    def needed(self) -> int:
        """Owners that a changed record must bring: 2, or 0 while there are not two (D4)."""
        return WITNESSES_NEEDED if len(self.owners) >= WITNESSES_NEEDED else 0

    def of(self, owner: str) -> frozenset[bytes]:
        """The identities that count for an owner."""
        return frozenset(key.identity for key in self.witnesses if key.owner == owner)

    def is_sound(self) -> bool:
        """Bounded, and no key in it twice: one key must not speak for two owners."""
        keys = {key.identity for key in self.witnesses}
        sized = all(len(key.identity) == 32 and key.owner for key in self.witnesses)
        return sized and len(keys) == len(self.witnesses) <= WITNESSES_MAX


class SetVerdict(StrEnum):
    """Why a set is followed or not."""

    ADOPT = "adopt"
    SAME = "same"
    OLDER = "older"
    CONFLICT = "conflict"
    MISSHAPEN = "misshapen"
    UNWITNESSED = "unwitnessed"
    TOO_DIFFERENT = "too different"
    TOO_SOON = "too soon"


def changed_owners(before: WitnessSet, after: WitnessSet) -> frozenset[str]:
    """Owners whose nodes are not the same in both."""
    return frozenset(
        owner for owner in before.owners | after.owners if before.of(owner) != after.of(owner)
    )


def judge_set(
    known: WitnessSet | None, offered: WitnessSet, *, since_s: float, cosigners: int
) -> SetVerdict:
    """Judge a set whose signature the caller verified. `since_s`: elapsed seconds since the last
    change that was followed; `cosigners`: owners of the known set that cosigned its leaf."""
    if not offered.is_sound():
        return SetVerdict.MISSHAPEN
    if known is None:
        return SetVerdict.ADOPT
    if offered.network != known.network:
        return SetVerdict.MISSHAPEN
    if offered.version <= known.version:
        if offered.version < known.version:
            return SetVerdict.OLDER
        return SetVerdict.SAME if offered == known else SetVerdict.CONFLICT
    changed = changed_owners(known, offered)
    if not known.needed or not changed:
        return SetVerdict.ADOPT
    if len(changed) >= WITNESSES_NEEDED or len(offered.owners) < WITNESSES_NEEDED:
        return SetVerdict.TOO_DIFFERENT
    if cosigners < known.needed:
        return SetVerdict.UNWITNESSED
    return SetVerdict.TOO_SOON if since_s < WITNESS_CHANGE_S_MIN else SetVerdict.ADOPT


class Candidate(msgspec.Struct, frozen=True):
    """A node that may be named: the longest-serving ones of each owner are."""

    key: WitnessKey
    joined_at: float


def next_set(
    current: WitnessSet, candidates: Collection[Candidate], *, since_s: float
) -> tuple[WitnessKey, ...] | None:
    """The witnesses of the next set, one careful step from the current one; None to leave it.

    A member stays while its node does: sets that change seldom are followed by everybody.
    """
    wanted = _wanted(current, candidates)
    if wanted == current.witnesses:
        return None
    proposed = msgspec.structs.replace(current, witnesses=wanted)
    if not current.needed:
        return wanted
    if since_s < WITNESS_CHANGE_S_MIN:
        return None
    for owner in sorted(changed_owners(current, proposed)):
        others = (key for key in current.witnesses if key.owner != owner)
        theirs = (key for key in wanted if key.owner == owner)
        step = _ordered([*others, *theirs])
        stepped = msgspec.structs.replace(current, witnesses=step)
        if len(stepped.owners) >= WITNESSES_NEEDED and len(step) <= WITNESSES_MAX:
            return step
    return None


def _wanted(current: WitnessSet, candidates: Collection[Candidate]) -> tuple[WitnessKey, ...]:
    """Two nodes of each of the eight owners who have been here longest."""
    members = set(current.witnesses)

    def seniority(item: Candidate) -> tuple[bool, float, bytes]:
        return item.key not in members, item.joined_at, item.key.identity

    by_owner: dict[str, list[WitnessKey]] = {}
    for item in sorted(candidates, key=seniority):
        by_owner.setdefault(item.key.owner, []).append(item.key)
    owners = list(by_owner)[: WITNESSES_MAX // WITNESSES_PER_OWNER_MAX]
    return _ordered(key for owner in owners for key in by_owner[owner][:WITNESSES_PER_OWNER_MAX])


def _ordered(keys: Iterable[WitnessKey]) -> tuple[WitnessKey, ...]:
    return tuple(sorted(keys, key=lambda key: (key.owner, key.identity)))
