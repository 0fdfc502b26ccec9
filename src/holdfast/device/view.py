"""Looking at a device's directory without holding it: for status commands beside a running sync."""

from __future__ import annotations

from pathlib import Path

import msgspec

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import base32, node_id
from holdfast.device.folders import Figures
from holdfast.device.state import KEY_FILE, DeviceState
from holdfast.errors import UsageError
from holdfast.fabric.database import Database
from holdfast.rim.files import read_file


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
    """Pairs of receipts that contradict each other."""
    record_conflicts: int


class DeviceView:
    """A read-only look. Raises UsageError when there is no device."""

    def __init__(self, home: Path) -> None:
        if not DeviceState.exists(home):
            raise UsageError(f"no device in {home}; run `holdfast device init --dir {home}` first")
        self._home = home
        self._database = Database(home / "device.db", "", read_only=True)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def status(self) -> DeviceStatus:
        """The device itself."""
        seed = read_file(self._home / KEY_FILE)
        assert seed is not None
        held = self._database.one("select count(*), coalesce(sum(size), 0) from outbox where held")
        assert held is not None
        return DeviceStatus(
            name=self._setting("name").decode(),
            device=base32(SigningKey(seed).public),
            person=base32(node_id(self._setting("person"))),
            home=str(self._home),
            slot=self._setting("home slot").hex(),
            groups=self._count("groups"),
            folders=self._count("folders"),
            outbox_blobs=held[0],
            outbox_bytes=held[1],
            receipts=self._count("receipts"),
            evidence=self._count("evidence"),
            record_conflicts=self._count("record_conflicts"),
        )

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

    def _setting(self, name: str) -> bytes:
        row = self._database.one("select value from settings where name = ?", (name,))
        return row[0] if row else b""

    def _count(self, table: str) -> int:
        row = self._database.one(f"select count(*) from {table}")
        assert row is not None
        return int(row[0])
