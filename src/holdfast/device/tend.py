"""Housekeeping that makes a person's devices one.

* groups that another device noted in the keyring are taken up here, and ours are noted there;
* every device of the person, and the person root itself, is a member of every group: a new device
  then needs nothing but the words to become one (the root can vouch for it anywhere);
* the newest record of every slot in use lies in the keyring, for recovery without HQ.
"""

from __future__ import annotations

import logging

from holdfast.crypto.keys import SigningKey
from holdfast.device.group import Group
from holdfast.device.keyring import key_entries, member_entries, staple_payload
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.state import GroupKey
from holdfast.errors import OperationFault, PeerFault
from holdfast.logic.group.keyring import Key
from holdfast.logic.group.operation import Kind
from holdfast.wire.pool import BlobClass

_log = logging.getLogger(__name__)
ROOT_LABEL = "root"


async def tend(runtime: DeviceRuntime, *, everywhere: bool = False) -> None:
    """One round. Raises OperationFault when the keyring cannot be read now."""
    await runtime.keyring.read(everywhere=everywhere)
    await take_up_groups(runtime)
    await runtime.open_waiting()
    await note_groups(runtime)
    for group in list(runtime.groups.values()):
        await admit_devices(runtime, group)
    await keep_records(runtime)


async def take_up_groups(runtime: DeviceRuntime) -> None:
    """Be in every group that the keyring has a key for."""
    for key in runtime.keyring_log.state.keyring.all():
        known = GroupKey(
            key.group, key.kind, key.name, key.era, key.secret, key.slot, runtime.clock.wall()
        )
        if key.group in runtime.groups:
            continue
        try:
            if key.group not in {group.id for group in runtime.state.groups()}:
                runtime.state.keep_group(known)
            await runtime.open_group(known)
        except (OperationFault, PeerFault) as fault:
            _log.warning("group %s waits: %s", key.name, fault)


async def note_groups(runtime: DeviceRuntime) -> None:
    """Have a key in the keyring for every group this device is in."""
    keyring = runtime.keyring_log.state.keyring
    missing = [
        Key(
            group=key.id,
            replaces=keyring.replaces(key.id),
            kind=key.kind,
            name=key.name,
            era=key.era,
            secret=key.secret,
            slot=key.slot,
            network=runtime.groups[key.id].era.network,
        )
        for key in runtime.state.groups()
        if key.id in runtime.groups and keyring.get(key.id) is None
    ]
    if missing:
        await runtime.keyring.write(Kind.KEYRING, key_entries(*missing))


async def admit_devices(
    runtime: DeviceRuntime, group: Group, *, signer: SigningKey | None = None
) -> None:
    """Make the person's devices and root members of `group`, as far as they are not.

    `signer` is who vouches: this device, which must be a member itself, or the person root.
    """
    members = group.log.state.members
    voucher = (signer or runtime.state.key).public
    if voucher not in members:
        return
    wanted = [(s.device, s.name) for s in runtime.keyring_log.devices()]
    wanted.append((runtime.state.person, ROOT_LABEL))
    missing = [(key, label) for key, label in wanted if key not in members]
    if missing:
        await group.write(Kind.MEMBER, member_entries(*missing), signer=signer)


async def keep_records(runtime: DeviceRuntime) -> None:
    """Lay the newest record of every slot in use into the keyring."""
    for slot_id in runtime.slots:
        staple = runtime.state.store.records.staple(slot_id)
        if staple is not None and not runtime.keyring_log.holds(staple):
            await _enclose(runtime, staple_payload(staple))


async def _enclose(runtime: DeviceRuntime, payload: bytes) -> None:
    keyring, log = runtime.keyring, runtime.keyring_log
    await keyring.slot.put_many(
        keyring.era,
        BlobClass.LOG,
        [payload],
        also=lambda: log.keep(payload),
        then=lambda: log.use(payload),
    )
