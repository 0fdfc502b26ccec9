"""The role as a process: an agent speaks to it over stdin and stdout (`wire.control`).

It serves until told to stop, until its agent is gone, or until SIGTERM, and ends with everything
durable. The log goes to stderr, a JSON object a line, and never holds a payload, a tag or a key.
A bug in any thread ends the process: the agent starts it again, and the store recovers.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
from contextlib import suppress
from functools import partial
from typing import Any, cast

from holdfast.errors import OperationFault
from holdfast.limits import STATUS_PERIOD_S, STATUS_REAL_S_MIN, TOGETHER_LOOK_REAL_S
from holdfast.limits.upgrade import LOCK_REAL_S
from holdfast.relay.policy import RelayConfig
from holdfast.relay.service import Relay
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.files import wait_unlocked
from holdfast.rim.log import start_log
from holdfast.rim.one_cpu import OneCpu
from holdfast.rim.process import Parent, raise_descriptor_limit
from holdfast.wire.control import (
    AGENT_WIRE,
    TAKE_OVER,
    Accuse,
    Apply,
    Certificates,
    Raise,
    Ready,
    Stop,
    ToRole,
    Warm,
)
from holdfast.wire.hq import Accusation, Alert
from holdfast.wire.versions import WIRE, at_wire, common

_log = logging.getLogger("holdfast.relay.main")
_EXIT_BUG = 70
_News = Alert | Accusation


async def serve(config: RelayConfig) -> None:
    """Run a relay or replica under an agent until it is told to stop.

    Raises UsageError for wrong files and OperationFault when it cannot serve."""
    _prepare_process(config)
    parent: Parent[ToRole] = await Parent.attach(cast("type[ToRole]", ToRole))
    parent.spoken = partial(at_wire, wire=common(int(os.environ.get(AGENT_WIRE, WIRE))))
    clock = SystemClock(config.time_scale)
    outgoing: asyncio.Queue[_News] = asyncio.Queue(maxsize=1_024)
    relay = Relay(config, clock, SystemEntropy(), lambda news: _offer(outgoing, news))
    if TAKE_OVER in os.environ:
        await parent.send(Warm())
        await wait_unlocked(config.state, clock, LOCK_REAL_S)
    await relay.start()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    _log.info("%s serves at %s", config.name or config.role, relay.address)
    tasks = [
        asyncio.create_task(_listen(parent, relay, stopping)),
        asyncio.create_task(_report(parent, relay, clock, stopping)),
        asyncio.create_task(_forward(parent, outgoing, stopping)),
        asyncio.create_task(_watch_server(relay, stopping)),
        asyncio.create_task(_keep_together(relay, clock)),
    ]
    try:
        await stopping.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await relay.stop()
    _log.info("stopped")
    for task in tasks:
        if not task.cancelled() and task.exception() is not None:
            raise cast(BaseException, task.exception())


async def _listen(parent: Parent[ToRole], relay: Relay, stopping: asyncio.Event) -> None:
    """Do what the agent says until it says Stop or is gone."""
    try:
        while (message := await parent.receive()) is not None:
            match message:
                case Apply(desired):
                    relay.apply(desired)
                case Certificates():
                    await _rotate(relay)
                case Stop():
                    return
    finally:
        stopping.set()


async def _rotate(relay: Relay) -> None:
    try:
        await relay.rotate()
        _log.info("serving with a new certificate")
    except OperationFault as fault:
        _log.error("the old certificate stays: %s", fault)


async def _report(
    parent: Parent[ToRole], relay: Relay, clock: SystemClock, stopping: asyncio.Event
) -> None:
    """Say where we serve, and then how we are."""
    try:
        await parent.send(Ready((relay.address,)))
        while True:
            await parent.send(relay.status())
            await clock.sleep(max(STATUS_PERIOD_S, STATUS_REAL_S_MIN * clock.scale))
    except OperationFault:
        stopping.set()


async def _forward(
    parent: Parent[ToRole], outgoing: asyncio.Queue[_News], stopping: asyncio.Event
) -> None:
    try:
        while True:
            news = await outgoing.get()
            await parent.send(Accuse(news) if isinstance(news, Accusation) else Raise(news))
    except OperationFault:
        stopping.set()


async def _watch_server(relay: Relay, stopping: asyncio.Event) -> None:
    await relay.server.gone.wait()
    stopping.set()
    raise OperationFault("the server ended by itself")


async def _keep_together(relay: Relay, clock: SystemClock) -> None:
    """The event loop, the writer and who brings requests take turns at the interpreter's lock. That
    is for speed: where it cannot be looked at or set, the relay goes on without."""
    try:
        cpus = OneCpu(threading.get_native_id(), relay.store.writing_thread)
    except (OSError, OperationFault) as fault:
        _log.warning("threads go where the kernel likes: %s", fault)
        return
    at = clock.elapsed()
    while True:
        await clock.sleep_real(TOGETHER_LOOK_REAL_S)
        before, at = at, clock.elapsed()
        try:
            cpus.look((at - before) / clock.scale)
        except (OSError, OperationFault):
            with suppress(OSError, OperationFault):  # the next look tries again
                cpus.let_go()


def _offer(outgoing: asyncio.Queue[_News], news: _News) -> None:
    """All news are repeated every period, so one that finds the queue full is not missed."""
    if not outgoing.full():
        outgoing.put_nowait(news)


# --- The process ---------------------------------------------------------------------------------
def tune_memory() -> None:
    """Look for cycles seldom: the data of a request has none, and what stays lives long. Measured:
    an eighth of the event loop's time under load."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _prepare_process(config: RelayConfig) -> None:
    tune_memory()
    raise_descriptor_limit()
    threading.excepthook = _die
    start_log(logging.INFO, service=config.role, node=config.name)


def _die(args: Any) -> None:
    """A bug in the writer thread: nobody would be answered any more."""
    _log.critical("a thread died", exc_info=args[:3])
    os._exit(_EXIT_BUG)
