"""Whether a machine does what its role explains: a relay relays, an entry passes on.

A heartbeat says what the machine as a whole does: how busy its processors are, what its network
cards receive and send. Its role explains so much of that; what is left over is somebody else's
work: a miner, a spammer's relay, a proxy for others. This is an alarm for a person, never a
verdict: owners use their machines for other things too, and who owns a machine can make it lie.

| role           | processors are explained by | traffic out is explained by                    |
|----------------|-----------------------------|------------------------------------------------|
| relay, replica | requests, or filling        | requests, two blobs each                       |
| entry, core    | what is forwarded           | what came in: both directions are alike        |

Figures of 0 mean that the machine does not say, and raise nothing.
"""

from __future__ import annotations

from typing import Final

from holdfast.limits.operating import (
    BUSY_MIN,
    BYTES_PER_REQUEST,
    BYTES_PER_S_QUIET,
    FORWARDED_BYTES_PER_BUSY,
    LOPSIDED_BYTES_PER_S_MIN,
    LOPSIDED_SHARE_MAX,
    REQUESTS_PER_BUSY,
)
from holdfast.logic.fleet.model import ACCESS, STORES, Load, Role

_MEGABYTE: Final = 1_000_000.0


def unexplained(role: Role, load: Load, *, filled: bool = True) -> tuple[str, ...]:
    """What this load shows that `role` does not explain, as sentences; nothing when all is well.

    `filled` is False for a server that is still being levelled by its peers.
    """
    if role in STORES:
        return _store(load, filled)
    return _forwarder(load) if role in ACCESS else ()


def _store(load: Load, filled: bool) -> tuple[str, ...]:
    found = []
    if load.busy >= BUSY_MIN and load.requests_per_s < REQUESTS_PER_BUSY and filled:
        found.append(
            f"is {_percent(load.busy)} busy with {load.requests_per_s:.0f} requests a second"
        )
    explained = BYTES_PER_S_QUIET + load.requests_per_s * BYTES_PER_REQUEST
    if load.sent_bytes_per_s > explained:
        sent = _rate(load.sent_bytes_per_s)
        found.append(f"sends {sent}; its requests explain {_rate(explained)} at most")
    return tuple(found)


def _forwarder(load: Load) -> tuple[str, ...]:
    found = []
    sent, received = load.sent_bytes_per_s, load.received_bytes_per_s
    says = sent > 0 and received > 0
    if says and load.busy >= BUSY_MIN and min(sent, received) < FORWARDED_BYTES_PER_BUSY:
        found.append(f"is {_percent(load.busy)} busy and forwards {_rate(min(sent, received))}")
    if sent >= LOPSIDED_BYTES_PER_S_MIN and received < LOPSIDED_SHARE_MAX * sent:
        found.append(f"sends {_rate(sent)} and receives {_rate(received)}: more than it is given")
    return tuple(found)


def _percent(share: float) -> str:
    return f"{min(share, 1.0) * 100:.0f} %"


def _rate(bytes_per_s: float) -> str:
    return f"{bytes_per_s / _MEGABYTE:.1f} MB/s"
