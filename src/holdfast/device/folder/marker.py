"""The marker: a random value kept at a folder's top, so that another disk is not taken for it.

Inodes do not tell disks apart: the top of every fresh filesystem has the same one. The index knows
the marker's value; where another or none is found, nothing is taken for deleted. It lives in the
staging directory, which is never synced.
"""

from __future__ import annotations

import errno
import os

from holdfast.device.folder.disk import Disk
from holdfast.logic.group.paths import STAGING_NAME

MARKER_NAME = b"marker"
MARKER_BYTES = 16
_PATH = STAGING_NAME + b"/" + MARKER_NAME
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)


def read_marker(disk: Disk) -> bytes | None:
    """The marker's 16 bytes; None when there is none, or no whole one. Raises OSError."""
    try:
        fd = disk.open_read(_PATH)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise
    try:
        found = os.pread(fd, MARKER_BYTES + 1, 0)
    finally:
        os.close(fd)
    return found if len(found) == MARKER_BYTES else None


def write_marker(disk: Disk, marker: bytes) -> None:
    """Keep `marker` at the top, durably. Raises OSError."""
    assert len(marker) == MARKER_BYTES
    if disk.lstat(STAGING_NAME) is None:
        disk.mkdir(STAGING_NAME, 0o700)
    fd = disk.create(_PATH)
    try:
        disk.write(fd, marker, 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    for directory in (STAGING_NAME, b""):
        os.fsync(disk.directory(directory))
