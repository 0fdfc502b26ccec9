"""Letting people into a group and putting them out, with the new era that follows (D16).

Everybody publishes the wrap key to which new eras are sealed for them; a new era is sealed to
every person whose key is known (in a keyring: to every device of the person, and to the root).
Whoever was not there when an era began gets the next one: any member that notices begins it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.crypto.keys import SigningKey
from holdfast.device.eras import device_wrap, person_wrap
from holdfast.device.group import KEYRING, Group
from holdfast.device.keyring import added
from holdfast.errors import UsageError
from holdfast.logic.group.authority import Level
from holdfast.logic.group.members import Entry, Member, MemberEntries, Removed, Wrapping
from holdfast.logic.group.operation import Kind, encode_entries

if TYPE_CHECKING:
    from holdfast.device.runtime import DeviceRuntime


def reader_of(runtime: DeviceRuntime, group: Group) -> tuple[bytes, bytes]:
    """(reader, public wrap key) under which this device opens new eras of `group`."""
    if group.kind == KEYRING:
        return runtime.state.key.public, device_wrap(runtime.state.key.seed).public
    return runtime.state.person, person_wrap(runtime.keyring.era.secret).public


def own_wrapping(runtime: DeviceRuntime, group: Group) -> tuple[Wrapping, ...]:
    """The entry that publishes our wrap key, unless it stands there already."""
    reader, public = reader_of(runtime, group)
    state = group.log.state
    if state.wraps.get(reader) == public:
        return ()
    return (Wrapping(state.wrap_n(reader) + 1, reader, public),)


def wraps_of(runtime: DeviceRuntime, group: Group, without: set[bytes]) -> dict[bytes, bytes]:
    """Wrap key of every reader that is in and not in `without`."""
    members = [m for m in group.log.state.members.all() if _stays(m, without)]
    if group.kind == KEYRING:
        readers = {member.device for member in members}
    else:
        readers = {member.person for member in members} - {b""}
    wraps = {r: k for r, k in group.log.state.wraps.items() if r in readers}
    reader, public = reader_of(runtime, group)
    if reader in readers:
        wraps[reader] = public
    return wraps


def _stays(member: Member, without: set[bytes]) -> bool:
    return member.device not in without and member.person not in without


async def remove(
    runtime: DeviceRuntime, group: Group, keys: set[bytes], *, signer: SigningKey | None = None
) -> None:
    """Put `keys` (devices, or persons by their roots) out of `group` and begin a new era.

    Raises UsageError when nothing of that is in, or this device may not.
    """
    members = group.log.state.members
    targets = sorted(key for key in keys if any(key in (m.device, m.person) for m in members.all()))
    if not targets:
        raise UsageError("none of these is in the group; see holdfast group members")
    author = members.get((signer or runtime.state.key).public)
    if author is None:
        raise UsageError("this device is not in the group any more")
    if author.level < Level.MANAGER and any(_person(group, t) != author.person for t in targets):
        raise UsageError("only a manager of the group puts others out")
    out: tuple[Entry, ...] = tuple(Removed(target) for target in targets)
    wraps = wraps_of(runtime, group, set(targets))
    secret = runtime.entropy.bytes(32)
    await group.rekey(secret, wraps, *out, *own_wrapping(runtime, group), signer=signer)
    if group.kind != KEYRING:
        await publish_wrap(runtime, group)


def _person(group: Group, key: bytes) -> bytes:
    member = group.log.state.members.get(key)
    return member.person if member else key


async def publish_wrap(runtime: DeviceRuntime, group: Group) -> None:
    """Let the others know to which key new eras are sealed for us."""
    if runtime.state.key.public not in group.log.state.members or group.shut_out:
        return
    entries = own_wrapping(runtime, group)
    if entries:
        await group.write(Kind.MEMBER, encode_entries(MemberEntries(entries)))


async def refresh(runtime: DeviceRuntime, group: Group) -> None:
    """Begin a new era if there must be one: nobody shut out may read it, nobody who is in is left
    outside. Does nothing where this device may not."""
    state = group.log.state
    member = state.members.get(runtime.state.key.public)
    if member is None or member.level < Level.WRITER or group.shut_out:
        return
    wraps = wraps_of(runtime, group, set())
    current = state.eras.current
    sealed = {reader for reader, _ in current.rekey.sealed} if current else set(wraps)
    if state.eras.rekey_needed or not sealed.issuperset(wraps):
        await group.rekey(runtime.entropy.bytes(32), wraps, *own_wrapping(runtime, group))


async def let_in(
    runtime: DeviceRuntime,
    group: Group,
    members: list[tuple[bytes, str, bytes]],
    level: Level = Level.MANAGER,
    *,
    signer: SigningKey | None = None,
) -> None:
    """Make (key, label, person) members, as far as they are not."""
    known = group.log.state.members
    missing = [
        added(key, label, person, level) for key, label, person in members if key not in known
    ]
    if missing:
        body = encode_entries(MemberEntries(tuple(missing)))
        await group.write(Kind.MEMBER, body, signer=signer)
