"""Two devices that have nothing but each other: friends, one folder, and then no pool any more."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from holdfast.cli.local import LocalNetwork
from holdfast.cli.tour.hands import Device
from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock

HOST: Final = "127.0.0.1"
WINDOWS_SCALE: Final = 30.0
"""Port windows are ten minutes apart; nobody shall wait that long for a bench to begin."""
PAIR_S: Final = 60.0
FIND_S: Final = 180.0
LOOK_S: Final = 0.1
PROBE: Final = "probe"


async def befriend(ada: Device, ben: Device) -> None:
    """Pair them by a spoken code at an address. Raises OperationFault."""
    await ada.start("friend", "pair", "--listen", f"{HOST}:0", "--no-relay")
    code, at = (await ada.heard(_is_invitation, PAIR_S)).split()
    await ben.run("friend", "pair", code, "--at", at)
    await ada.ended(PAIR_S)


async def only_each_other(network: LocalNetwork, here: Path, there: Path, clock: Clock) -> None:
    """End the pool, and return once a file has come through without it. Raises OperationFault."""
    await network.stop()
    (here / PROBE).write_bytes(b"is anybody there?")
    try:
        async with clock.real_timeout(FIND_S):
            while not (there / PROBE).exists():
                await clock.sleep_real(LOOK_S)
    except TimeoutError as error:
        raise OperationFault("the devices do not find each other without the pool") from error


def _is_invitation(line: str) -> bool:
    """A code and an address."""
    words = line.split()
    return len(words) == 2 and words[1].startswith(f"{HOST}:")
