"""Devices this one can write to: the person's own, and friends' as they were met.

A person's devices find each other through the keyring, where each lays its wrap key and the
addresses it answers at, as an entry beside the friends under the person's own root.
"""

from __future__ import annotations

from holdfast.device.eras import device_wrap, person_wrap
from holdfast.device.friends import keep
from holdfast.device.peering.letters import Courier, Direct, Peer, Sender, Writer
from holdfast.device.peering.pairing import Offer
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.state import DeviceState
from holdfast.errors import UsageError
from holdfast.logic.group.friends import Friend, FriendDevice
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy


def sender(state: DeviceState) -> Sender:
    """This device, as it signs letters. Needs no half of anything."""
    return Sender(state.key, device_wrap(state.key.seed), state.statement)


def writer(
    state: DeviceState, clock: Clock, entropy: Entropy, courier: Courier | None = None
) -> Writer:
    """Asks other devices, over sockets unless told otherwise."""
    return Writer(sender(state), courier or Direct(clock), clock, entropy)


def peers(runtime: DeviceRuntime) -> tuple[Peer, ...]:
    """Every other device that was met and is not out, own ones first."""
    own, person = runtime.state.key.public, runtime.state.person
    found = []
    for friend in runtime.keyring_log.state.friends.all():
        for device in friend.devices:
            mine = friend.person == person
            if device.key == own or (mine and not runtime.keyring_log.is_in(device.key)):
                continue
            name = device.name if mine else f"{friend.name}'s {device.name}"
            peer = Peer(device.key, device.wrap, device.addresses, name, friend.person)
            found.append((not mine, name, peer))
    return tuple(peer for *_, peer in sorted(found, key=lambda row: row[:2]))


def peer_named(runtime: DeviceRuntime, name: str) -> Peer:
    """The peer of that name. Raises UsageError."""
    known = peers(runtime)
    found = [peer for peer in known if peer.name == name or peer.name.startswith(f"{name}'s ")]
    if len(found) == 1:
        return found[0]
    names = ", ".join(peer.name for peer in known) or "nobody yet; pair, or start another device"
    raise UsageError(f"no single device called {name!r}; there is: {names}")


def offer(runtime: DeviceRuntime, name: str = "") -> Offer:
    """What this device tells when it pairs: what to call the person, and where it answers."""
    known = runtime.keyring_log.state.friends.get(runtime.state.person)
    devices = known.devices if known else ()
    own = runtime.state.key.public
    addresses = next((device.addresses for device in devices if device.key == own), ())
    return Offer(name or runtime.state.name, addresses)


async def announce(runtime: DeviceRuntime, addresses: tuple[str, ...]) -> None:
    """Let the person's other devices know where this one answers, if that is news."""
    state, person = runtime.state, runtime.state.person
    known = runtime.keyring_log.state.friends.get(person)
    statement = runtime.keyring_log.statement(state.key.public)
    wrap_key = device_wrap(state.key.seed).public
    device = FriendDevice(state.key.public, state.name, statement.roles, wrap_key, addresses)
    if known is not None and device in known.devices:
        return
    entry = Friend(
        person=person,
        replaces=runtime.keyring_log.state.friends.replaces(person),
        name=state.name,
        secret=bytes(32),
        wrap=person_wrap(runtime.keyring.era.secret).public,
        devices=(device,),
        locator="",
        words="",
        met_at=int(runtime.clock.wall()),
    )
    await keep(runtime, entry)
