"""The friends reducer: people met in person, shared between a person's own devices.

One register for each friend's root, in the keyring. An entry beats a removal; of two entries (two
devices wrote at once) the one with the highest version id counts, with the devices that only the
others name added to it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from holdfast.errors import PeerFault
from holdfast.limits import LABEL_BYTES_MAX, REPLACES_MAX
from holdfast.limits.people import FRIEND_ADDRESSES_MAX, FRIEND_DEVICES_MAX, WRAP_PUBLIC_BYTES
from holdfast.logic.group.operation import Bytes32, OperationId, VersionId, decode_entries
from holdfast.logic.group.register import Register

_Index = Annotated[int, msgspec.Meta(ge=0, lt=2**20)]
_Replaces = Annotated[tuple[tuple[Bytes32, _Index], ...], msgspec.Meta(max_length=REPLACES_MAX)]
_Wrap = Annotated[bytes, msgspec.Meta(min_length=WRAP_PUBLIC_BYTES, max_length=WRAP_PUBLIC_BYTES)]
_Address = Annotated[str, msgspec.Meta(max_length=255)]


class FriendDevice(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A friend's device, as met."""

    key: Bytes32
    name: Annotated[str, msgspec.Meta(max_length=LABEL_BYTES_MAX)]
    roles: Annotated[tuple[str, ...], msgspec.Meta(max_length=4)]
    wrap: _Wrap
    addresses: Annotated[tuple[_Address, ...], msgspec.Meta(max_length=FRIEND_ADDRESSES_MAX)]


class Friend(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """Somebody met in person. `secret` is what both have in common."""

    person: Bytes32
    replaces: _Replaces
    name: Annotated[str, msgspec.Meta(max_length=LABEL_BYTES_MAX)]
    secret: Bytes32
    wrap: _Wrap
    devices: Annotated[tuple[FriendDevice, ...], msgspec.Meta(max_length=FRIEND_DEVICES_MAX)]
    locator: Annotated[str, msgspec.Meta(max_length=8_192)]
    words: Annotated[str, msgspec.Meta(max_length=128)]
    """What both saw when they met."""
    met_at: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]

    def __repr__(self) -> str:
        return f"Friend(person={self.person.hex()[:16]}, name={self.name!r})"


class Unpaired(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """No friend any more."""

    person: Bytes32
    replaces: _Replaces


class FriendEntries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Entries of a `friends` operation."""

    entries: tuple[Friend | Unpaired, ...]


class Friends:
    """All friends of one person."""

    def __init__(self) -> None:
        self._register: Register[Friend | Unpaired] = Register()

    def fold(self, operation: OperationId, entries: bytes) -> None:
        """Fold one operation's entries. Raises PeerFault, with nothing changed."""
        body = decode_entries(FriendEntries, entries)
        for entry in body.entries:
            if isinstance(entry, Friend) and not entry.name.isprintable():
                raise PeerFault("friend whose name is not printable")
        self._register.fold(
            operation,
            [
                (entry.person, index, entry.replaces, entry)
                for index, entry in enumerate(body.entries)
            ],
        )

    def get(self, person: bytes) -> Friend | None:
        """The friend with that root, if they are one."""
        live = sorted(self._register.live(person).items(), reverse=True, key=lambda pair: pair[0])
        found = [entry for _, entry in live if isinstance(entry, Friend)]
        if len(found) < 2:
            return found[0] if found else None
        devices = {device.key: device for entry in reversed(found) for device in entry.devices}
        kept = tuple(devices[key] for key in sorted(devices))[:FRIEND_DEVICES_MAX]
        return msgspec.structs.replace(found[0], devices=kept)

    def all(self) -> tuple[Friend, ...]:
        """Every friend, by root."""
        found = [self.get(person) for person, _ in sorted(self._register, key=lambda i: i[0])]
        return tuple(friend for friend in found if friend is not None)

    def replaces(self, person: bytes) -> tuple[VersionId, ...]:
        """What a new entry for `person` replaces: everything live."""
        return tuple(sorted(self._register.live(person))[:REPLACES_MAX])
