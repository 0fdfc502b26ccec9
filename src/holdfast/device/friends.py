"""Friends of the person, as their keyring has them: every device of the person knows them all."""

from __future__ import annotations

import msgspec

from holdfast.device.runtime import DeviceRuntime
from holdfast.errors import UsageError
from holdfast.limits.people import FRIEND_DEVICES_MAX
from holdfast.logic.group.friends import Friend, FriendEntries, Unpaired
from holdfast.logic.group.operation import Kind, encode_entries


def friends(runtime: DeviceRuntime) -> tuple[Friend, ...]:
    """Every friend."""
    known = runtime.keyring_log.state.friends.all()
    return tuple(friend for friend in known if friend.person != runtime.state.person)


def friend_named(runtime: DeviceRuntime, name: str) -> Friend:
    """The friend of that name. Raises UsageError."""
    known = friends(runtime)
    found = [friend for friend in known if friend.name == name]
    if len(found) == 1:
        return found[0]
    names = ", ".join(sorted(friend.name for friend in known)) or "nobody yet"
    if found:
        raise UsageError(f"{len(found)} friends are called {name!r}; unpair needs another name")
    raise UsageError(f"no friend called {name!r}; there is: {names}")


async def keep(runtime: DeviceRuntime, friend: Friend) -> None:
    """Be friends from now on; other devices of theirs that were met before stay."""
    known = runtime.keyring_log.state.friends.get(friend.person)
    if known is not None:
        met = {device.key for device in friend.devices}
        others = tuple(device for device in known.devices if device.key not in met)
        devices = (friend.devices + others)[:FRIEND_DEVICES_MAX]
        friend = msgspec.structs.replace(friend, devices=devices)
    body = encode_entries(FriendEntries((friend,)))
    await runtime.keyring.write(Kind.FRIENDS, body)


async def unpair(runtime: DeviceRuntime, friend: Friend) -> None:
    """Be no friends any more: what grew from the pairing secret is not used again here."""
    replaces = runtime.keyring_log.state.friends.replaces(friend.person)
    body = encode_entries(FriendEntries((Unpaired(friend.person, replaces),)))
    await runtime.keyring.write(Kind.FRIENDS, body)
