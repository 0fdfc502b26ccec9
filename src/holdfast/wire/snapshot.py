"""A snapshot of headquarters, before it is sealed, and what points to one in the pool.

    file     = age(zstd(MessagePack of `Snapshot`)), opened by any of the recipients' key files
    in pool  = the file's bytes in bulk blobs of one group, then one log blob: `SnapshotPointer`

The group has a pinned slot and one era. Its secret only finds and fetches the file; what is in it
opens with a recipient's key alone, which headquarters does not have (seed 004 §12.2; D5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.logic.fleet.model import NetworkId
from holdfast.wire.bech32 import decode_line, encode_bech32, encode_line
from holdfast.wire.codec import Message

if TYPE_CHECKING:
    from holdfast.crypto.phrase import Phrase

SNAPSHOT_VERSION: Final = 1
KEY_PREFIX: Final = "hfsnap"


class SnapshotRow(Message):
    """One key of the control store."""

    key: str
    value: bytes


class SnapshotFile(Message):
    """One file of headquarters' directory, by its path inside it."""

    path: str
    body: bytes


class Snapshot(Message):
    """All that a headquarters is. `made_at` is Unix seconds, `epoch` how often it was restored."""

    version: int
    network: NetworkId
    domain: str
    made_at: int
    revision: int
    epoch: int
    rows: tuple[SnapshotRow, ...]
    files: tuple[SnapshotFile, ...]


class SnapshotPointer(Message):
    """Where a sealed snapshot lies in the pool: its blobs in order, its size, its BLAKE3."""

    version: int
    made_at: int
    revision: int
    file_bytes: int
    digest: bytes
    blobs: tuple[bytes, ...]


def identity_of(phrase: Phrase) -> str:
    """The age identity, `AGE-SECRET-KEY-1...`, that grows from a person's words."""
    return encode_bech32("age-secret-key-", phrase.copies_secret()).upper()


def key_line(secret: bytes) -> str:
    """The era secret of the snapshots' group as one line, for an envelope."""
    return encode_line(KEY_PREFIX, secret)


def parse_key_line(line: str) -> bytes:
    """Inverse of `key_line`. Raises PeerFault."""
    return decode_line(KEY_PREFIX, line)
