"""A person's devices: who is one, what each is called, and putting one out (D7, D16).

A device is a member by the root's signed statement and out by a later one. With the words at hand
the root says so; without them any other device of the person puts the lost one out of the keyring
and of every group, which everybody honours, and the root's statement follows when the words are
found.
"""

from __future__ import annotations

import msgspec

from holdfast.crypto.keys import SigningKey
from holdfast.device.keyring import state_device
from holdfast.device.membership import publish_wrap, remove
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.tend import enclose
from holdfast.errors import HoldfastError, UsageError
from holdfast.wire.codec import pack
from holdfast.wire.person import DeviceStatement


class Device(msgspec.Struct, frozen=True):
    """One device of the person, as their keyring says."""

    key: bytes
    name: str
    roles: tuple[str, ...]
    is_in: bool
    """Whether it is in the keyring; False for one that was put out."""
    is_this: bool


def devices(runtime: DeviceRuntime) -> list[Device]:
    """Every device the root ever vouched for, those that are out last."""
    log, own = runtime.keyring_log, runtime.state.key.public
    found = [
        Device(s.device, s.name, s.roles, bool(s.roles) and log.is_in(s.device), s.device == own)
        for s in log.statements()
    ]
    return sorted(found, key=lambda d: (not d.is_in, d.name, d.key))


def device_named(runtime: DeviceRuntime, name: str) -> Device:
    """The device of that name that is in. Raises UsageError."""
    known = [device for device in devices(runtime) if device.is_in]
    found = [device for device in known if device.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{len(found)} devices are called {name!r}; rename one first")
    names = ", ".join(device.name for device in known)
    raise UsageError(f"no device called {name!r}; there is: {names}")


async def state(
    runtime: DeviceRuntime, root: SigningKey, device: bytes, name: str, roles: tuple[str, ...]
) -> DeviceStatement:
    """Lay the root's newest word on a device into the keyring. Raises UsageError for other words
    than this person's."""
    if root.public != runtime.state.person:
        raise UsageError("these are not the words of this device's person; check the file")
    n = runtime.keyring_log.device_n(device) + 1
    signed = state_device(root, device, name, n, int(runtime.clock.wall()), roles)
    payload = pack(signed)
    await enclose(runtime, payload)
    if device == runtime.state.key.public:
        runtime.state.set("statement", payload)
        runtime.state.set("name", name.encode())
    return runtime.keyring_log.statement(device)


class Revoked(msgspec.Struct):
    """Where a device is out now, and where that waits."""

    name: str
    groups: list[str] = []
    waiting: list[str] = []
    stated: bool = False
    """Whether the root said so too."""


async def revoke(runtime: DeviceRuntime, device: Device, root: SigningKey | None = None) -> Revoked:
    """Put a device out of the keyring and of every group, each with a new era.

    The keyring comes first: its new era changes the key to which others seal secrets for this
    person, and every group hears of that in the operation that removes the device. Raises
    UsageError for the device at work.
    """
    if device.is_this:
        raise UsageError("this is the device at work; revoke it from another one, or with restore")
    done = Revoked(device.name)
    if root is not None:
        await state(runtime, root, device.key, device.name, ())
        done.stated = True
    if runtime.keyring_log.is_in(device.key):
        await remove(runtime, runtime.keyring, {device.key}, signer=root)
    for group in runtime.groups.values():
        if device.key not in group.log.state.members:
            continue
        try:
            await remove(runtime, group, {device.key}, signer=root)
            await publish_wrap(runtime, group)
            done.groups.append(group.name)
        except HoldfastError:
            done.waiting.append(group.name)
    return done
