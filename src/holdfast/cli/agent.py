"""`holdfast device start`: the agent of a device, with its page."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from starlette.applications import Starlette

from holdfast.cli.devices import opened
from holdfast.cli.service import until_stopped
from holdfast.device.agent import Agent
from holdfast.device.direct import Direct, standing
from holdfast.device.face import Front
from holdfast.device.folders import FolderSync, Synced
from holdfast.device.watch import Watch
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.loopback_server import LoopbackServer
from holdfast.web.login import Login
from holdfast.web.people import routes

COMMAND = "holdfast device start"


class Started(msgspec.Struct, frozen=True):
    """Where a started device answers."""

    page: str
    """A login link, good once."""
    addresses: tuple[str, ...]


async def run_agent(
    home: Path,
    clock: Clock,
    listen: tuple[str, int],
    page: tuple[str, int],
    on_started: Callable[[Started], None],
) -> dict[str, Any]:
    """Carry, sync, answer and show, until stopped."""
    async with opened(home, clock) as runtime:
        agent = Agent(runtime)
        front = Front(runtime, agent)
        front.listen = (listen[0], 0)
        login = Login(clock, SystemEntropy(), command=COMMAND)
        server = LoopbackServer(Starlette(routes=routes(front, login)))
        try:
            addresses = await agent.start(*listen)
            await server.start(*page)
            on_started(Started(login.link(f"http://{server.address}"), addresses))
            direct = Direct(runtime, standing(runtime, clock, SystemEntropy()))
            await until_stopped(_all(front, Watch(runtime, _quiet, direct=direct)))
        finally:
            await front.close()
            await server.stop()
            await agent.stop()
        return {"stopped": True}


async def _all(front: Front, watch: Watch) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(front.run())
        tasks.create_task(watch.run())


def _quiet(folder: FolderSync, done: Synced) -> None:
    """The page says it."""


def tell(started: Started) -> None:
    """For a terminal."""
    console = Console(highlight=False)
    where = ", ".join(started.addresses)  # brackets are of addresses, not of markup
    console.print(f"answers at {where}", soft_wrap=True, markup=False)
    console.print(f"your page: {started.page}", soft_wrap=True)
    with contextlib.suppress(OSError):
        console.file.flush()
