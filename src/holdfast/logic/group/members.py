"""Who may write to a group: the founder, and whoever a member added.

Membership is the least set that holds the founder and everybody added by an operation whose author
is in it. A least set does not depend on order: an operation by somebody who is not (yet) a member
waits, and is folded when the addition arrives. Removal is the business of eras (D16).

A device's name and format are a register of their own: the highest (n, operation id, index) wins;
additions count as n = 0, so a device's own word outranks what others called it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from holdfast.errors import PeerFault
from holdfast.limits import LABEL_BYTES_MAX
from holdfast.logic.group.operation import (
    FORMAT,
    Bytes32,
    Kind,
    Operation,
    OperationId,
    decode_entries,
    group_id,
)

Label = Annotated[str, msgspec.Meta(max_length=LABEL_BYTES_MAX)]
Format = Annotated[int, msgspec.Meta(ge=1, le=2**16)]


class Genesis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Entries of the one `genesis` operation: with its author it makes the group id."""

    nonce: Bytes32
    label: Label
    format: Format = FORMAT


class Added(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag=1):
    """`[1, device key, label, format]`: the author vouches for a device."""

    device: Bytes32
    label: Label
    format: Format = FORMAT


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag=2):
    """`[2, n, label, format]`: the author's own name and newest format; `n` counts from 1."""

    n: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    label: Label
    format: Format = FORMAT


class MemberEntries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Entries of a `member` operation."""

    entries: tuple[Added | Profile, ...]


class Member(msgspec.Struct, frozen=True):
    """A device of the group as its members see it."""

    device: bytes
    label: str
    format: int
    rank: tuple[int, OperationId, int]
    """(n, operation id, index) of the statement that says so."""


def check_label(label: str) -> None:
    """A label is short and on one line. Raises PeerFault."""
    if not label.isprintable() or len(label.encode()) > LABEL_BYTES_MAX:
        raise PeerFault("device label that is too long or not printable")


class Members:
    """The member set of one group."""

    def __init__(self, group: bytes) -> None:
        self._group = group
        self._members: dict[bytes, Member] = {}

    def __contains__(self, device: bytes) -> bool:
        return device in self._members

    def __len__(self) -> int:
        return len(self._members)

    def all(self) -> tuple[Member, ...]:
        """Every member, by device key."""
        return tuple(self._members[device] for device in sorted(self._members))

    def label(self, device: bytes) -> str:
        """What people call `device`; the start of its key when nobody said."""
        member = self._members.get(device)
        return member.label if member and member.label else device.hex()[:8]

    def format(self) -> int:
        """The newest format that every member folds (D19); ours when there is nobody yet."""
        return min([FORMAT, *(member.format for member in self._members.values())])

    def next_n(self, device: bytes) -> int:
        """`n` for the next `Profile` of `device`."""
        member = self._members.get(device)
        return member.rank[0] + 1 if member else 1

    def fold(self, operation: OperationId, body: Operation) -> tuple[bytes, ...]:
        """Fold a genesis or member operation whose author may speak; the devices that are new.

        Raises PeerFault, with nothing changed, when the entries break the rules.
        """
        if body.kind == Kind.GENESIS:
            genesis = decode_entries(Genesis, body.entries)
            if group_id(body.author, genesis.nonce) != self._group:
                raise PeerFault("genesis of another group", code="forbidden")
            check_label(genesis.label)
            stated = [(body.author, 0, genesis.label, genesis.format)]
        else:
            entries = decode_entries(MemberEntries, body.entries).entries
            for entry in entries:
                check_label(entry.label)
            stated = [
                (entry.device, 0, entry.label, entry.format)
                if isinstance(entry, Added)
                else (body.author, entry.n, entry.label, entry.format)
                for entry in entries
            ]
        return self._state(operation, stated)

    def _state(
        self, operation: OperationId, stated: list[tuple[bytes, int, str, int]]
    ) -> tuple[bytes, ...]:
        fresh = []
        for index, (device, n, label, form) in enumerate(stated):
            member = Member(device, label, form, (n, operation, index))
            known = self._members.get(device)
            if known is None:
                fresh.append(device)
            if known is None or known.rank < member.rank:
                self._members[device] = member
        return tuple(fresh)
