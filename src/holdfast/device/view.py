"""Looking at a device's directory without holding it: for status commands beside a running sync."""

from __future__ import annotations

from pathlib import Path

import msgspec

from holdfast.crypto.atrest import AtRest
from holdfast.crypto.pure import base32, node_id
from holdfast.device.folders import Figures
from holdfast.device.log import GroupLog
from holdfast.device.mailbox import make_invite, taken_by
from holdfast.device.state import DeviceState, Passphrase, no_passphrase, read_seed
from holdfast.errors import UsageError
from holdfast.fabric.database import Database
from holdfast.fabric.findings import Finding, read_findings
from holdfast.logic.fleet.model import Seat, SlotRecord
from holdfast.logic.group.members import Member
from holdfast.wire.invite import Invite
from holdfast.wire.locator import Locator, parse_locator
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type, decode_body


class DeviceStatus(msgspec.Struct, frozen=True):
    """One device in numbers."""

    name: str
    device: str
    """Device key, base32."""
    person: str
    """BLAKE3 of the person root, base32."""
    home: str
    slot: str
    groups: int
    folders: int
    outbox_blobs: int
    outbox_bytes: int
    receipts: int
    evidence: int
    """Proofs of misbehaviour that stand alone."""
    liars: list[str]
    """What servers were caught at, a sentence each."""
    record_conflicts: int


class DeviceView:
    """A read-only look. Raises UsageError when there is no device."""

    def __init__(self, home: Path, passphrase: Passphrase = no_passphrase) -> None:
        if not DeviceState.exists(home):
            raise UsageError(f"no device in {home}; run `holdfast device init --dir {home}` first")
        self._home = home
        self._passphrase = passphrase
        self._database = Database(home / "device.db", "", read_only=True)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def status(self) -> DeviceStatus:
        """The device itself."""
        held = self._database.one("select count(*), coalesce(sum(size), 0) from outbox where held")
        assert held is not None
        return DeviceStatus(
            name=self._setting("name").decode(),
            device=base32(self._device()),
            person=base32(node_id(self._setting("person"))),
            home=str(self._home),
            slot=self._setting("home slot").hex(),
            groups=self._count("groups"),
            folders=self._count("folders"),
            outbox_blobs=held[0],
            outbox_bytes=held[1],
            receipts=self._count("held_receipts"),
            evidence=self._count("proofs"),
            liars=[finding.text for finding in self.findings()],
            record_conflicts=self._count("record_conflicts"),
        )

    def findings(self) -> list[Finding]:
        """What servers were caught at, oldest first."""
        return read_findings(self._database)

    def proof(self, name: bytes) -> bytes | None:
        """A proof of misbehaviour by its id, as it is handed on."""
        row = self._database.one("select data from proofs where id = ?", (name,))
        return bytes(row[0]) if row else None

    def folders(self) -> list[Figures]:
        """Every folder group, with the figures of the last sync where it is checked out."""
        rows = self._database.run(
            "select groups.id, groups.name, path, figures"
            " from groups left join folders on groups.id = folders.id"
            " where kind = 'folder' order by groups.name"
        )
        found = []
        for group, name, path, data in rows:
            figures = Figures(name, base32(group), path or "")
            if data is not None:
                figures = msgspec.json.decode(data, type=Figures)
            found.append(figures)
        return found

    def group_named(self, name: str) -> tuple[bytes, str, bytes]:
        """(group id, name, slot) of the folder of that name, or of the only one for an empty name.
        Raises UsageError."""
        rows = self._database.run("select id, name, slot from groups where kind = 'folder'")
        found = [row for row in rows if name in ("", row[1])]
        if len(found) == 1:
            group, own_name, slot = found[0]
            return group, own_name, slot
        names = ", ".join(sorted(row[1] for row in rows)) or "none yet"
        if not found:
            raise UsageError(f"no folder called {name!r}; there is: {names}")
        raise UsageError(f"which folder? name one of: {names}")

    def members(self, group: bytes) -> tuple[Member, ...]:
        """The members of a group. Raises UsageError for a locked device, OperationFault for one
        whose key is split: that one must be opened."""
        at_rest = AtRest(read_seed(self._home, self._passphrase))
        return GroupLog(self._database, group, at_rest).state.members.all()

    def locator(self, slot: bytes) -> Locator:
        """Where a slot is, by the record that is followed."""
        row = self._database.one("select line from locators where slot = ?", (slot,))
        assert row is not None, "the slot of a group has a locator"
        locator = parse_locator(row[0])
        row = self._database.one("select staple from records where slot = ?", (slot,))
        if row is None:
            return locator
        signed = msgspec.msgpack.decode(row[0], type=Staple).signed
        return locator.with_record(decode_body(Type.SLOT_RECORD, SlotRecord, signed))

    def home_locator(self) -> Locator:
        """The locator to keep with the words."""
        return self.locator(self._setting("home slot"))

    def home_seats(self) -> tuple[Seat, ...]:
        """The six servers of the record that is followed; none before there is one."""
        slot = self._setting("home slot")
        row = self._database.one("select staple from records where slot = ?", (slot,))
        if row is None:
            return ()
        signed = msgspec.msgpack.decode(row[0], type=Staple).signed
        record = decode_body(Type.SLOT_RECORD, SlotRecord, signed)
        return (*record.relays, *record.replicas)

    def invite(self, name: str, key: bytes, wall_s: float) -> Invite:
        """A new invite to a folder, written beside whatever process holds the directory; that one
        answers it. `key` is 32 random bytes. Raises UsageError."""
        group, _, slot = self.group_named(name)
        locator = self.locator(slot)
        database = Database(self._home / "device.db", "")
        try:
            return make_invite(
                database,
                group=group,
                locator=locator,
                device=self._device(),
                key=key,
                wall_s=wall_s,
            )
        finally:
            database.close()

    def taken_by(self, invite: bytes) -> str:
        """Name of the device that used an invite; empty while nobody has."""
        return taken_by(self._database, invite)

    def _device(self) -> bytes:
        return self._setting("device")

    def _setting(self, name: str) -> bytes:
        row = self._database.one("select value from settings where name = ?", (name,))
        return row[0] if row else b""

    def _count(self, table: str) -> int:
        row = self._database.one(f"select count(*) from {table}")
        assert row is not None
        return int(row[0])
