"""What a device remembers, in one directory (default `~/.holdfast`).

    device.key     32 bytes: the seed of the device's Ed25519 key
    device.db      settings, groups and their logs, and the books of the fabric
    outbox/        bodies of large blobs on their way out
    folders/       one index per shared folder
    lock           held while a process uses the directory

Files are of mode 0600, directories 0700, and nothing in them is encrypted: whoever can read this
directory can read what the device's owner reads (THREATS, "A thief of a device"). The words are not
here; the keyring's secret, grown from them, is.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Final

import msgspec

from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.errors import OperationFault, UsageError
from holdfast.fabric.store import Store
from holdfast.limits import OUTBOX_BYTES_MAX
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import lock_directory, make_private_directory, read_file, write_file
from holdfast.wire.locator import Locator, parse_locator
from holdfast.wire.signed import Signed

SCHEMA: Final = """
create table if not exists settings (name text primary key, value blob not null)
    without rowid, strict;
create table if not exists groups (
    id blob primary key, kind text not null, name text not null, era integer not null,
    secret blob not null, slot blob not null, joined_at real not null
) without rowid, strict;
create table if not exists eras (
    grp blob not null, tag blob not null, number integer not null, secret blob not null,
    primary key (grp, tag)
) without rowid, strict;
create table if not exists folders (id blob primary key, path text not null, figures blob)
    without rowid, strict;
create table if not exists operations (
    number integer primary key, id blob not null unique, grp blob not null, signed blob not null
) strict;
create index if not exists operations_group on operations (grp, number);
create table if not exists gaps (grp blob not null, operation blob not null,
    primary key (grp, operation)) without rowid, strict;
create table if not exists enclosures (
    number integer primary key, grp blob not null, payload blob not null, unique (grp, payload)
) strict;
create table if not exists locators (slot blob primary key, line text not null)
    without rowid, strict;
