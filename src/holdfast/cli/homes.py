"""The directories that Holdfast makes: told apart by what lies in them, and what of it is ours."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import UsageError


class Kind(StrEnum):
    """What a directory is."""

    HQ = "hq"
    NODE = "node"
    DEVICE = "device"


SERVICE_FILE: Final = "service.json"
"""What `holdfast service install` wrote elsewhere."""
_MARK: Final = {Kind.HQ: "hq.json", Kind.NODE: "member.json", Kind.DEVICE: "device.key"}
_COMMON: Final = ("lock", SERVICE_FILE, ".*.new")
_OURS: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.HQ: (
        *("hq.json", "identity.key", "roots.pem", "request.txt", "admin.json", "intermediate"),
        *("control.db", "control.db-*", "tickets", "snapshot.key", "front.keys"),
        *("seal.key", "credentials", "releases"),
    ),
    Kind.NODE: (
        *("identity.key", "roots.pem", "member.json", "status.json", ".status.json", "tls", "role"),
        *("desired.msgpack*", "alerts.msgpack*", "witness.msgpack*", "evidence"),
        *("front", "releases", "defer.json"),
    ),
    Kind.DEVICE: ("device.key", "device.db", "device.db-*", "folders", "outbox"),
}
"""Names at the top of each kind of directory; a directory among them is ours with all it holds."""


class ServiceFile(msgspec.Struct, frozen=True):
    """`service.json`."""

    unit: str
    """Path of the unit file."""
    user_manager: bool


def kind_of(directory: Path) -> Kind:
    """What `directory` is. Raises UsageError when it is nothing of ours."""
    for kind, mark in _MARK.items():
        if (directory / mark).exists():
            return kind
    raise UsageError(
        f"{directory} is no headquarters, node or device; give its directory with --dir"
    )


def ours(directory: Path, kind: Kind) -> Iterator[Path]:
    """Everything in `directory` that Holdfast made, deepest first."""
    for entry in sorted(directory.iterdir()):
        if any(fnmatch(entry.name, pattern) for pattern in (*_OURS[kind], *_COMMON)):
            yield from _below(entry)


def _below(entry: Path) -> Iterator[Path]:
    if entry.is_dir() and not entry.is_symlink():
        for child in sorted(entry.iterdir()):
            yield from _below(child)
    yield entry
