"""Small files that must be whole after a crash: written beside, synced, renamed."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import IO, Final

from holdfast.errors import OperationFault, UsageError
from holdfast.rim.clock import Clock

_UNLOCK_POLL_S: Final = 0.02


def write_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` with `data`, durably and at once. Raises OperationFault."""
    beside = path.with_name(f".{path.name}.new")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise OperationFault(f"cannot write {path}: {error.strerror}") from error


def sync_directory(path: Path) -> None:
    """Make renames and removals in `path` durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_file(path: Path) -> bytes | None:
    """Its bytes; None when it does not exist. Raises OperationFault."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OperationFault(f"cannot read {path}: {error.strerror}") from error


def remove_file(path: Path) -> None:
    """Remove it, durably; one that is gone is no error."""
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def make_private_directory(path: Path) -> None:
    """Make `path`, readable by its owner only. Raises OperationFault."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise OperationFault(f"cannot make {path}: {error.strerror}") from error


def lock_directory(path: Path, what: str) -> IO[bytes]:
    """Hold `path` for as long as the answer is open. Raises UsageError when `what` runs there."""
    make_private_directory(path)
    file = (path / "lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise UsageError(f"{what} already runs on {path}; stop it first") from error
    return file


async def wait_unlocked(path: Path, clock: Clock, real_s: float) -> None:
    """Return when nobody holds `path`, or when `real_s` are over: whoever locks it then is told."""
    try:
        async with clock.real_timeout(real_s):
            while not _is_free(path):
                await clock.sleep_real(_UNLOCK_POLL_S)
    except TimeoutError:
        return


def _is_free(path: Path) -> bool:
    try:
        lock_directory(path, "somebody").close()
    except UsageError:
        return False
    return True


def remove_tree(path: Path) -> None:
    """Remove a directory and all in it; one that is not there is no error."""
    shutil.rmtree(path, ignore_errors=True)


def same_disk(one: Path, other: Path) -> bool:
    """Whether two directories lie on one file system; also where one of them is not there."""
    try:
        return one.stat().st_dev == other.stat().st_dev
    except OSError:
        return True
