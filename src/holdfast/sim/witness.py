"""What lies on a server's disk, read by somebody the server does not know.

A drill that asks a server what it holds has asked the accused. This reads the segment files of a
store directory with the server running or dead, and believes only whole records whose body hashes
to the blob id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from holdfast.rim.store.record import Found, scan
from holdfast.wire.pool import BlobClass

SEGMENT_GLOB: Final = "**/*.seg"


class Held(msgspec.Struct, frozen=True):
    """One intact blob on a disk."""

    tag: bytes
    blob: bytes


def held_on(directory: Path) -> set[Held]:
    """Every intact blob below a server's directory; probes' canaries left out."""
    return {
        Held(found.record.tag, found.record.blob)
        for path in sorted(directory.glob(SEGMENT_GLOB))
        for found in _records(path)
        if found.record.blob_class != BlobClass.CANARY
    }


def _records(path: Path) -> Iterator[Found]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield from scan(lambda offset, size: os.pread(fd, size, offset), 0, os.fstat(fd).st_size)
    finally:
        os.close(fd)
