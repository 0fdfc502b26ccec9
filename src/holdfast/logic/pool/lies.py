"""What a server can be caught at, in one word each, and which faults of an answer are lies.

A lie is named only when what the server says contradicts itself: its own signature, its own
earlier answer, or the hash of what it sent. A server that lacks what others have may just not have
been told yet, and is not accused of anything.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Lie(StrEnum):
    """Kinds of findings. The words are shown to people and kept on disk."""

    TAMPERED = "tampered"
    ORDER = "order"
    NONSENSE = "nonsense"
    RECEIPT = "receipt"
    ATTESTATION = "attestation"
    CONFLICT = "conflict"
    DENIES = "denies"
    LOST = "lost"
    ROLLS_BACK = "rolls-back"
    WITHHOLDS = "withholds"
    SWAPS_GROUPS = "swaps-groups"
    FALSE_HEAD = "false-head"
    WILL_NOT_SIGN = "will-not-sign"
    FALSE_HEALTH = "false-health"
    FALSE_SUMS = "false-sums"


MEANING: Final[dict[Lie, str]] = {
    Lie.TAMPERED: "serves bodies that are not the blobs asked for",
    Lie.ORDER: "shows items out of order, or again",
    Lie.NONSENSE: "answers what is no answer",
    Lie.RECEIPT: "gives receipts that do not verify",
    Lie.ATTESTATION: "signs what it was not asked",
    Lie.CONFLICT: "signed receipts that contradict each other",
    Lie.DENIES: "denies what it signed for",
    Lie.LOST: "came back without what it signed for",
    Lie.ROLLS_BACK: "knows less than it did",
    Lie.WITHHOLDS: "does not show what it signed for",
    Lie.SWAPS_GROUPS: "shows blobs that are not this group's",
    Lie.FALSE_HEAD: "claims numbers it cannot show",
    Lie.WILL_NOT_SIGN: "does not sign what it says",
    Lie.FALSE_HEALTH: "says that it is well and refuses",
    Lie.FALSE_SUMS: "sums up other items than it shows",
}
assert set(MEANING) == set(Lie), "every lie has a meaning"

BY_CODE: Final[dict[str, Lie]] = {
    "tampered": Lie.TAMPERED,
    "order": Lie.ORDER,
    "nonsense": Lie.NONSENSE,
    "receipt": Lie.RECEIPT,
    "attestation": Lie.ATTESTATION,
}
"""Codes of PeerFaults that the client raises itself about an answer. A server that sends one of
them as its error has invented a code, and may be called by it."""
