"""Cursors: how far this client has read, on one server, in one incarnation of its store (D14).

A cursor is (node id, incarnation, tag) -> sequence and is never compared with or carried to
another server: each server numbers blobs in its own order. Where there is no cursor for the
incarnation a server names, the client reconciles by id (`list`) and only then has one.

Three rules keep blobs from being skipped:

* a cursor moves over items, one page at a time, from where it was, and only after what they hold
  was taken or put on record as unreadable;
* it never moves to a head, nor to the sequence in a receipt: blobs of others may lie between;
* a page that says `more` is followed by the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec

from holdfast.errors import PeerFault
from holdfast.logic.fleet.model import NodeId


class Spot(msgspec.Struct, frozen=True):
    """Where a cursor belongs: one tag in one incarnation of one node's store."""

    node: NodeId
    incarnation: bytes
    tag: bytes


class Moved(msgspec.Struct, frozen=True):
    """Persist: the cursor at `spot` is `sequence`."""

    spot: Spot
    sequence: int


class Cursors:
    """All cursors of a client. The driver persists each `Moved` with what the page held."""

    def __init__(self, rows: Iterable[Moved] = ()) -> None:
        self._sequences = {row.spot: row.sequence for row in rows}

    def at(self, spot: Spot) -> int | None:
        """Where to pull from; None: unknown incarnation, reconcile by id first."""
        return self._sequences.get(spot)

    def reconciled(self, spot: Spot, head_before: int) -> Moved:
        """The store was listed whole by id, having had the head `head_before` when that began."""
        assert head_before >= 0
        moved = Moved(spot, max(head_before, self._sequences.get(spot, 0)))
        self._sequences[spot] = moved.sequence
        return moved

    def passed(self, spot: Spot, after: int, sequences: Sequence[int]) -> Moved | None:
        """A page asked for with `after` was taken in whole; None when it was empty.

        Raises PeerFault when the page does not lie behind `after` in rising order: such a server
        could make a client skip.
        """
        assert self._sequences.get(spot) == after, "a page that was not asked for from here"
        if not sequences:
            return None
        if not in_order(after, sequences):
            raise PeerFault(
                "pull reply whose items are not in order behind the cursor", code="order"
            )
        self._sequences[spot] = sequences[-1]
        return Moved(spot, sequences[-1])


def in_order(after: int, sequences: Sequence[int]) -> bool:
    """Whether the sequences of a page rise from behind `after`."""
    return all(low < high for low, high in pairwise((after, *sequences)))


class CaughtUp:
    """Whether this client has everything its slot knows for a tag (D13): two relays say so.

    A relay says so when its log was read to the end and it has the blobs that this client knows
    as the newest. A fresh, still empty relay is read to its end at once, but lacks those.
    """

    def __init__(self, quorum: int) -> None:
        self._quorum = quorum
        self._agreeing: set[str] = set()

    def read(self, name: str, *, to_the_end: bool, lacking: int) -> None:
        """The relay `name` was read; `lacking` of the newest known blobs are not there."""
        if to_the_end and not lacking:
            self._agreeing.add(name)
        else:
            self._agreeing.discard(name)

    def news(self) -> None:
        """Something new came in: earlier answers are about less than is known now."""
        self._agreeing.clear()

    @property
    def agreeing(self) -> frozenset[str]:
        """The relays that agree now."""
        return frozenset(self._agreeing)

    @property
    def yes(self) -> bool:
        """Whether enough relays agree."""
        return len(self._agreeing) >= self._quorum
