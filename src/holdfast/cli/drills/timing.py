"""Waiting for what a drill wants to see, and what many waits add up to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock

Holds = Callable[[], Awaitable[bool]]


async def until(clock: Clock, holds: Holds, what: str, *, wait_s: float, poll_s: float) -> None:
    """Ask every `poll_s` real seconds. Raises OperationFault after `wait_s`; `what` names it."""
    try:
        async with clock.real_timeout(wait_s):
            while not await holds():
                await clock.sleep_real(poll_s)
    except TimeoutError as error:
        raise OperationFault(f"waited {wait_s:.0f} s for {what}") from error
