"""Taking a folder's plaintext off this disk, and bringing it back (D22).

A checked-out folder lies open on the disk whatever happens to keys: `plaintext` lists them. Locking
one removes it, once two replicas have everything; unlocking fetches it again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from holdfast.device.folder.ports import OnProgress, no_progress
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.sharing import place
from holdfast.device.state import DeviceState, GroupKey
from holdfast.errors import OperationFault, UsageError
from holdfast.logic.pool.fanout import Stage

_PLACE = "locked folder "


def plaintext(state: DeviceState) -> list[Path]:
    """Directories that whoever has this disk can read."""
    return sorted(state.folders().values())


def locked(state: DeviceState, group: bytes) -> Path | None:
    """Where a locked folder was; None for one that is not locked."""
    where = state.get(_PLACE + group.hex())
    return Path(where.decode()) if where else None


async def lock_folder(runtime: DeviceRuntime, key: GroupKey, real_s: float) -> Path:
    """Remove a folder's files and index from this disk. Raises OperationFault unless everything in
    it is recorded and on two replicas; nothing is removed then."""
    folder = runtime.folders.get(key.id)
    if folder is None:
        raise UsageError(f"{key.name} is not checked out here; nothing to lock")
    done = await folder.sync()
    if done.offline or done.problems or done.skipped or done.kept:
        what = done.offline or "; ".join((*done.problems, *done.skipped, *done.kept))
        raise OperationFault(f"{key.name} is not in step ({what[:300]}); nothing was removed")
    if not await runtime.reach(Stage.REPLICATED, real_s):
        raise OperationFault(f"{key.name} is not on two replicas yet; nothing was removed")
    again = await folder.sync(read=False)
    if again.changes:
        raise OperationFault(f"{key.name} changed meanwhile; nothing was removed, try again")
    folder.close()
    del runtime.folders[key.id]
    runtime.state.set(_PLACE + key.id.hex(), str(folder.path).encode())
    runtime.state.drop_folder(key.id)
    shutil.rmtree(folder.path)
    return folder.path


async def unlock_folder(
    runtime: DeviceRuntime, key: GroupKey, on_progress: OnProgress = no_progress
) -> Path:
    """Bring a locked folder back to where it was. Raises UsageError, OperationFault."""
    path = locked(runtime.state, key.id)
    if path is None:
        raise UsageError(f"{key.name} is not locked here")
    await place(runtime, key, path)
    done = await runtime.folders[key.id].sync(on_progress, everywhere=True)
    if done.offline or done.problems or done.missing:
        raise OperationFault(f"{key.name} is not whole yet; holdfast folder sync {key.name}")
    return path
