"""How a device begins: a new person, another device of a person, or everything from words alone.

    words + locator  ->  keyring  ->  groups  ->  files

All three are one path: the phrase gives person root and keyring, the locator gives servers, and the
root vouches for this device in the keyring and in every group it finds there. A setup that was cut
short is begun again by the same command.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.phrase import Phrase
from holdfast.device.eras import recovery_wrap
from holdfast.device.headquarters import Headquarters, RealHeadquarters
from holdfast.device.keyring import added, genesis_entries, member_entries, state_device
from holdfast.device.membership import publish_wrap
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.state import DeviceState
from holdfast.device.tend import admit_devices, keep_records, take_up_groups
from holdfast.errors import OperationFault, UsageError
from holdfast.logic.fleet.model import SlotRecord
from holdfast.logic.group.members import Entry, Wrapping
from holdfast.logic.group.operation import Kind
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.resolver import Names
from holdfast.wire.codec import pack
from holdfast.wire.locator import Locator
from holdfast.wire.person import CARRIER, DEVICE_NAME_BYTES_MAX, READER
from holdfast.wire.pool import BlobClass
from holdfast.wire.signed import Type
from holdfast.wire.staple import verify_staple


class Setup(msgspec.Struct, frozen=True):
    """What a new device is set up with. `is_new`: the words were just drawn, nobody used them."""

    home: Path
    name: str
    locator: Locator
    phrase: Phrase
    is_new: bool = False
    region: str = ""
    roles: tuple[str, ...] = (CARRIER, READER)
    """In clusters of a few devices every one is both (seed 003, node types)."""


class World(msgspec.Struct, frozen=True):
    """What of the world a setup may use; `names` and `headquarters` are seams for tests."""

    clock: Clock
    entropy: Entropy
    names: Names | None = None
    headquarters: Headquarters | None = None


def draw_phrase(entropy: Entropy) -> Phrase:
    """The 24 words of a new person. Show them before they are used: nothing here keeps them."""
    return Phrase.from_entropy(entropy.bytes(32))


async def set_up(setup: Setup, world: World) -> DeviceRuntime:
    """An open device.

    Raises UsageError for a directory in use or a locator without HQ and slot, OperationFault when
    servers cannot be reached.
    """
    check_device_name(setup.name)
    if DeviceState.exists(setup.home):  # say so before anything that is asked of servers
        _unready(setup.home, world.clock).close()
    headquarters = world.headquarters or RealHeadquarters(world.clock)
    locator = await _complete(setup, world, headquarters)
    state = _state(setup, world)
    try:
        _remember(state, setup, locator)
        runtime = DeviceRuntime(
            state,
            world.clock,
            world.entropy,
            names=world.names,
            headquarters=headquarters,
        )
        try:
            await _begin(runtime, setup)
        except BaseException:
            await runtime.close()
            raise
    except BaseException:
        state.close()
        raise
    state.set("ready", b"1")
    return runtime


def check_device_name(name: str) -> None:
    """Raises UsageError for a name that cannot be one."""
    size = len(name.encode(errors="surrogatepass"))
    if not 0 < size <= DEVICE_NAME_BYTES_MAX or not name.isprintable():
        raise UsageError(
            f"a name has 1 to {DEVICE_NAME_BYTES_MAX} bytes of printable text; choose another"
        )


async def _complete(setup: Setup, world: World, headquarters: Headquarters) -> Locator:
    """The locator with roots and a slot. HQ is asked only for what is missing."""
    locator = await headquarters.roots(setup.locator)
    if locator.slot:
        return locator
    if not setup.is_new:
        raise UsageError(
            "these words are in use, and this locator names a network only; give the person's own, "
            "which was printed with the words and which `holdfast device locator` prints on any of "
            "this person's devices"
        )
    staple = await headquarters.new_slot(locator, setup.region)
    record = verify_staple(locator.roots, staple, Type.SLOT_RECORD, SlotRecord, world.clock.wall())
    return locator.with_record(record)


def refuse_ready(home: Path, clock: Clock) -> None:
    """Raises UsageError where a device is, before anything else is found wrong."""
    if DeviceState.exists(home):
        _unready(home, clock).close()


def _unready(home: Path, clock: Clock) -> DeviceState:
    """What an interrupted setup left. Raises UsageError when it was not interrupted."""
    state = DeviceState.open(home, clock)
    if state.get("ready") is not None:
        state.close()
        raise UsageError(f"{home} holds a device already; choose another --dir")
    return state


def _state(setup: Setup, world: World) -> DeviceState:
    """A new state directory, or the one that an interrupted setup left."""
    if not DeviceState.exists(setup.home):
        return DeviceState.create(setup.home, world.clock, world.entropy)
    return _unready(setup.home, world.clock)


def _remember(state: DeviceState, setup: Setup, locator: Locator) -> None:
    root = setup.phrase.root()
    state.keep_locator(locator)
    state.set("name", setup.name.encode())
    state.set("region", setup.region.encode())
    state.set("home slot", locator.slot)
    state.set("person", root.public)
    state.set("device", state.key.public)
    state.set_secret("keyring secret", setup.phrase.keyring_secret())


async def _begin(runtime: DeviceRuntime, setup: Setup) -> None:
    """Read what there is, then have the root vouch for this device."""
    phrase, is_new, roles = setup.phrase, setup.is_new, setup.roles
    recovery, root = recovery_wrap(phrase.recovery_secret()), phrase.root()
    runtime.recovery = ((root.public, recovery),)
    keyring = await runtime.open_keyring()
    try:
        await keyring.read(everywhere=True)
    except OperationFault:
        if not is_new:
            raise
    if root.public not in keyring.log.state.members:
        if not is_new:
            raise UsageError(
                "these words own nothing on this slot; check the words, and that the locator is "
                "the one that was kept with them"
            )
        await keyring.write(Kind.GENESIS, genesis_entries(root.public), signer=root)
    await _state_this_device(runtime, root, roles)
    device = runtime.state.key.public
    if device not in keyring.log.state.members:
        entries: list[Entry] = [added(device, runtime.state.name, root.public)]
        if root.public not in keyring.log.state.wraps:
            entries.append(Wrapping(1, root.public, recovery.public))
        await keyring.write(Kind.MEMBER, member_entries(*entries), signer=root)
    await publish_wrap(runtime, keyring)
    runtime.recovery = ()
    await take_up_groups(runtime)
    for group in list(runtime.groups.values()):
        try:
            await group.read(everywhere=True)
        except OperationFault:
            continue
        await admit_devices(runtime, group, signer=root)
        await publish_wrap(runtime, group)
    await keep_records(runtime)


async def _state_this_device(
    runtime: DeviceRuntime, root: SigningKey, roles: tuple[str, ...]
) -> None:
    """Lay the root's word on this device into the keyring, and keep it for invites."""
    keyring, log, state = runtime.keyring, runtime.keyring_log, runtime.state
    n = log.device_n(state.key.public) + 1
    at = int(runtime.clock.wall())
    payload = pack(state_device(root, state.key.public, state.name, n, at, roles))

    def note() -> None:
        log.keep(payload)
        state.set("statement", payload)

    await keyring.slot.put_many(keyring.era, BlobClass.LOG, [payload], also=note)
    log.use(payload)


def folder_directory(into: Path, name: str, taken: set[str], group: bytes) -> Path:
    """Where a restored folder goes: one component of a path, unique below `into`."""
    safe = "".join(c if c.isprintable() and c not in "/\\" else "_" for c in name)
    safe = safe.strip(". ")[:100] or "folder"
    if safe in taken:
        safe = f"{safe} {group.hex()[:8]}"
    taken.add(safe)
    return into / safe
