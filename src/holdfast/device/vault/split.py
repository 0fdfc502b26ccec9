"""Splitting this device's key, and getting the carriers' half back when it starts (D22).

The half lies with every carrier chosen, any one of which is enough, wrapped to it. It is also kept
here wrapped to the recovery key of the words, which is nowhere but on paper. Whom to ask stands in
the open: names, keys and addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from holdfast.crypto.wrap import wrap
from holdfast.device.peering.letters import Peer, Writer
from holdfast.device.peering.peers import writer
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.state import DeviceState
from holdfast.device.vault.halves import Done, Half
from holdfast.errors import HoldfastError, OperationFault, UsageError
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy

RECOVERY_HALF: Final = "half for recovery"


def recovery_info(device: bytes) -> bytes:
    """HPKE `info` of the half that the words open."""
    return b"holdfast v1 half for recovery" + device


async def split(runtime: DeviceRuntime, carriers: Sequence[Peer]) -> int:
    """Split the key of this device between itself and `carriers`; how many keep the half.

    Raises UsageError without a carrier or for one that says no, OperationFault when one cannot be
    reached: all of them or none, so that nobody counts on a carrier that has nothing.
    """
    if not carriers:
        raise UsageError("name at least one carrier: another device, or a friend's")
    state = runtime.state
    half = runtime.entropy.bytes(32)
    root = runtime.keyring_log.state.wraps.get(state.person)
    asking = writer(state, runtime.clock, runtime.entropy)
    for carrier in carriers:
        await asking.ask(carrier, "keep-half", Half(state.key.public, half), Done)
    if root is not None:
        state.set(RECOVERY_HALF, wrap(root, half, recovery_info(state.key.public)))
    state.split_key(half, msgspec.msgpack.encode(tuple(carriers)))
    return len(carriers)


def join(state: DeviceState) -> None:
    """Keep everything under this device's own half alone from now on."""
    state.split_key(b"", b"")


def holders(state: DeviceState) -> tuple[Peer, ...]:
    """Who carries the other half."""
    data = state.get("half holders")
    return msgspec.msgpack.decode(data, type=tuple[Peer, ...]) if data else ()


async def fetch_half(
    state: DeviceState, clock: Clock, entropy: Entropy, asking: Writer | None = None
) -> str:
    """Ask the carriers for the half, one after the other; who gave it. It is in memory only.

    Raises OperationFault when none answers, UsageError when one refuses: this device is out.
    """
    asking = asking or writer(state, clock, entropy)
    fault: HoldfastError = OperationFault("no carrier is known; restore this device from its words")
    for carrier in holders(state):
        try:
            answer = await asking.ask(carrier, "half", Half(state.key.public), Half)
            state.use_half(answer.half)
        except HoldfastError as error:
            fault = error
            continue
        return carrier.name
    if isinstance(fault, UsageError):
        raise fault
    raise OperationFault(
        f"this device opens only with a half that others carry, and none answers ({fault});"
        " start one of them"
    )
