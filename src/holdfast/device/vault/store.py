"""Blobs on a device's own disk: full history, as ciphertext, by tag and id.

    vault/vault.db          what is here
    vault/blobs/ab/<id>     bodies, one file each, named by the hash of what is in them

A body is written, synced and renamed before the row that names it; what is read is compared with
its name. A blob may stand under several tags and lies on the disk once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from holdfast.crypto.blob import read_header
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import OperationFault, PeerFault
from holdfast.fabric.database import Database
from holdfast.rim.files import make_private_directory, sync_directory
from holdfast.rim.store.summary import item_hash

SCHEMA: Final = """
create table if not exists blobs (
    tag blob not null, blob blob not null, class integer not null, size integer not null,
    born integer not null, primary key (tag, blob)
) without rowid, strict;
create index if not exists blobs_blob on blobs (blob);
"""
_MODULUS: Final = 2**256


class Kept(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One blob of a tag: `[id, class, size, born]`."""

    blob: bytes
    blob_class: int
    size: int
    born: int


class Sum(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How many blobs, and the sum of their hashes: equal sums are equal sets (PROTOCOL 5)."""

    count: int = 0
    total: bytes = bytes(32)
    size: int = 0
    """Bytes in all."""


class VaultStore:
    """The blobs one device keeps. Calls may sync the disk: use a thread."""

    def __init__(self, directory: Path) -> None:
        make_private_directory(directory)
        self._bodies = directory / "blobs"
        make_private_directory(self._bodies)
        self._database = Database(directory / "vault.db", SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def put(self, tag: bytes, blob_class: int, bodies: Iterable[bytes]) -> int:
        """Keep blobs, durably; how many were new under the tag. Raises PeerFault for what is no
        blob, OperationFault when the disk fails."""
        rows, fresh = [], set()
        for body in bodies:
            blob, header = hash_bytes(body), read_header(body)
            if self.has(tag, [blob])[0]:
                continue
            if self._write(blob, body):
                fresh.add(blob[:1])
            rows.append((tag, blob, blob_class, len(body), header.born))
        for first in fresh:
            sync_directory(self._bodies / first.hex())
        with self._database.durable():
            self._database.many("insert or ignore into blobs values (?, ?, ?, ?, ?)", list(rows))
        return len(rows)

    def get(self, blob: bytes) -> bytes | None:
        """A body, compared with its id; None when it is not here, or the disk lost it."""
        try:
            body = self._path(blob).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OperationFault(f"cannot read {self._path(blob)}: {error.strerror}") from error
        return body if hash_bytes(body) == blob else None

    def has(self, tag: bytes, blobs: Sequence[bytes]) -> list[bool]:
        """Which of `blobs` stand under `tag`."""
        found = []
        for blob in blobs:
            sql = "select 1 from blobs where tag = ? and blob = ?"
            found.append(self._database.one(sql, (tag, blob)) is not None)
        return found

    def tags(self) -> list[bytes]:
        """Every tag something is kept for."""
        return [tag for (tag,) in self._database.run("select distinct tag from blobs")]

    def items(self, tag: bytes, bucket: int | None = None) -> list[Kept]:
        """Blobs of a tag, of one bucket (first byte of the id) or all, by id."""
        sql = "select blob, class, size, born from blobs where tag = ?"
        values: tuple[object, ...] = (tag,)
        if bucket is not None:
            sql += " and substr(blob, 1, 1) = ?"
            values += (bytes((bucket,)),)
        return [Kept(*row) for row in self._database.run(sql + " order by blob", values)]

    def sum(self, tag: bytes) -> Sum:
        """Everything of a tag."""
        return _sum(tag, self.items(tag))

    def buckets(self, tag: bytes) -> dict[int, Sum]:
        """Sums by the first byte of the id; empty ones left out."""
        found: dict[int, list[Kept]] = {}
        for item in self.items(tag):
            found.setdefault(item.blob[0], []).append(item)
        return {bucket: _sum(tag, items) for bucket, items in found.items()}

    def verify(self, tag: bytes) -> Iterator[bytes]:
        """Ids under `tag` whose bodies the disk has lost or damaged. Their rows go, so that they
        are fetched again."""
        for item in self.items(tag):
            if self.get(item.blob) is None:
                with self._database.durable():
                    self._database.run("delete from blobs where blob = ?", (item.blob,))
                yield item.blob

    def forget(self, tag: bytes) -> None:
        """Keep nothing more for a tag."""
        gone = [item.blob for item in self.items(tag)]
        with self._database.durable():
            self._database.run("delete from blobs where tag = ?", (tag,))
        for blob in gone:
            if self._database.one("select 1 from blobs where blob = ?", (blob,)) is None:
                self._path(blob).unlink(missing_ok=True)

    def _path(self, blob: bytes) -> Path:
        name = blob.hex()
        return self._bodies / name[:2] / name

    def _write(self, blob: bytes, body: bytes) -> bool:
        path = self._path(blob)
        if path.exists() and self.get(blob) is not None:
            return False
        beside = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            raise OperationFault(
                f"cannot write {path}: {error.strerror}; free some space"
            ) from error
        return True


def _sum(tag: bytes, items: Iterable[Kept]) -> Sum:
    count = total = size = 0
    for item in items:
        count += 1
        size += item.size
        total += item_hash(tag, item.blob, item.blob_class)
    return Sum(count, (total % _MODULUS).to_bytes(32, "little"), size)


def check_blob(body: bytes) -> None:
    """Raises PeerFault for what no server would take."""
    if not body:
        raise PeerFault("empty blob", code="size")
    read_header(body)
