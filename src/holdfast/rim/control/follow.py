"""Keeping a copy of a prefix up to date: watch, reload when history is gone, go on after faults."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import Batch, Compacted, ControlStore

RETRY_REAL_S: Final = 1.0
_log = logging.getLogger("holdfast.control")


async def follow(
    store: ControlStore,
    prefix: str,
    revision: int,
    see: Callable[[Batch], Awaitable[None]],
    reload: Callable[[], Awaitable[int]],
    clock: Clock,
) -> None:
    """Hand every change after `revision` to `see`, in order, until cancelled or the store closes.

    A batch may be handed over again after a fault. `reload` reads everything anew and gives the
    revision it read.
    """
    while True:
        try:
            async for batch in store.watch(prefix, revision + 1):
                await see(batch)
                revision = batch.revision
            return
        except Compacted:
            revision = await _stubbornly(reload, clock)
        except OperationFault as fault:
            if not fault.retryable:
                raise
            _log.warning("watch of %s: %s", prefix, fault)
            await clock.sleep_real(RETRY_REAL_S)


async def _stubbornly(reload: Callable[[], Awaitable[int]], clock: Clock) -> int:
    while True:
        try:
            return await reload()
        except OperationFault as fault:
            if not fault.retryable:
                raise
            _log.warning("reading anew: %s", fault)
            await clock.sleep_real(RETRY_REAL_S)
