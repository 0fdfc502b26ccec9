"""What a device remembers, in one directory (default `~/.holdfast`).

    device.key     the seed of the device's Ed25519 key, 32 bytes, or locked (`crypto.locked`)
    device.db      settings, groups and their logs, and the books of the fabric
    outbox/        bodies of large blobs on their way out
    folders/       one index per shared folder
    lock           held while a process uses the directory

Files are of mode 0600, directories 0700. Secrets, logs and what lies in keyrings are sealed in the
database under a key of two halves (`crypto.atrest`): one grows from device.key, which a passphrase
may lock, the other may lie with carriers (`device.vault.halves`). Names of groups and folders, the
folders' indexes, and folders that are checked out are not sealed. The words are not here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import msgspec

from holdfast.crypto.atrest import AtRest
from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.locked import is_locked, lock, unlock
from holdfast.crypto.pure import hash_bytes
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
create table if not exists halves (
    person blob not null, kind text not null, name blob not null, sealed blob not null,
    primary key (person, kind, name)
) without rowid, strict;
create table if not exists carried (
    tag blob primary key, person blob not null, access_seed blob not null
) without rowid, strict;
create table if not exists vouched (device blob primary key, statement blob not null)
    without rowid, strict;
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
JOIN_SEED: Final = "joins.wrap_seed"
SECRETS: Final = (
    ("settings", "name", "value", "keyring secret"),
    ("groups", "id", "secret", ""),
    ("eras", "tag", "secret", ""),
    ("joins", "id", "wrap_seed", ""),
    ("operations", "number", "signed", ""),
    ("enclosures", "number", "payload", ""),
    ("carried", "tag", "access_seed", ""),
)
"""Columns that are sealed: (table, key, column, the only key if not all)."""
Passphrase = Callable[[], str]


def no_passphrase() -> str:
    """Whoever opens a locked device without a way to ask for its passphrase."""
    raise UsageError(
        "this device is locked; give its passphrase: HOLDFAST_PASSPHRASE_FILE, or on a terminal"
    )


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
        self.at_rest = AtRest(key.seed)
        self._lock = lock
        self._half = b""

    # --- the key and its halves ----------------------------------------------------------------
    @property
    def needs_half(self) -> bool:
        """Whether a carrier must give its half before anything kept here opens."""
        return self.get("half holders") is not None and not self._half

    def use_half(self, half: bytes) -> None:
        """Open what is kept with the carriers' half. Raises OperationFault for a wrong one."""
        at_rest = AtRest(self.key.seed, half)
        row = self.database.one("select value from settings where name = 'keyring secret'")
        if row is not None:
            at_rest.open("settings.value", row[0])
        self.at_rest, self._half = at_rest, half

    def split_key(self, half: bytes, holders: bytes) -> None:
        """From now on what is kept opens only with `half` too (empty: without one). `holders` says
        whom to ask for it. Everything kept is sealed anew, at once or not at all."""
        old, new = self.at_rest, AtRest(self.key.seed, half)
        with self.database.durable():
            for table, key, column, only in SECRETS:
                where = f"{table}.{column}"
                for name, kept in self.database.run(f"select {key}, {column} from {table}"):
                    if only and name != only:
                        continue
                    sealed = new.seal(where, old.open(where, kept))
                    self.database.run(
                        f"update {table} set {column} = ? where {key} = ?", (sealed, name)
                    )
            self.database.run("delete from settings where name = 'half holders'")
            if half:
                self.database.run("insert into settings values ('half holders', ?)", (holders,))
        self.at_rest, self._half = new, half
        self.database.run("vacuum")

    def lock_key(self, passphrase: str) -> None:
        """From now on the device's key opens with `passphrase`. Raises UsageError."""
        write_file(self.home / KEY_FILE, lock(self.key.seed, passphrase))

    def unlock_key(self) -> None:
        """From now on the device's key lies open."""
        write_file(self.home / KEY_FILE, self.key.seed)

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
        cls,
        home: Path,
        clock: Clock,
        *,
        outbox_bytes_max: int = OUTBOX_BYTES_MAX,
        passphrase: Passphrase = no_passphrase,
    ) -> DeviceState:
        """The device in `home`; `passphrase` is asked for when its key is locked.

        Raises UsageError when there is none, it is in use, or the passphrase is wrong.
        """
        cls._check(home)
        lock = lock_directory(home, "holdfast")
        try:
            return cls._open(home, clock, lock, outbox_bytes_max, passphrase)
        except BaseException:
            lock.close()
            raise

    @classmethod
    def _open(
        cls,
        home: Path,
        clock: Clock,
        lock: IO[bytes],
        bytes_max: int,
        passphrase: Passphrase = no_passphrase,
    ) -> DeviceState:
        (home / "folders").mkdir(mode=0o700, exist_ok=True)
        seed = read_seed(home, passphrase)
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

    def met_at(self, device: bytes, host: str) -> None:
        """A device of somebody was met at `host`."""
        self.set(f"met {device.hex()}", host.encode())

    def host_of(self, device: bytes) -> str:
        """Where a device was met last; empty when it was not met by this one."""
        return (self.get(f"met {device.hex()}") or b"").decode()

    def set_secret(self, name: str, value: bytes) -> None:
        """Change a setting that is kept sealed."""
        self.set(name, self.at_rest.seal("settings.value", value))

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
        return self.at_rest.open("settings.value", secret)

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
        opened = self.at_rest.open
        return [
            GroupKey(i, kind, name, era, opened("groups.secret", secret), slot, at)
            for i, kind, name, era, secret, slot, at in rows
        ]

    def keep_group(self, group: GroupKey) -> None:
        """Be in a group from now on. Part of the caller's transaction, if any."""
        with self.database.durable():
            self.database.run(
                "insert or replace into groups values (?, ?, ?, ?, ?, ?, ?)",
                msgspec.structs.astuple(
                    msgspec.structs.replace(
                        group, secret=self.at_rest.seal("groups.secret", group.secret)
                    )
                ),
            )

    def eras(self, group: bytes) -> list[tuple[int, bytes]]:
        """(number, secret) of every era of a group that this device came to know."""
        rows = self.database.run(
            "select number, secret from eras where grp = ? order by number", (group,)
        )
        return [(number, self.at_rest.open("eras.secret", kept)) for number, kept in rows]

    def keep_era(self, group: bytes, era: Era) -> None:
        """Be able to open `era` of `group` from now on."""
        with self.database.durable():
            self.database.run(
                "insert or ignore into eras values (?, ?, ?, ?)",
                (group, era.tag, era.number, self.at_rest.seal("eras.secret", era.secret)),
            )

    def carried(self) -> list[tuple[bytes, SigningKey]]:
        """(person, access key) of every tag this device carries for others."""
        rows = self.database.run("select person, access_seed from carried order by tag")
        opened = self.at_rest.open
        return [(person, SigningKey(opened("carried.access_seed", kept))) for person, kept in rows]

    def keep_carried(self, person: bytes, access: SigningKey) -> None:
        """Carry a tag of `person` from now on."""
        kept = self.at_rest.seal("carried.access_seed", access.seed)
        with self.database.durable():
            self.database.run(
                "insert or replace into carried values (?, ?, ?)",
                (hash_bytes(access.public), person, kept),
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

    def drop_folder(self, group: bytes) -> None:
        """The folder is not checked out here any more; what its index knew is forgotten."""
        with self.database.durable():
            self.database.run("delete from folders where id = ?", (group,))
        for path in self.index_path(group).parent.glob(f"{group.hex()}.db*"):
            path.unlink(missing_ok=True)

    def keep_figures(self, group: bytes, figures: bytes) -> None:
        """Keep the newest figures of a folder (JSON) for status commands of other processes."""
        with self.database.commit():
            self.database.run("update folders set figures = ? where id = ?", (figures, group))

    def index_path(self, group: bytes) -> Path:
        """The folder engine's index of a group."""
        return self.home / "folders" / f"{group.hex()}.db"


def read_seed(home: Path, passphrase: Passphrase = no_passphrase) -> bytes:
    """The seed of the device in `home`. Raises UsageError, OperationFault."""
    data = read_file(home / KEY_FILE)
    if data is not None and is_locked(data):
        return unlock(data, passphrase())
    if data is None or len(data) != 32:
        raise OperationFault(
            f"{home / KEY_FILE} is damaged; restore this device from its words", retryable=False
        )
    return data
