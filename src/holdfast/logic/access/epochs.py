"""Path epochs: secret paths turn, and nobody who holds an old one is dropped (seed 001).

Theory of operation. A subscription carries the paths of the newest epoch. Clients refresh when they
like: v2rayNG once a day if its user switched that on, others hourly. So epochs overlap: an entry
serves every epoch that a live device may still hold, and an epoch closes only when

* its successor has been open for `EPOCH_OVERLAP_S`, and
* every live device has fetched its subscription after the successor opened;

or when it is older than `EPOCH_AGE_S_MAX`, which bounds what one device that never refreshes costs.

A new epoch is served before it is named: entries learn of it first, and subscriptions carry it
`EPOCH_LEAD_S` later. A client that is told of a path finds it open.

The rule is safe on one side: a fetch that was answered but not recorded keeps an epoch too long,
never too short. A fetch that was recorded but did not arrive is what the overlap is for.

Times are wall seconds, because they must survive restarts; `scale` is how many seconds of the
limits pass in one of them, more than 1 only in drills.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from holdfast.limits.access import (
    EPOCH_AGE_S_MAX,
    EPOCH_LEAD_S,
    EPOCH_OFFSET_S_MAX,
    EPOCH_OVERLAP_S,
    EPOCH_PERIOD_S,
    EPOCH_SECRET_BYTES,
    EPOCHS_MAX,
)
from holdfast.logic.access.model import Cell, PathEpoch


def opened(cell: Cell, secret: bytes, fraction: float, now: float, scale: float = 1.0) -> Cell:
    """`cell` with a new epoch; the next one is due a period and a random offset later.

    `fraction` is random between 0 and 1.
    """
    assert len(secret) == EPOCH_SECRET_BYTES
    assert 0.0 <= fraction <= 1.0
    number = cell.epochs[-1].number + 1 if cell.epochs else 1
    due = now + (EPOCH_PERIOD_S + fraction * EPOCH_OFFSET_S_MAX) / scale
    epochs = (*cell.epochs, PathEpoch(number, secret, now))
    told = cell.advertised if cell.epochs else number
    return msgspec.structs.replace(cell, epochs=epochs, turns_at=due, advertised=told)


def announced(cell: Cell, now: float) -> Cell:
    """`cell` with the newest epoch that every entry has had time to learn named to clients."""
    ripe = [e.number for e in cell.epochs if now - e.opened_at >= EPOCH_LEAD_S]
    told = max([cell.advertised, *ripe])
    return cell if told == cell.advertised else msgspec.structs.replace(cell, advertised=told)


def is_due(cell: Cell, now: float) -> bool:
    """Whether the next epoch should open. Not while as many as may be are served."""
    return now >= cell.turns_at and len(cell.epochs) < EPOCHS_MAX


def closed(cell: Cell, fetched: Iterable[float], now: float, scale: float = 1.0) -> Cell:
    """`cell` without the epochs that no live device can hold.

    `fetched`: when each live device of the cell last got its subscription, 0 for never.
    """
    held_since = min((at for at in fetched if at > 0), default=now) - EPOCH_LEAD_S
    kept = []
    for epoch, successor in zip(cell.epochs, cell.epochs[1:], strict=False):
        superseded_s = (now - successor.opened_at - EPOCH_LEAD_S) * scale
        if epoch.number >= cell.newest().number:
            kept.append(epoch)
            continue
        unheld = held_since >= successor.opened_at and superseded_s >= EPOCH_OVERLAP_S
        if not unheld and superseded_s < EPOCH_AGE_S_MAX:
            kept.append(epoch)
    kept += cell.epochs[-1:]
    assert kept, "the newest epoch never closes"
    return (
        cell if len(kept) == len(cell.epochs) else msgspec.structs.replace(cell, epochs=tuple(kept))
    )


def holds(cell: Cell, fetched_at: float) -> PathEpoch | None:
    """The epoch that a device which fetched at `fetched_at` holds; None when it was closed."""
    told = fetched_at - EPOCH_LEAD_S
    first = next((e for e in cell.epochs if e.number == 1 and e.opened_at <= fetched_at), None)
    return next((e for e in reversed(cell.epochs) if e.opened_at <= told), first)
