"""Sharing a directory: a new group around it, or a place on this disk for a group we are in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from holdfast.crypto.era import Era
from holdfast.device.group import Group
from holdfast.device.log import GroupLog
from holdfast.device.membership import publish_wrap
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.setup import check_device_name
from holdfast.device.state import DeviceState, GroupKey
from holdfast.device.tend import admit_devices, note_groups
from holdfast.errors import UsageError
from holdfast.logic.group.members import Genesis
from holdfast.logic.group.operation import Kind, encode_entries, group_id
from holdfast.wire.pool import BlobClass

FOLDER = "folder"


async def share(runtime: DeviceRuntime, path: Path, name: str) -> Group:
    """Make a group around the directory `path`, on this device's home slot.

    Group, genesis, key and place are on this disk together or not at all. Raises UsageError.
    """
    path = _directory(runtime, path, make=False)
    check_device_name(name)
    if any(key.name == name for key in runtime.state.groups()):
        raise UsageError(f"there is a folder called {name!r} already; choose another --name")
    state, nonce = runtime.state, runtime.entropy.bytes(32)
    key = GroupKey(
        id=group_id(state.key.public, nonce),
        kind=FOLDER,
        name=name,
        era=0,
        secret=runtime.entropy.bytes(32),
        slot=state.home_slot,
        joined_at=runtime.clock.wall(),
    )
    log = GroupLog(state.database, key.id, state.at_rest)
    genesis = encode_entries(Genesis(nonce, state.name, person=state.person))
    written = log.prepare(state.key, Kind.GENESIS, genesis)

    def note() -> None:
        log.store(written)
        state.keep_group(key)
        state.keep_folder(key.id, path)

    slot = runtime.keyring.slot
    era = Era(key.secret, slot.network.id, key.era)
    await slot.put_many(era, BlobClass.LOG, [written.payload], also=note)
    group = await runtime.open_group(key)
    await admit_devices(runtime, group)
    await publish_wrap(runtime, group)
    await note_groups(runtime)
    return group


async def place(runtime: DeviceRuntime, key: GroupKey, path: Path) -> Group:
    """Keep `path` in step with a group this device is in. Raises UsageError."""
    if key.id in runtime.state.folders():
        raise UsageError(
            f"{key.name} is at {runtime.state.folders()[key.id]} already; one place per device"
        )
    path = _directory(runtime, path, make=True)
    runtime.state.keep_folder(key.id, path)
    return await runtime.open_group(key)


def move(state: DeviceState, key: GroupKey, path: Path) -> Path:
    """The folder of `key` lies at `path` from now on. Call before the device is opened; the folder
    engine must then accept the directory. Raises UsageError."""
    if key.id not in state.folders():
        raise UsageError(f"{key.name} is not checked out here; holdfast folder join {key.name} DIR")
    path = path.resolve()
    if not path.is_dir():
        raise UsageError(f"{path} is not a directory; give the place where the folder is now")
    others = (place for group, place in state.folders().items() if group != key.id)
    _check_apart(path, (*others, state.home.resolve()))
    state.keep_folder(key.id, path)
    return path


def check_place(runtime: DeviceRuntime, path: Path) -> None:
    """Raises UsageError when `path` cannot be shared: no directory, or part of another share."""
    _directory(runtime, path, make=True)


def _directory(runtime: DeviceRuntime, path: Path, *, make: bool) -> Path:
    if make and not path.exists():
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise UsageError(f"cannot make {path}: {error.strerror}; choose another") from error
    if not path.is_dir():
        raise UsageError(f"{path} is not a directory; make it first")
    path = path.resolve()
    _check_apart(path, (*runtime.state.folders().values(), runtime.state.home.resolve()))
    return path


def _check_apart(path: Path, others: Iterable[Path]) -> None:
    for other in others:
        if path == other or path in other.parents or other in path.parents:
            raise UsageError(f"{path} overlaps {other}; share directories side by side")