create table if not exists invites (
    id blob primary key, grp blob not null, line text not null, expires_at integer not null,
    request blob, taken_by blob, taken_by_name text, taken_at real
) without rowid, strict;
create table if not exists requests (
    id blob primary key, invite blob not null, name text not null, signed blob not null,
    answered integer not null
) without rowid, strict;
create table if not exists joins (
    id blob primary key, line text not null, wrap_seed blob not null, request blob not null
) without rowid, strict;
"""
KEY_FILE: Final = "device.key"


class GroupKey(msgspec.Struct, frozen=True):
    """A group this device is in, and what opens it."""

    id: bytes
    kind: str
    name: str
    era: int
    secret: bytes
    slot: bytes
    joined_at: float

    def __repr__(self) -> str:
        return f"GroupKey(id={self.id.hex()[:16]}, kind={self.kind})"


class DeviceState:
    """An open state directory."""

    def __init__(self, home: Path, key: SigningKey, store: Store, lock: IO[bytes] | None) -> None:
        self.home = home
        self.key = key
        self.store = store
        self.database = store.database
        self._lock = lock

    # --- opening -------------------------------------------------------------------------------
    @classmethod
    def create(cls, home: Path, clock: Clock, entropy: Entropy) -> DeviceState:
        """A new device in `home`. Raises UsageError when there is one already."""
        make_private_directory(home)
        if (home / KEY_FILE).exists():
            raise UsageError(f"{home} holds a device already; choose another --dir")
        lock = lock_directory(home, "a device")
        write_file(home / KEY_FILE, entropy.bytes(32))
        return cls._open(home, clock, lock, OUTBOX_BYTES_MAX)

    @classmethod
    def open(
        cls, home: Path, clock: Clock, *, outbox_bytes_max: int = OUTBOX_BYTES_MAX
    ) -> DeviceState:
        """The device in `home`. Raises UsageError when there is none, or it is in use."""
        cls._check(home)
        lock = lock_directory(home, "holdfast")
        return cls._open(home, clock, lock, outbox_bytes_max)

    @classmethod
    def _open(cls, home: Path, clock: Clock, lock: IO[bytes], bytes_max: int) -> DeviceState:
        (home / "folders").mkdir(mode=0o700, exist_ok=True)
        seed = read_file(home / KEY_FILE)
        if seed is None or len(seed) != 32:
            raise OperationFault(
                f"{home / KEY_FILE} is damaged; restore this device from its words", retryable=False
            )
        store = Store(home, clock, more=SCHEMA, bytes_max=bytes_max)
        return cls(home, SigningKey(seed), store, lock)

    @staticmethod
    def _check(home: Path) -> None:
        if not (home / KEY_FILE).exists():
            raise UsageError(f"no device in {home}; run `holdfast device init --dir {home}` first")

    @staticmethod
    def exists(home: Path) -> bool:
        """Whether `home` holds a device."""
        return (home / KEY_FILE).exists()

    def close(self) -> None:
        """Close files and let go of the directory."""
        self.store.close()
        if self._lock is not None:
            self._lock.close()

    # --- settings ------------------------------------------------------------------------------
    def get(self, name: str) -> bytes | None:
        """A setting."""
        row = self.database.one("select value from settings where name = ?", (name,))
        return row[0] if row else None

    def set(self, name: str, value: bytes) -> None:
        """Change a setting, durably."""
        with self.database.durable():
            self.database.run("insert or replace into settings values (?, ?)", (name, value))

    @property
    def name(self) -> str:
        """What people call this device."""
        return (self.get("name") or b"").decode()

    @property
    def person(self) -> bytes:
        """Root key of the person this device belongs to."""
        person = self.get("person")
        assert person is not None, "set at init"
        return person

    @property
    def keyring_secret(self) -> bytes:
        """Era secret of the person's keyring."""
        secret = self.get("keyring secret")
        assert secret is not None, "set at init"
        return secret

    @property
    def statement(self) -> Signed:
        """The person's word that this device is theirs."""
        data = self.get("statement")
        assert data is not None, "set at init"
        return msgspec.msgpack.decode(data, type=Signed)

    @property
    def home_slot(self) -> bytes:
        """The slot of the keyring, and of groups this device makes."""
        slot = self.get("home slot")
        assert slot is not None, "set at init"
        return slot

    # --- locators ------------------------------------------------------------------------------
    def locator(self, slot: bytes) -> Locator | None:
        """Where `slot` is."""
        row = self.database.one("select line from locators where slot = ?", (slot,))
        return parse_locator(row[0]) if row else None

    def home_locator(self) -> Locator:
        """Where the home slot is; with the words, all it takes to recover."""
        locator = self.locator(self.home_slot)
        assert locator is not None, "kept at init"
        return locator

    def keep_locator(self, locator: Locator) -> None:
        """Remember where a slot is."""
        assert locator.slot
        with self.database.durable():
            self.database.run(
                "insert or replace into locators values (?, ?)", (locator.slot, str(locator))
            )

    def follow_anew(self, locator: Locator) -> None:
        """Forget which record of a slot was followed: begin again from `locator`, which somebody
        trusted gave. Raises UsageError for a slot that nothing here is on."""
        if self.locator(locator.slot) is None:
            raise UsageError("this device has nothing on the slot of that locator; check the line")
        self.store.records.forget(locator.slot)
        self.store.records.trust.forget_witnesses(locator.network)
        self.keep_locator(locator)

    # --- groups and folders --------------------------------------------------------------------
    def groups(self) -> list[GroupKey]:
        """Groups this device is in, oldest first."""
        rows = self.database.run(
            "select id, kind, name, era, secret, slot, joined_at from groups order by joined_at"
        )
        return [GroupKey(*row) for row in rows]

    def keep_group(self, group: GroupKey) -> None:
        """Be in a group from now on. Part of the caller's transaction, if any."""
        with self.database.durable():
            self.database.run(
                "insert or replace into groups values (?, ?, ?, ?, ?, ?, ?)",
                msgspec.structs.astuple(group),
            )

    def eras(self, group: bytes) -> list[tuple[int, bytes]]:
        """(number, secret) of every era of a group that this device came to know."""
        rows = self.database.run(
            "select number, secret from eras where grp = ? order by number", (group,)
        )
        return [(number, secret) for number, secret in rows]

    def keep_era(self, group: bytes, era: Era) -> None:
        """Be able to open `era` of `group` from now on."""
        with self.database.durable():
            self.database.run(
                "insert or ignore into eras values (?, ?, ?, ?)",
                (group, era.tag, era.number, era.secret),
            )

    def folders(self) -> dict[bytes, Path]:
        """Directory of every group that is checked out here."""
        rows = self.database.run("select id, path from folders")
        return {group: Path(path) for group, path in rows}

    def keep_folder(self, group: bytes, path: Path) -> None:
        """Keep `path` in step with `group` from now on."""
        with self.database.durable():
            self.database.run(
                "insert or replace into folders (id, path) values (?, ?)", (group, str(path))
            )

    def keep_figures(self, group: bytes, figures: bytes) -> None:
        """Keep the newest figures of a folder (JSON) for status commands of other processes."""
        with self.database.commit():
            self.database.run("update folders set figures = ? where id = ?", (figures, group))

    def index_path(self, group: bytes) -> Path:
        """The folder engine's index of a group."""
        return self.home / "folders" / f"{group.hex()}.db"
