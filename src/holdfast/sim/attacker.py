"""Somebody with whole disks, all our code, and time: what can they read?

Everything that could be a key is tried as every kind of key, what opens gives more candidates, and
so on until nothing new opens. The attacker knows all formats (it imports them), tries a list of
common passphrases, reads databases row by row and raw, deleted pages included, and looks for blobs
in files of servers at every offset. It has no network: nobody answers it.
"""

from __future__ import annotations

import itertools
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec
from backports import zstd

from holdfast.crypto.atrest import AtRest
from holdfast.crypto.blob import unseal
from holdfast.crypto.era import Era
from holdfast.crypto.locked import is_locked, unlock
from holdfast.crypto.pure import hash_bytes
from holdfast.crypto.shamir import join
from holdfast.crypto.wrap import WrapKey
from holdfast.device.eras import device_wrap, era_info, person_wrap
from holdfast.device.state import SECRETS
from holdfast.device.vault.archive import Line, Share, index_info
from holdfast.device.vault.halves import HALF, SHARE, half_info
from holdfast.errors import HoldfastError
from holdfast.limits import BLOB_BUCKETS
from holdfast.logic.group.members import MemberEntries, Rekey
from holdfast.logic.group.operation import Kind, Operation
from holdfast.wire.bech32 import decode_line
from holdfast.wire.signed import unpack_signed

PASSPHRASES: Final = ("123456", "password", "qwerty", "letmein", "holdfast", "hunter2", "iloveyou")
"""Each costs 64 MiB and 0.2 s; a real attacker tries more, which is what length is for."""
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_BIN32: Final = re.compile(rb"\xc4\x20(.{32})", re.DOTALL)
_BIN16: Final = re.compile(rb"\xc4\x10(.{16})", re.DOTALL)
_HEADER: Final = re.compile(rb"\x01\x01\x00\x00[\x40-\x70].", re.DOTALL)
"""Version, suite, and a born day between 2014 and 2049."""
_NUMBERS: Final = range(6)
_PROBES: Final = 4_096
"""Blobs, smallest first, that an era's network and number are guessed with."""
_FILE_BYTES_MAX: Final = 512 * 1024 * 1024


class Loot(msgspec.Struct):
    """What an attacker ended up with."""

    plain: list[bytes] = []
    """Everything readable: raw files, and whatever opened."""
    eras: int = 0
    seeds: int = 0
    blobs: int = 0
    opened: int = 0

    def tokens(self, wanted: Iterable[bytes]) -> set[bytes]:
        """Which of `wanted` are readable somewhere."""
        left, found = set(wanted), set()
        for text in self.plain:
            hits = {token for token in left if token in text}
            found |= hits
            left -= hits
        return found


