"""The directory of segments: files named by born day, appended to by one thread.

`020345-000.seg` is the first file of born day 20345; past `SEGMENT_BYTES_MAX` comes `-001`. The
day is the unit of retention (drop its files), of the cold tier (move them) and of the archive
(encode them). `canary.seg` holds what probes wrote and is emptied when it grows.

The manifest, a file beside the directory, lists the segments. A name is added durably before
anything in its file is acknowledged and taken off before the file is removed on purpose: a listed
file that is not there was lost.

One thread appends; any thread reads. A reader takes its own reference to the open file, so that a
file dropped meanwhile closes only after the read.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

from holdfast.limits import OPEN_SEGMENTS_MAX, SEGMENT_BYTES_MAX
from holdfast.rim.store.files import Buffer, Files, read_note, write_note

CANARY = "canary.seg"
_NAME = re.compile(r"(\d{6,10})-(\d{3,6})\.seg")


def segment_name(born: int, part: int) -> str:
    """File name of one part of a born day."""
    return f"{born:06d}-{part:03d}.seg"


def born_of(name: str) -> int | None:
    """Born day of a segment file; None for the canary file and strangers."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


class _Open:
    """An open segment. Closes itself when the last reader lets go."""

    __slots__ = ("fd", "size")

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size

    def __del__(self) -> None:
        os.close(self.fd)


class Segments:
    """Appending, reading and dropping segment files under `root`, listed in `manifest`."""

    def __init__(self, root: Path, manifest: Path, files: Files) -> None:
        self._root = root
        self._files = files
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._parts: dict[int, int] = {}
        self._manifest = manifest
        listed, self._doubt = read_note(manifest, set[str])
        self._listed: set[str] = listed or set()
        root.mkdir(parents=True, exist_ok=True)
        for name in self.names():
            self._note_part(name)

    def names(self) -> list[str]:
        """Every segment of a born day, oldest first; the canary file is not one."""
        return sorted(p.name for p in self._root.iterdir() if born_of(p.name) is not None)

    def is_missing_some(self) -> bool:
        """Whether segments have been lost, as far as the manifest can tell."""
        return self._doubt or not self._listed <= set(self.names())

    def relist(self) -> None:
        """Let the manifest list what is here. Raises OSError."""
        self._list(set(self.names()))

    def enlist(self, names: Iterable[str]) -> None:
        """Add segments to the manifest before they hold anything. Raises OSError."""
        self._list(self._listed | {name for name in names if born_of(name) is not None})

    def _list(self, names: set[str]) -> None:
        if names != self._listed or self._doubt:
            write_note(self._manifest, self._files, sorted(names))
            self._listed, self._doubt = names, False

    def size(self, name: str) -> int:
        """Bytes in a segment."""
        return self._handle(name).size

    def target(self, born: int) -> str:
        """The file that the next record of this born day goes to."""
        part = self._parts.get(born, 0)
        name = segment_name(born, part)
        if self._exists(name) and self._handle(name).size >= SEGMENT_BYTES_MAX:
            return segment_name(born, part + 1)
        return name

    def append(self, name: str, parts: Sequence[Buffer]) -> int:
        """Append `parts` and return the offset at which they start. Raises OSError; the file may
        then be longer than `size` says until `rollback`."""
        handle = self._handle(name)
        start = handle.size
        self._files.append(handle.fd, parts)
        handle.size = start + sum(len(part) for part in parts)
        self._note_part(name)
        return start

    def sync(self, name: str) -> None:
        """Make what was appended durable. Raises OSError, after which nothing may be assumed."""
        self._files.sync(self._handle(name).fd)

    def rollback(self, name: str, size: int) -> None:
        """Cut a segment back to `size`. Raises OSError."""
        handle = self._handle(name)
        self._files.truncate(handle.fd, size)
        handle.size = size

    def refresh(self, name: str, start: int) -> None:
        """Write a segment's bytes from `start` on again, durably. Raises OSError."""
        self._files.refresh(self._root / name, start, self.size(name))

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Bytes of a segment, fewer at its end. Raises OSError, also when it was dropped."""
        if not self._exists(name):
            raise FileNotFoundError(name)
        handle = self._handle(name)
        return self._files.read(handle.fd, offset, size)

    def drop(self, names: Sequence[str]) -> None:
        """Remove segments on purpose. Raises OSError."""
        self._list(self._listed.difference(names))
        for name in names:
            with self._lock:
                self._open.pop(name, None)
            self._files.remove(self._root / name)

    def free_bytes(self) -> int:
        """Room on the disk."""
        return self._files.free_bytes(self._root)

    def close(self) -> None:
        """Let go of all files."""
        with self._lock:
            self._open.clear()

    def _note_part(self, name: str) -> None:
        match = _NAME.fullmatch(name)
        if match:
            born, part = int(match[1]), int(match[2])
            self._parts[born] = max(part, self._parts.get(born, 0))

    def _exists(self, name: str) -> bool:
        return name in self._open or (self._root / name).exists()

    def _handle(self, name: str) -> _Open:
        with self._lock:
            handle = self._open.get(name)
            if handle is None:
                fd = self._files.open(self._root / name)
                handle = _Open(fd, os.fstat(fd).st_size)
                self._open[name] = handle
                if len(self._open) > OPEN_SEGMENTS_MAX:
                    self._open.popitem(last=False)
            else:
                self._open.move_to_end(name)
            return handle
