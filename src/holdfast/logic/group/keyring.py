"""The keyring reducer: a person's own list of groups, shared between that person's devices.

One register for each group id. Where a folder keeps both sides of a conflict, a keyring must give
one answer: an entry beats a removal, then the highest era, then the highest version id.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.errors import PeerFault
from holdfast.limits import NAME_BYTES_MAX, REPLACES_MAX
from holdfast.logic.group.operation import Bytes32, OperationId, VersionId, decode_entries
from holdfast.logic.group.register import Register

_Bytes16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
_Index = Annotated[int, msgspec.Meta(ge=0, lt=2**20)]
_Replaces = Annotated[tuple[tuple[Bytes32, _Index], ...], msgspec.Meta(max_length=REPLACES_MAX)]


class Key(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """What it takes to open one group. `kind` is what it holds: `folder`, for now."""

    group: Bytes32
    replaces: _Replaces
    kind: _Word
    name: str
    era: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    secret: Bytes32
    slot: _Bytes16
    network: _Bytes16

    def __repr__(self) -> str:
        return f"Key(group={self.group.hex()[:16]}, kind={self.kind}, era={self.era})"


class Dropped(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """The person left the group, or forgot it."""

    group: Bytes32
    replaces: _Replaces


class KeyringEntries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Entries of a `keyring` operation."""

    entries: tuple[Key | Dropped, ...]


class Keyring:
    """All groups of one person."""

    def __init__(self) -> None:
        self._register: Register[Key | Dropped] = Register()

    def fold(self, operation: OperationId, entries: bytes) -> None:
        """Fold one operation's entries. Raises PeerFault, with nothing changed."""
        body = decode_entries(KeyringEntries, entries)
        for entry in body.entries:
            if isinstance(entry, Key) and len(entry.name.encode()) > NAME_BYTES_MAX:
                raise PeerFault("group name that is too long")
        self._register.fold(
            operation,
            [
                (entry.group, index, entry.replaces, entry)
                for index, entry in enumerate(body.entries)
            ],
        )

    def get(self, group: bytes) -> Key | None:
        """The key of `group`, if the person is still in it."""
        best: tuple[int, VersionId, Key] | None = None
        for version, entry in self._register.live(group).items():
            if isinstance(entry, Key):
                rank = (entry.era, version, entry)
                if best is None or best[:2] < rank[:2]:
                    best = rank
        return best[2] if best else None

    def all(self) -> tuple[Key, ...]:
        """Every group the person is in, by group id."""
        keys = [self.get(group) for group, _ in sorted(self._register, key=lambda item: item[0])]
        return tuple(key for key in keys if key is not None)

    def replaces(self, group: bytes) -> tuple[VersionId, ...]:
        """What a new entry for `group` replaces: everything live."""
        return tuple(sorted(self._register.live(group))[:REPLACES_MAX])

    def digest(self) -> bytes:
        """Equal for equal keyrings."""
        return hash_bytes(repr([(k, k.secret, k.name) for k in self.all()]).encode())
