"""Entries of `genesis` and `member` operations, and the people they make.

A member is a key: a device's, or a person's root (the day all devices are gone the root lets a new
one in). Each belongs to a person, whose id is the root key. What one key may say of another is
`authority`'s business, secrets of eras that of `eras`; here are the bytes and the names.

A device's name and format are a register of their own: the highest (n, operation id, index) wins;
grants count as n = 0, so a device's own word outranks what others called it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec

from holdfast.errors import PeerFault
from holdfast.limits import LABEL_BYTES_MAX
from holdfast.limits.people import ERA_SEALS_MAX, WRAP_PUBLIC_BYTES, WRAPPED_BYTES_MAX
from holdfast.logic.group.authority import Claim, Level
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
Person = Annotated[bytes, msgspec.Meta(max_length=32)]
_N = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
_Level = Annotated[int, msgspec.Meta(ge=1, le=3)]
_Era = Annotated[int, msgspec.Meta(ge=1, lt=2**32)]
_Wrapped = Annotated[bytes, msgspec.Meta(max_length=WRAPPED_BYTES_MAX)]
_WrapKey = Annotated[
    bytes, msgspec.Meta(min_length=WRAP_PUBLIC_BYTES, max_length=WRAP_PUBLIC_BYTES)
]


class Genesis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Entries of the one `genesis` operation: with its author it makes the group id."""

    nonce: Bytes32
    label: Label
    format: Format = FORMAT
    person: Person = b""


class Added(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag=1):
    """`[1, key, label, format, level, person]`: a grant, or another one to a member."""

    device: Bytes32
    label: Label
    format: Format = FORMAT
    level: _Level = Level.MANAGER
    person: Person = b""


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag=2):
    """`[2, n, label, format]`: the author's own name and newest format; `n` counts from 1."""

    n: _N
    label: Label
    format: Format = FORMAT


class Removed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag=3):
    """`[3, key]`: out, with all keys of the person if `key` is a person's root."""

    key: Bytes32


class Wrapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag=4):
    """`[4, n, reader, public]`: to which wrap key secrets for `reader` are sealed; by a key of
    that person. A reader is a person's root, or a device of a keyring."""

    n: _N
    reader: Bytes32
    public: _WrapKey


class Rekey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag=5):
    """`[5, number, tag, before, back, sealed]`: a new era (D16).

    `sealed` is (reader, the era's secret wrapped to that reader's wrap key). `before` is the tag of
    the era that this one follows, and `back` its secret under a key of the new one: whoever comes
    later reads what was written earlier.
    """

    number: _Era
    tag: Bytes32
    before: Bytes32
    back: _Wrapped
    sealed: Annotated[tuple[tuple[Bytes32, _Wrapped], ...], msgspec.Meta(max_length=ERA_SEALS_MAX)]


Entry = Added | Profile | Removed | Wrapping | Rekey


class MemberEntries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Entries of a `member` operation."""

    entries: tuple[Entry, ...]


class Member(msgspec.Struct, frozen=True):
    """A key of the group as its members see it."""

    device: bytes
    label: str
    format: int
    rank: tuple[int, OperationId, int]
    """(n, operation id, index) of the statement that says so."""
    level: Level = Level.MANAGER
    person: bytes = b""

    @property
    def is_root(self) -> bool:
        """Whether this is a person's root and no device."""
        return self.person == self.device


class Stated(msgspec.Struct, frozen=True):
    """One genesis or member operation, parsed."""

    operation: OperationId
    author: bytes
    genesis: Genesis | None
    entries: tuple[Entry, ...]

    def claims(self) -> Iterable[Claim]:
        """Its grants and removals."""
        for index, entry in enumerate(self.entries):
            if isinstance(entry, Added):
                level, person = Level(entry.level), entry.person
                yield Claim(self.operation, index, self.author, entry.device, level, person)
            elif isinstance(entry, Removed):
                yield Claim(self.operation, index, self.author, entry.key, Level.OUT, b"")


def check_label(label: str) -> None:
    """A label is short and on one line. Raises PeerFault."""
    if not label.isprintable() or len(label.encode()) > LABEL_BYTES_MAX:
        raise PeerFault("device label that is too long or not printable")


def parse(group: bytes, operation: OperationId, body: Operation) -> Stated:
    """A genesis or member operation. Raises PeerFault when the entries break the rules."""
    if body.kind == Kind.GENESIS:
        genesis = decode_entries(Genesis, body.entries)
        if group_id(body.author, genesis.nonce) != group:
            raise PeerFault("genesis of another group", code="forbidden")
        check_label(genesis.label)
        _check_person(genesis.person)
        return Stated(operation, body.author, genesis, ())
    entries = decode_entries(MemberEntries, body.entries).entries
    for entry in entries:
        if isinstance(entry, Added | Profile):
            check_label(entry.label)
        if isinstance(entry, Added):
            _check_person(entry.person)
    return Stated(operation, body.author, None, entries)


def _check_person(person: bytes) -> None:
    if len(person) not in (0, 32):
        raise PeerFault("person whose key has the wrong size")


class Members:
    """Everybody who is in, by key; a snapshot."""

    def __init__(self, members: Iterable[Member] = ()) -> None:
        self._members = {member.device: member for member in members}

    def __contains__(self, device: bytes) -> bool:
        return device in self._members

    def __len__(self) -> int:
        return len(self._members)

    def get(self, device: bytes) -> Member | None:
        """The member with that key."""
        return self._members.get(device)

    def all(self) -> tuple[Member, ...]:
        """Every member, by device key."""
        return tuple(self._members[device] for device in sorted(self._members))

    def persons(self) -> tuple[bytes, ...]:
        """Every person with a key here, sorted."""
        return tuple(sorted({member.person for member in self._members.values()} - {b""}))

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
