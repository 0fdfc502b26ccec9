"""Names inside a shared folder, and the names of conflict copies.

A path is the raw bytes of its components joined by `/`: no leading, trailing or doubled slash, no
`.`, no `..`, no NUL. Bytes, not text: a name that is not UTF-8 travels unharmed. A path that could
leave the folder cannot be built from these, and the applier refuses symbolic links on the way.
"""

from __future__ import annotations

from collections.abc import Container
from itertools import count

from holdfast.errors import PeerFault
from holdfast.limits import NAME_BYTES_MAX, PATH_BYTES_MAX

STAGING_NAME = b".holdfast~"
"""The one name at a folder's top that is ours: files under construction. Never synced."""
_EXTENSION_BYTES_MAX = 16
_LABEL_BYTES_SHOWN = 40


def path_fault(path: bytes) -> str:
    """Why `path` may not be part of a folder; empty when it may."""
    if not path or len(path) > PATH_BYTES_MAX:
        return "path is empty or too long"
    if b"\x00" in path:
        return "path with a NUL"
    names = path.split(b"/")
    if names[0] == STAGING_NAME:
        return "path inside the staging directory"
    for name in names:
        if not name or name == b"." or name == b"..":
            return "path with an empty, `.` or `..` component"
        if len(name) > NAME_BYTES_MAX:
            return "path with a component that is too long"
    return ""


def check_path(path: bytes) -> None:
    """Raises PeerFault for a path that may not be part of a folder."""
    fault = path_fault(path)
    if fault:
        raise PeerFault(fault, code="malformed")


def parent_of(path: bytes) -> bytes:
    """The directory that holds `path`; empty for the top."""
    return path.rpartition(b"/")[0]


def _cut(text: bytes, size: int) -> bytes:
    """At most `size` bytes of `text`, not through the middle of a UTF-8 character."""
    if len(text) <= size:
        return text
    for back in range(4):
        piece = text[: max(0, size - back)]
        try:
            piece.decode()
        except UnicodeDecodeError:
            continue
        return piece
    return text[:size]


def _shown(label: str) -> bytes:
    safe = "".join(c if c.isprintable() and c not in "/()," else "-" for c in label).strip()
    return _cut(safe.encode(errors="replace"), _LABEL_BYTES_SHOWN) or b"a device"


def conflict_path(path: bytes, label: str, short_id: str) -> bytes:
    """`dir/name (conflict, <label>, <short id>).ext`, cut to fit the limits of names and paths."""
    parent, _, name = path.rpartition(b"/")
    dot = name.rfind(b".")
    if dot <= 0 or len(name) - dot > _EXTENSION_BYTES_MAX:
        dot = len(name)
    stem, extension = name[:dot], name[dot:]
    suffix = b" (conflict, " + _shown(label) + b", " + short_id.encode() + b")" + extension
    room = PATH_BYTES_MAX - len(parent) - 1 if parent else PATH_BYTES_MAX
    kept = _cut(stem, max(0, min(NAME_BYTES_MAX, room) - len(suffix)))
    copy = kept + suffix
    return parent + b"/" + copy if parent else copy


def free_conflict_path(path: bytes, label: str, full_id: str, taken: Container[bytes]) -> bytes:
    """As `conflict_path`, with as much of `full_id` (hex) as it takes to be free; numbered past
    that, for somebody who named a file after a version id on purpose."""
    for digits in (6, 12, 24, len(full_id)):
        copy = conflict_path(path, label, full_id[:digits])
        if copy not in taken:
            return copy
    for number in count(2):
        copy = conflict_path(path, label, f"{full_id} {number}")
        if copy not in taken:
            return copy
    raise AssertionError("counting does not end")
