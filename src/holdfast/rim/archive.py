"""Archives of releases: a package as one zip file, and out of it again, trusting nothing in it."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Final

from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.limits.upgrade import ARTIFACT_BYTES_MAX, ARTIFACT_FILES_MAX, UNPACKED_BYTES_MAX
from holdfast.rim.files import remove_tree, sync_directory

PACKAGE: Final = "holdfast"
_LEFT_OUT: Final = frozenset({"__pycache__"})
_READ_BYTES: Final = 1 << 16
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ZIP_ERRORS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
)
"""All that `zipfile` raises on bytes that are no archive, or not of a kind we make."""


def pack_source(source: Path) -> bytes:
    """The archive of a directory with the package in it, or of a wheel, which is one already. The
    same files give the same bytes. Raises UsageError."""
    if source.is_file() and zipfile.is_zipfile(source):
        data = source.read_bytes()
    elif (source / PACKAGE / "__init__.py").is_file():
        data = _pack(source)
    else:
        raise UsageError(f"{source} is no wheel and has no package {PACKAGE}/ in it")
    if len(data) > ARTIFACT_BYTES_MAX:
        raise UsageError(f"{source} makes an archive over {ARTIFACT_BYTES_MAX} bytes")
    return data


def _pack(source: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((source / PACKAGE).rglob("*")):
            inside = path.relative_to(source)
            if path.is_file() and not _LEFT_OUT & set(inside.parts):
                info = zipfile.ZipInfo(inside.as_posix())  # of 1980: the same bytes every time
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, path.read_bytes())
    return out.getvalue()


def unpack_archive(data: bytes, target: Path) -> None:
    """Write the files of an archive below a new `target`, durable and whole when this returns.

    Raises PeerFault for an archive that is none, is a bomb, or leaves its place; OperationFault.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            items = [item for item in archive.infolist() if not item.is_dir()]
            if len(items) > ARTIFACT_FILES_MAX:
                raise PeerFault(f"an archive of {len(items)} files", code="too-large")
            if f"{PACKAGE}/__init__.py" not in {item.filename for item in items}:
                raise PeerFault(f"an archive without the package {PACKAGE}")
            remove_tree(target)
            left = UNPACKED_BYTES_MAX
            for item in items:
                if item.compress_type not in _METHODS:
                    raise PeerFault("an archive of another kind than ours")
                path = target / _inside(item.filename)
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                left = _write(archive, item, path, left)
        _sync_tree(target)
    except _ZIP_ERRORS as error:
        raise PeerFault(f"not an archive: {error}") from error
    except OSError as error:
        raise OperationFault(f"cannot unpack into {target}: {error.strerror}") from error


def _inside(name: str) -> Path:
    """A member's path below the target. Raises PeerFault for one that leads elsewhere."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        raise PeerFault(f"an archive with the path {name[:80]!r}")
    return path


def _write(archive: zipfile.ZipFile, item: zipfile.ZipInfo, path: Path, left: int) -> int:
    """What is left of the allowance: sizes in the directory are claims, so bytes are counted."""
    with archive.open(item) as source, path.open("wb") as file:
        while piece := source.read(_READ_BYTES):
            left -= len(piece)
            if left < 0:
                raise PeerFault("an archive that unpacks to too much", code="too-large")
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return left


def _sync_tree(top: Path) -> None:
    """Make the names in every directory from `top` down durable."""
    for path, _, _ in os.walk(top):
        sync_directory(Path(path))


def read_members(data: bytes, names: Collection[str]) -> dict[str, bytes]:
    """Some files of an archive that is at hand, small ones. Raises UsageError."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            here = set(archive.namelist())
            return {name: archive.read(name) for name in names if name in here}
    except _ZIP_ERRORS as error:
        raise UsageError(f"not an archive: {error}") from error
