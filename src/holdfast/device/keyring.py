"""The keyring: a person's own log, found again from the words and a locator alone (D5, D7, D16).

Its era secret and its group id grow from the seed phrase; the person root founds it and vouches for
devices. Three kinds of signed things lie in it:

* operations: the genesis, members, and one key per group the person is in;
* device statements by the person root: whose device is whose, and what it is for;
* slot records as HQ signed them, newest last: where the groups' slots are, so that recovery
  needs no HQ. They are verified against pinned roots by whoever uses them.
"""

from __future__ import annotations

from holdfast.crypto.atrest import AtRest
from holdfast.crypto.keys import SigningKey
from holdfast.device.log import Enclosures, GroupLog, signed_type
from holdfast.errors import PeerFault
from holdfast.fabric.database import Database
from holdfast.logic.group.authority import Level
from holdfast.logic.group.keyring import Key, KeyringEntries
from holdfast.logic.group.members import Added, Entry, Genesis, MemberEntries
from holdfast.logic.group.operation import encode_entries, group_id
from holdfast.wire.codec import pack, unpack
from holdfast.wire.envelope import sign
from holdfast.wire.person import (
    READER,
    DeviceStatement,
    keyring_nonce,
    verify_statement,
)
from holdfast.wire.records import Staple
from holdfast.wire.signed import SIGNED_BYTES_MAX, Signed, Type, unpack_signed

_ARRAY_OF_THREE = 0x93
"""First byte of a packed `Signed`; a `Staple` is a map."""


def keyring_group(person: bytes) -> bytes:
    """The group id of a person's keyring."""
    return group_id(person, keyring_nonce(person))


def genesis_entries(person: bytes) -> bytes:
    """Entries of the keyring's genesis: the same whoever writes it."""
    return encode_entries(Genesis(keyring_nonce(person), "keyring", person=person))


def added(key: bytes, label: str, person: bytes, level: Level = Level.MANAGER) -> Added:
    """The entry that lets `key` of `person` in. A person's root is its own person."""
    return Added(key, label, level=level, person=person)


def member_entries(*entries: Entry) -> bytes:
    """Entries of a member operation."""
    return encode_entries(MemberEntries(entries))


def key_entries(*keys: Key) -> bytes:
    """Entries that note what opens a group."""
    return encode_entries(KeyringEntries(keys))


def state_device(
    root: SigningKey, device: bytes, name: str, n: int, at: int, roles: tuple[str, ...] = (READER,)
) -> Signed:
    """The person root's word on a device."""
    statement = DeviceStatement(root.public, device, name, roles, n, at)
    return sign(root, Type.DEVICE_STATEMENT, statement)


class KeyringLog(GroupLog):
    """The keyring of one person on this device."""

    def __init__(self, database: Database, person: bytes, at_rest: AtRest | None = None) -> None:
        super().__init__(database, keyring_group(person), at_rest)
        self.person = person
        self._enclosures = Enclosures(database, self.group, at_rest)
        self._devices: dict[bytes, DeviceStatement] = {}
        self._signed: dict[bytes, Signed] = {}
        self._staples: list[Staple] = []
        for payload in self._enclosures.all():
            self._enclose(payload)

    def take(self, blob: bytes, payload: bytes) -> None:
        """Check, keep and use an operation, a statement or a record. Raises PeerFault."""
        if payload[:1] == bytes((_ARRAY_OF_THREE,)) and signed_type(payload) is Type.OPERATION:
            super().take(blob, payload)
            return
        self._enclose(payload)
        self._enclosures.keep(payload)

    def keep(self, payload: bytes) -> None:
        """Keep an enclosure made here; part of the transaction that puts it into the outbox."""
        self._enclosures.keep(payload)

    def use(self, payload: bytes) -> None:
        """Use an enclosure made here, now that it is durable."""
        self._enclose(payload)

    def devices(self) -> tuple[DeviceStatement, ...]:
        """The person's devices, by key; those that are out are left out."""
        return tuple(s for _, s in sorted(self._devices.items()) if s.roles)

    def statements(self) -> tuple[DeviceStatement, ...]:
        """The newest word on every device there ever was."""
        return tuple(statement for _, statement in sorted(self._devices.items()))

    def statement(self, device: bytes) -> DeviceStatement:
        """The newest word on one device."""
        return self._devices[device]

    def signed_statement(self, device: bytes) -> Signed:
        """The same as the root signed it, to be shown to others."""
        return self._signed[device]

    def is_in(self, device: bytes) -> bool:
        """Whether a device is in the keyring itself: nobody has put it out."""
        return device in self.state.members

    def device_n(self, device: bytes) -> int:
        """`n` of the newest statement about a device, 0 when there is none."""
        statement = self._devices.get(device)
        return statement.n if statement else 0

    def staples(self) -> tuple[Staple, ...]:
        """Slot records, oldest first, unverified."""
        return tuple(self._staples)

    def holds(self, staple: Staple) -> bool:
        """Whether this very record lies here."""
        return staple in self._staples

    def _enclose(self, payload: bytes) -> None:
        if payload[:1] != bytes((_ARRAY_OF_THREE,)):
            self._staples.append(unpack(Staple, payload, bytes_max=SIGNED_BYTES_MAX))
            return
        signed = unpack_signed(payload)
        statement = verify_statement(signed)
        if statement.person != self.person:
            raise PeerFault("device statement of another person", code="forbidden")
        known = self._devices.get(statement.device)
        if known is None or known.n < statement.n:
            self._devices[statement.device] = statement
            self._signed[statement.device] = signed


def staple_payload(staple: Staple) -> bytes:
    """A slot record as it lies in the keyring."""
    return pack(staple)
