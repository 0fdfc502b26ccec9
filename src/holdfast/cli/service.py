"""How a long-running verb starts and ends: loop, signals, log, parent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from holdfast.errors import PeerFault, UsageError
from holdfast.rim import log
from holdfast.rim.clock import SystemClock
from holdfast.rim.log import LogForm
from holdfast.rim.process import parent_gone
from holdfast.wire.address import split_address

T = TypeVar("T")


def start_log(level: str = "info") -> None:
    """The log of a verb that a person runs: text on stderr. Raises UsageError for an unknown
    level."""
    log.start_text(_level(level))


def start_service_log(level: str, form: LogForm | None, service: str, node: str = "") -> None:
    """The log of a service, as `rim.log` has it. Raises UsageError for an unknown level."""
    log.start_log(_level(level), form, service=service, node=node)


def _level(text: str) -> int:
    number = logging.getLevelNamesMapping().get(text.upper())
    if number is None:
        raise UsageError(f"no log level {text!r}; choose debug, info, warning or error")
    return number


def clock_of(time_scale: float) -> SystemClock:
    """The clock of a service. Raises UsageError for a scale that is not positive."""
    if not 0 < time_scale <= 10_000:
        raise UsageError("--time-scale is elapsed seconds per real second, over 0 up to 10000")
    return SystemClock(time_scale)


def host_port(text: str) -> tuple[str, int]:
    """`host:port` of something to listen on; port 0 lets the kernel pick. Raises UsageError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise UsageError(f"{text!r} is no address; write host:port")
    return host.strip("[]"), int(port)


def place_of(listen: str, network: str) -> tuple[str, int, bytes]:
    """Host, port and network id of what an agent tells a role. Raises UsageError."""
    try:
        return (*split_address(listen), bytes.fromhex(network))
    except (PeerFault, ValueError) as fault:
        raise UsageError(f"--listen or --network: {fault}") from fault


@contextlib.asynccontextmanager
async def stop_signal() -> AsyncIterator[asyncio.Event]:
    """An event that is set by SIGINT, by SIGTERM, by the end of the terminal (unless nohup says
    otherwise) and by the death of the process that spawned us."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    watch = asyncio.create_task(parent_gone())
    watch.add_done_callback(lambda _: stop.set())
    try:
        yield stop
    finally:
        watch.cancel()
        for number in numbers:
            loop.remove_signal_handler(number)


async def until_stopped(work: Coroutine[Any, Any, T]) -> T | None:
    """Run `work` until it ends or somebody asks us to stop; then it is cancelled: None."""
    async with stop_signal() as stop:
        task = asyncio.create_task(work)
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return None
        return task.result()
