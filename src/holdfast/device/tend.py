"""Housekeeping that makes a person's devices one.

* groups that another device noted in the keyring are taken up here, and ours are noted there;
* every device of the person, and the person root itself, is a member of every group: a new device
  then needs nothing but the words to become one (the root can vouch for it anywhere);
* the newest record of every slot in use lies in the keyring, for recovery without HQ.
"""

from __future__ import annotations

import logging

from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.device.group import Group
from holdfast.device.keyring import key_entries, staple_payload
from holdfast.device.membership import let_in, publish_wrap, refresh
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
    await keep_eras(runtime)
    await note_groups(runtime)
    await keep_records(runtime)


async def keep_eras(runtime: DeviceRuntime) -> None:
    """Publish where secrets are sealed for us; begin the eras that must begin."""
    for group in (runtime.keyring, *runtime.groups.values()):
        await publish_wrap(runtime, group)
        await refresh(runtime, group)


async def take_up_groups(runtime: DeviceRuntime) -> None:
    """Be in every group that the keyring has a key for."""
    for key in runtime.keyring_log.state.keyring.all():
        known = GroupKey(
            key.group, key.kind, key.name, key.era, key.secret, key.slot, runtime.clock.wall()
        )
        group = runtime.groups.get(key.group)
        if group is not None:
            group.learn(Era(key.secret, key.network, key.era))
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
    missing = []
    for key in runtime.state.groups():
        group, noted = runtime.groups.get(key.id), keyring.get(key.id)
        if group is None or (noted is not None and noted.era >= group.era.number):
            continue
        missing.append(
            Key(
                group=key.id,
                replaces=keyring.replaces(key.id),
                kind=key.kind,
                name=key.name,
                era=group.era.number,
                secret=group.era.secret,
                slot=key.slot,
                network=group.era.network,
            )
        )
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
    member = members.get(voucher)
    if member is None or group.shut_out:
        return
    person, keyring = runtime.state.person, runtime.keyring_log
    wanted = [(s.device, s.name, person) for s in keyring.devices() if keyring.is_in(s.device)]
    wanted.append((person, ROOT_LABEL, person))
    await let_in(runtime, group, wanted, member.level, signer=signer)


async def keep_records(runtime: DeviceRuntime) -> None:
    """Lay the newest record of every slot in use into the keyring."""
    for slot_id in runtime.slots:
        staple = runtime.state.store.records.staple(slot_id)
        if staple is not None and not runtime.keyring_log.holds(staple):
            await enclose(runtime, staple_payload(staple))


async def enclose(runtime: DeviceRuntime, payload: bytes) -> None:
    """Lay a signed paper into the keyring."""
    keyring, log = runtime.keyring, runtime.keyring_log
    await keyring.slot.put_many(
        keyring.era,
        BlobClass.LOG,
        [payload],
        also=lambda: log.keep(payload),
        then=lambda: log.use(payload),
    )