class Attacker:
    """One attack on a set of directories. `passphrases`: known or guessed."""

    def __init__(self, disks: Iterable[Path], passphrases: Iterable[str] = PASSPHRASES) -> None:
        self._passphrases = tuple(passphrases)
        self._rows: list[tuple[str, dict[str, Any]]] = []
        self._files: list[bytes] = []
        self._networks: set[bytes] = set()
        self._candidates: set[bytes] = set()
        self._seeds: set[bytes] = set()
        self._halves: set[bytes] = {b""}
        self._shares: dict[bytes, dict[int, bytes]] = {}
        self._lines: list[tuple[bytes, bytes]] = []
        self._eras: dict[bytes, Era] = {}
        self._fits: dict[bytes, tuple[bytes, int]] = {}
        self._tried: set[tuple[object, ...]] = set()
        self._rekeys: list[tuple[bytes, Rekey]] = []
        self._blobs: dict[bytes, bytes] = {}
        self.loot = Loot()
        for disk in disks:
            self._read(disk)

    def run(self) -> Loot:
        """Try everything until nothing new opens."""
        size = -1
        while size != self._known():
            size = self._known()
            self._open_rows()
            self._open_halves()
            self._open_lines()
            self._open_rekeys()
            self._open_blobs()
        self.loot.eras, self.loot.seeds = len(self._eras), len(self._seeds)
        self.loot.blobs = len(self._blobs)
        return self.loot

    def _known(self) -> int:
        return sum(map(len, (self._candidates, self._seeds, self._halves, self._eras))) + len(
            self.loot.plain
        )

    # --- reading disks -------------------------------------------------------------------------
    def _read(self, disk: Path) -> None:
        for path in sorted(disk.rglob("*")):
            if path.is_file() and not path.is_symlink() and path.stat().st_size < _FILE_BYTES_MAX:
                self._file(path)

    def _file(self, path: Path) -> None:
        data = path.read_bytes()
        self._see(data)
        if len(data) in BLOB_BUCKETS and data.startswith(b"\x01\x01"):
            self._blobs[hash_bytes(data)] = data
            return
        if data.startswith(b"SQLite format 3"):
            self._database(path)
        elif len(data) == 32:
            self._seeds.add(data)
            self._candidates.add(data)
        elif is_locked(data):
            for passphrase in self._passphrases:
                try:
                    self._seeds.add(unlock(data, passphrase))
                except HoldfastError:
                    continue
        else:
            self._files.append(data)

    def _database(self, path: Path) -> None:
        """Every row, from a copy with its write-ahead log."""
        with tempfile.TemporaryDirectory() as scratch:
            for part in path.parent.glob(path.name + "*"):
                shutil.copy(part, scratch)
            try:
                connection = apsw.Connection(str(Path(scratch) / path.name))
                tables = "select name from sqlite_master where type = 'table'"
                for (table,) in connection.execute(tables).fetchall():
                    cursor = connection.execute(f'select * from "{table}"')
                    for row in cursor:
                        names = [d[0] for d in cursor.getdescription()]
                        self._row(str(table), dict(zip(names, row, strict=True)))
                connection.close()
            except apsw.Error:
                return

    def _row(self, table: str, row: dict[str, Any]) -> None:
        self._rows.append((table, row))
        for value in row.values():
            data = value.encode() if isinstance(value, str) else value
            if not isinstance(data, bytes):
                continue
            self._see(data)
            if len(data) == 32:
                self._candidates.add(data)
            if len(data) == 16:
                self._networks.add(data)
            if len(data) in BLOB_BUCKETS and data.startswith(b"\x01\x01"):
                self._blobs[hash_bytes(data)] = data

    def _see(self, data: bytes) -> None:
        """Something readable: keep it, and what it may hold."""
        self.loot.plain.append(data)
        if len(data) <= 2 * 1024 * 1024:
            self._candidates |= set(_BIN32.findall(data))
            self._networks |= set(_BIN16.findall(data))
            for match in re.finditer(re.escape(_ZSTD), data):
                try:
                    self.loot.plain.append(_decompressed(data[match.start() :]))
                except (zstd.ZstdError, EOFError):
                    continue
        for line in re.findall(rb"hf(?:loc|inv|pair)1[a-z0-9]{40,8192}", data):
            self._line(line.decode())

    def _line(self, text: str) -> None:
        for prefix in ("hfloc", "hfinv", "hfpair"):
            try:
                self._networks |= set(_BIN16.findall(decode_line(prefix, text)))
            except HoldfastError:
                continue

    def _once(self, *what: object) -> bool:
        if what in self._tried:
            return False
        self._tried.add(what)
        return True

    # --- keys ----------------------------------------------------------------------------------
    def _open_rows(self) -> None:
        """Sealed columns, under every seed with every half."""
        sealed = {table: (f"{table}.{column}", column) for table, _, column, _ in SECRETS}
        halves = self._halves | (self._candidates if len(self._candidates) < 4_000 else set())
        for seed, half in itertools.product(tuple(self._seeds), halves):
            if not self._once("rows", seed, half):
                continue
            at_rest, missed = AtRest(seed, half), 0
            for table, row in self._rows:
                if table not in sealed or missed > 20:
                    continue
                where, column = sealed[table]
                try:
                    plain = at_rest.open(where, row[column])
                except (HoldfastError, TypeError):
                    missed += 1
                    continue
                self._opened(plain, row)

    def _opened(self, plain: bytes, row: dict[str, Any]) -> None:
        self._see(plain)
        if len(plain) == 32:
            self._candidates.add(plain)
        self._operation(plain)

    def _operation(self, payload: bytes) -> None:
        try:
            body = msgspec.msgpack.decode(unpack_signed(payload).body[1:], type=Operation)
            if body.kind == Kind.MEMBER:
                for entry in msgspec.msgpack.decode(body.entries, type=MemberEntries).entries:
                    if isinstance(entry, Rekey):
                        self._rekeys.append((body.group, entry))
            self._see(body.entries)
        except (HoldfastError, msgspec.DecodeError, ValueError):
            return

    def _open_halves(self) -> None:
        """What carriers keep, with a carrier's key; then shares, two by two."""
        for seed in tuple(self._seeds):
            key = device_wrap(seed)
            for table, row in self._rows:
                if table != "halves" or not self._once("half", seed, row["sealed"]):
                    continue
                for kind in (HALF, SHARE):
                    info = half_info(row["person"], kind, row["name"])
                    half = _unwrapped(key, row["sealed"], info)
                    if half is not None and kind == HALF:
                        self._halves.add(half)
                    elif half is not None:
                        self._share(row["name"], half)

    def _share(self, name: bytes, data: bytes) -> None:
        self._see(data)
        share = msgspec.msgpack.decode(data, type=Share)
        known = self._shares.setdefault(name, {})
        known[share.x] = share.share
        for one, other in itertools.combinations(known.items(), 2):
            self._candidates.add(join(dict((one, other))))
        self._lines.append((name, share.line))

    def _open_lines(self) -> None:
        """Lines of the index of archives, with a person's key."""
        for name, line in self._lines:
            for secret in tuple(self._secrets()):
                if self._once("line", name, secret):
                    plain = _unwrapped(person_wrap(secret), line, index_info(name))
                    if plain is not None:
                        self._see(plain)
                        self._see(msgspec.msgpack.decode(plain, type=Line).title.encode())

    def _open_rekeys(self) -> None:
        for group, rekey in self._rekeys:
            info = era_info(group, rekey.number, rekey.tag)
            keys = [device_wrap(seed) for seed in self._seeds]
            keys += [person_wrap(secret) for secret in self._secrets()]
            for key, (_, sealed) in itertools.product(keys, rekey.sealed):
                if self._once("rekey", key.public, sealed):
                    secret = _unwrapped(key, sealed, info)
                    if secret is not None:
                        self._candidates.add(secret)

    def _secrets(self) -> set[bytes]:
        """What might be the secret of an era of a keyring: eras that opened something."""
        return {era.secret for era in self._eras.values()}

    # --- blobs ---------------------------------------------------------------------------------
    def _open_blobs(self) -> None:
        """Every blob under every era that any candidate could be."""
        values = (value for _, row in self._rows for value in row.values())
        tags = {value for value in values if isinstance(value, bytes) and len(value) == 32}
        for secret in tuple(self._candidates):
            if not self._once("secret", secret):
                continue
            era = Era(secret, bytes(16))
            if era.tag in tags or any(era.tag in data for data in self._files):
                self._era(secret)
        if self._eras:
            self._carve()
        bodies = sorted(self._blobs.items(), key=lambda item: len(item[1]))
        for secret in {e.secret for e in self._eras.values()}:
            fits = self._fits.get(secret)
            if fits is None:
                fits = self._fit(secret, [body for _, body in bodies[:_PROBES]])
            if fits is None:
                continue
            for blob, body in bodies:
                if self._once("blob", secret, blob):
                    self._unseal(Era(secret, *fits), body)

    def _fit(self, secret: bytes, bodies: list[bytes]) -> tuple[bytes, int] | None:
        """The network and number under which an era opens some small blob."""
        for network, number in itertools.product(self._networks, _NUMBERS):
            era = Era(secret, network, number)
            for body in bodies:
                if self._once("fit", secret, network, number, id(body)) and _opens(era, body):
                    self._fits[secret] = (network, number)
                    return network, number
        return None

    def _era(self, secret: bytes) -> None:
        era = Era(secret, bytes(16))
        self._eras[era.tag] = era

    def _carve(self) -> None:
        """Blobs inside larger files, segments of servers, at every offset."""
        for data in self._files:
            if not self._once("carve", id(data)):
                continue
            for match in _HEADER.finditer(data):
                for size in BLOB_BUCKETS:
                    body = data[match.start() : match.start() + size]
                    if len(body) == size:
                        self._blobs[hash_bytes(body)] = body

    def _unseal(self, era: Era, body: bytes) -> None:
        for blob_class in (1, 2):
            try:
                payload = unseal(era, blob_class, body).payload
            except HoldfastError:
                continue
            self.loot.opened += 1
            self._see(payload)
            self._operation(payload)


def _opens(era: Era, body: bytes) -> bool:
    for blob_class in (1, 2):
        try:
            unseal(era, blob_class, body)
        except HoldfastError:
            continue
        return True
    return False


def _decompressed(data: bytes) -> bytes:
    decompressor = zstd.ZstdDecompressor()
    return decompressor.decompress(data)


def _unwrapped(key: WrapKey, sealed: bytes, info: bytes) -> bytes | None:
    try:
        return key.unwrap(sealed, info)
    except (HoldfastError, ValueError):
        return None
