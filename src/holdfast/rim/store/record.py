"""One blob as it lies in a segment file, and how a segment is read back after a crash.

    record = magic "HFr1" | class u8 | zeros 3 | size u32 | born u32 | stored_at u32 | sequence u64
             | slot 16 | tag 32 | blob id 32 | crc32 u32 of all before it | body

Integers are big-endian. The crc covers the header, the blob id (BLAKE3) covers the body. A segment
is records back to back. Two things can be wrong with one:

* a *torn tail*: the process or machine died while it wrote. Nothing after the last whole record
  was ever acknowledged, because an acknowledgement follows fdatasync. It is cut off.
* *rot*: the disk changed bytes that were durable. The record is skipped, which makes its blob
  missing, and reconciling with the servers of the slot brings it back.

`scan` tells them apart by looking for another whole record behind the bad bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from holdfast.crypto.pure import hash_bytes
from holdfast.limits import BLOB_BYTES_MAX

MAGIC = b"HFr1"
_FIELDS = struct.Struct(">4sB3xIIIQ16s32s32s")
_CRC = struct.Struct(">I")
HEADER_BYTES = _FIELDS.size + _CRC.size
_SEARCH_BYTES = 1 << 20

Read = Callable[[int, int], bytes]
"""`read(offset, size)`: that many bytes of the segment, or fewer at its end."""


class Record(NamedTuple):
    """The header of one stored blob. `stored_at` is Unix seconds of the commit."""

    blob_class: int
    size: int
    born: int
    stored_at: int
    sequence: int
    slot: bytes
    tag: bytes
    blob: bytes


class Found(NamedTuple):
    """A whole record and where its body starts."""

    record: Record
    offset: int

    @property
    def end(self) -> int:
        return self.offset + self.record.size


def pack_record(record: Record) -> bytes:
    """The header bytes of `record`."""
    fields = _FIELDS.pack(MAGIC, *record)
    return fields + _CRC.pack(zlib.crc32(fields))


def unpack_record(data: bytes | memoryview) -> Record | None:
    """The header in the first bytes of `data`; None when there is none or it is damaged."""
    if len(data) < HEADER_BYTES or bytes(data[:4]) != MAGIC:
        return None
    if _CRC.unpack_from(data, _FIELDS.size)[0] != zlib.crc32(data[: _FIELDS.size]):
        return None
    record = Record(*_FIELDS.unpack_from(data)[1:])
    return record if record.size <= BLOB_BYTES_MAX else None


def scan(read: Read, start: int, end: int) -> Iterator[Found]:
    """Every whole record between two offsets, in order; damage is stepped over."""
    offset = start
    while offset + HEADER_BYTES <= end:
        found = _whole(read, offset, end)
        if found is None:
            following = _search(read, offset + 1, end)
            if following is None:
                return
            offset = following
            continue
        yield found
        offset = found.end


def _whole(read: Read, offset: int, end: int) -> Found | None:
    """The record at `offset` if its header and body are both intact."""
    record = unpack_record(read(offset, HEADER_BYTES))
    if record is None or offset + HEADER_BYTES + record.size > end:
        return None
    body = read(offset + HEADER_BYTES, record.size)
    if len(body) != record.size or hash_bytes(body) != record.blob:
        return None
    return Found(record, offset + HEADER_BYTES)


def _search(read: Read, start: int, end: int) -> int | None:
    """Offset of the next whole record at or after `start`. Bodies are ciphertext, so a chance
    magic inside one is rare and dies on the crc and the hash."""
    base = start
    while base < end:
        window = read(base, min(_SEARCH_BYTES, end - base))
        at = window.find(MAGIC)
        while at >= 0:
            if _whole(read, base + at, end) is not None:
                return base + at
            at = window.find(MAGIC, at + 1)
        if len(window) < len(MAGIC):
            return None
        base += len(window) - len(MAGIC) + 1
        if len(window) < _SEARCH_BYTES:
            return None
    return None
