"""Where two people who pair find each other: one waits at an address, or in a mailbox, or both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from holdfast.crypto.era import Era
from holdfast.device.peering.channel import MailboxChannel
from holdfast.device.peering.pairing import Offer, Pairing, Who, WrongCode, code_bytes, draw_code
from holdfast.device.runtime import DeviceRuntime
from holdfast.errors import HoldfastError, OperationFault, PeerFault, UsageError
from holdfast.limits.people import PAIR_S_MAX
from holdfast.logic.group.friends import Friend
from holdfast.rim.addresses import own_addresses
from holdfast.rim.stream import Listener, Stream, connect
from holdfast.wire.address import split_address
from holdfast.wire.pairing import FRAME_BYTES_MAX, GUEST, HOST, KEY_BYTES, Meeting, parse_meeting

FRAME_S = 30.0
"""Real seconds for one frame of somebody who has begun to speak."""


class Waiting(msgspec.Struct, frozen=True):
    """How to reach a host that waits."""

    code: str
    """To be said aloud, with one of the addresses."""
    addresses: tuple[str, ...]
    line: str
    """To be copied, or shown as a QR code."""
    expires_at: int


async def host(
    runtime: DeviceRuntime | Who,
    offer: Offer,
    *,
    listen: tuple[str, int] | None = ("0.0.0.0", 0),
    relay: bool = True,
    on_waiting: Callable[[Waiting], None] = lambda waiting: None,
) -> Friend:
    """Wait for one friend. Raises WrongCode after a wrong guess, OperationFault when nobody comes.

    A spoken code is good at an address only: its mailbox could be guessed.
    """
    assert listen or relay, "somewhere must be waited"
    code, key = draw_code(runtime.entropy), runtime.entropy.bytes(KEY_BYTES)
    found: asyncio.Queue[Friend | HoldfastError] = asyncio.Queue()

    async def meet(stream: Stream) -> None:
        """A guest says first whether it holds the spoken code or the line."""
        kind = await stream.receive()
        secret = key if kind == b"line" else code_bytes(code)
        try:
            friend = await Pairing(runtime, stream, secret, offer).host()
            _note(runtime, friend, stream)
            found.put_nowait(friend)
        except WrongCode as fault:
            found.put_nowait(fault)
        except OperationFault:
            return

    listener = Listener(
        meet,
        runtime.clock,
        frame_bytes_max=FRAME_BYTES_MAX,
        frame_s=FRAME_S,
        connections_max=1,
    )
    tasks: list[asyncio.Task[None]] = []
    try:
        addresses: tuple[str, ...] = ()
        if listen is not None:
            await listener.start(*listen)
            addresses = _reachable(listener.address)
        expires_at = int(runtime.clock.wall() + PAIR_S_MAX)
        locator = None
        if relay:
            assert isinstance(runtime, DeviceRuntime), "only a device of a network has relays"
            locator = runtime.keyring.slot.current_locator()
        meeting = Meeting(key, addresses, locator, expires_at)
        if isinstance(runtime, DeviceRuntime) and relay:
            era = Era(meeting.mailbox_secret, runtime.keyring.era.network)
            slot = await runtime.slot(runtime.state.home_slot, era)
            box = MailboxChannel(slot, era, HOST, runtime.clock, expires_at)
            tasks.append(asyncio.create_task(_into(found, Pairing(runtime, box, key, offer))))
        on_waiting(Waiting(code if listen else "", addresses, str(meeting), expires_at))
        async with runtime.clock.real_timeout(PAIR_S_MAX):
            outcome = await found.get()
    except TimeoutError as error:
        raise OperationFault("nobody came within ten minutes; begin again") from error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.stop()
    if isinstance(outcome, HoldfastError):
        raise outcome
    return outcome


async def _into(found: asyncio.Queue[Friend | HoldfastError], pairing: Pairing) -> None:
    try:
        found.put_nowait(await pairing.host())
    except (OperationFault, PeerFault) as fault:
        found.put_nowait(fault)


def _reachable(address: str) -> tuple[str, ...]:
    """An address as others reach it: every one of the machine's where it listens on all."""
    where, port = split_address(address)
    hosts = own_addresses() if where in ("0.0.0.0", "::") else (where,)
    return tuple(f"[{h}]:{port}" if ":" in h else f"{h}:{port}" for h in hosts)


async def guest(runtime: DeviceRuntime | Who, offer: Offer, text: str, at: str = "") -> Friend:
    """Meet a host by the code it said and where it waits, or by its line.

    Raises UsageError, WrongCode, PeerFault, OperationFault.
    """
    if not text.lower().startswith("hfpair"):
        if not at:
            raise UsageError(
                "a spoken code needs the address that was said with it: --at HOST:PORT"
            )
        return await _at(runtime, offer, split_address(at), code_bytes(text), b"code")
    meeting = parse_meeting(text, runtime.clock.wall())
    for address in meeting.addresses:
        try:
            return await _at(runtime, offer, split_address(address), meeting.key, b"line")
        except OperationFault:
            continue
    if meeting.locator is None or isinstance(runtime, Who):
        raise OperationFault("the other device cannot be reached; are both on one network?")
    return await _by_mailbox(runtime, offer, meeting)


async def _at(
    runtime: DeviceRuntime | Who, offer: Offer, address: tuple[str, int], secret: bytes, kind: bytes
) -> Friend:
    stream = await connect(address, runtime.clock, frame_bytes_max=FRAME_BYTES_MAX, frame_s=FRAME_S)
    try:
        await stream.send(kind)
        friend = await Pairing(runtime, stream, secret, offer).guest()
        _note(runtime, friend, stream)
        return friend
    finally:
        stream.close()


def _note(runtime: DeviceRuntime | Who, friend: Friend, stream: Stream) -> None:
    """Where a device was met is where it is looked for first."""
    if isinstance(runtime, DeviceRuntime):
        for device in friend.devices:
            runtime.state.met_at(device.key, split_address(stream.peer)[0])


async def _by_mailbox(runtime: DeviceRuntime, offer: Offer, meeting: Meeting) -> Friend:
    assert meeting.locator is not None
    locator = await runtime.headquarters.roots(meeting.locator)
    if runtime.state.locator(locator.slot) is None:
        runtime.state.keep_locator(locator)
    era = Era(meeting.mailbox_secret, locator.network)
    slot = await runtime.slot(locator.slot, era)
    box = MailboxChannel(slot, era, GUEST, runtime.clock, meeting.expires_at)
    return await Pairing(runtime, box, meeting.key, offer).guest()
