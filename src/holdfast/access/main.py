"""An entry or a core as a process: an agent speaks to it over stdin and stdout (`wire.control`).

It serves once its first orders have come, and ends, with both proxies, when told to stop, when its
agent is gone, or on SIGTERM.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
from typing import Final, cast

from holdfast.access.core import Core
from holdfast.access.entry import Entry
from holdfast.access.role import AccessConfig, AccessRole
from holdfast.errors import HoldfastError, OperationFault
from holdfast.limits.access import USAGE_PERIOD_S
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.process import Parent
from holdfast.wire.control import Apply, Certificates, Counted, Fronted, Ready, Stop, ToRole, Used

STATUS_REAL_S: Final = 2.0
"""The agent kills a role that is silent for a minute."""
_log = logging.getLogger("holdfast.access.main")


async def serve(config: AccessConfig) -> None:
    """Run an entry or a core under an agent until it is told to stop."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    parent: Parent[ToRole] = await Parent.attach(cast("type[ToRole]", ToRole))
    clock = SystemClock(config.time_scale)
    role = make_role(config, clock)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    tasks = [
        asyncio.create_task(_listen(parent, role, stopping)),
        asyncio.create_task(_report(parent, role, clock, stopping)),
        asyncio.create_task(_account(parent, role, clock)),
    ]
    try:
        await stopping.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await role.stop()
    for task in tasks:
        if not task.cancelled() and task.exception() is not None:
            raise cast(BaseException, task.exception())


def make_role(config: AccessConfig, clock: SystemClock) -> AccessRole:
    """The role of this node."""
    if config.role is Role.ENTRY:
        return Entry(config, clock, SystemEntropy())
    return Core(config, clock, SystemEntropy())


async def _listen(parent: Parent[ToRole], role: AccessRole, stopping: asyncio.Event) -> None:
    """Do what the agent says until it says Stop or is gone."""
    try:
        while (message := await parent.receive()) is not None:
            match message:
                case Apply(desired):
                    before = role.serving
                    await role.apply(desired)
                    if role.serving and not before:
                        await parent.send(Ready((role.address,)))
                        _log.info("%s serves at %s", role.config.name, role.address)
                case Certificates():
                    role.rotate()
                case Fronted(port):
                    role.front_port = port
                case Counted(sequence):
                    role.counted(sequence)
                case Stop():
                    return
    finally:
        stopping.set()


async def _account(parent: Parent[ToRole], role: AccessRole, clock: SystemClock) -> None:
    """Count, make it durable, tell; again and again."""
    while True:
        await clock.sleep_real(USAGE_PERIOD_S)
        try:
            await role.count()
            report = role.usage()
            if report is not None:
                await parent.send(Used(report))
        except HoldfastError as error:
            _log.warning("usage: %s", error)


async def _report(
    parent: Parent[ToRole], role: AccessRole, clock: SystemClock, stopping: asyncio.Event
) -> None:
    """Say how we are, again and again."""
    while True:
        try:
            await parent.send(await role.status())
        except OperationFault as fault:
            if role.serving and not stopping.is_set():
                _log.warning("status: %s", fault)
        except HoldfastError as error:
            _log.warning("status: %s", error)
        await clock.sleep_real(STATUS_REAL_S)
