"""A person's hands: devices in the tour are real processes, driven by the verbs anybody types."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock
from holdfast.rim.process import Child, holdfast_command, spawn

VERB_S: Final = 900.0
"""Real seconds for one verb: a gibibyte on a busy machine takes a few minutes."""
STOP_S: Final = 20.0
LOOK_S: Final = 0.05
_TAIL_LINES: Final = 12


class Device:
    """One device directory and the processes that use it, one at a time."""

    def __init__(self, name: str, home: Path, logs: Path, clock: Clock, time_scale: float) -> None:
        self.name = name
        self.home = home
        self._logs = logs
        self._clock = clock
        self._scale = time_scale
        self._count = 0
        self._running: Child[Any] | None = None

    async def run(self, *words: str) -> dict[str, Any]:
        """Carry out one verb to its end; its JSON. Raises OperationFault with what it said."""
        child, log = await self._spawn(*words)
        try:
            async with self._clock.real_timeout(VERB_S):
                status = await child.wait()
        except TimeoutError as error:
            child.kill()
            raise OperationFault(f"{self._call(words)} did not end within {VERB_S} s") from error
        if status != 0:
            raise OperationFault(f"{self._call(words)} failed ({status}):\n{_tail(log)}")
        return _last_json(log)

    async def start(self, *words: str) -> None:
        """Start a verb that goes on until `stop`."""
        assert self._running is None, "one process at a time uses a device"
        self._running, _ = await self._spawn(*words)

    async def heard(self, holds: Callable[[str], bool], real_s: float) -> str:
        """The first line for which `holds`, of what `start` began. Raises OperationFault when it
        ends, or says no such thing in time."""
        child = self._running
        assert child is not None, "start it first"
        assert child.log is not None, "devices log"
        try:
            async with self._clock.real_timeout(real_s):
                while True:
                    text = await asyncio.to_thread(child.log.read_text, errors="replace")
                    found = next(filter(holds, text.splitlines()), None)
                    if found is not None:
                        return found
                    self.check()
                    await self._clock.sleep_real(LOOK_S)
        except TimeoutError as error:
            raise OperationFault(f"{self.name} did not say it:\n{_tail(child.log)}") from error

    async def ended(self, real_s: float) -> None:
        """Return when what `start` began has come to a good end. Raises OperationFault."""
        child, self._running = self._running, None
        assert child is not None, "start it first"
        assert child.log is not None, "devices log"
        try:
            async with self._clock.real_timeout(real_s):
                status = await child.wait()
        except TimeoutError:
            child.kill()
            status = -1
        if status != 0:
            raise OperationFault(f"{self.name} failed ({status}):\n{_tail(child.log)}")

    def check(self) -> None:
        """Raises OperationFault when the verb that should go on has ended."""
        child = self._running
        if child is not None and child.status is not None:
            assert child.log is not None
            raise OperationFault(f"{self.name} stopped ({child.status}):\n{_tail(child.log)}")

    @property
    def pid(self) -> int:
        """The process that `start` began."""
        assert self._running is not None, "start it first"
        return self._running.pid

    async def stop(self) -> None:
        """End what `start` began."""
        child, self._running = self._running, None
        if child is not None:
            await child.stop(self._clock, STOP_S)

    async def _spawn(self, *words: str) -> tuple[Child[Any], Path]:
        self._count += 1
        log = self._logs / f"{self.name}-{self._count:02d}-{'-'.join(words[:2])}.log"
        options = ("--dir", str(self.home), "--time-scale", f"{self._scale:g}", "--json")
        command = holdfast_command(*words, *options)
        return await spawn(command, log=log), log

    def _call(self, words: tuple[str, ...]) -> str:
        return f"{self.name}: holdfast {' '.join(words[:2])}"


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])


def _last_json(log: Path) -> dict[str, Any]:
    lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
    if not lines:
        raise OperationFault(f"no JSON from {log.name}:\n{_tail(log)}", retryable=False)
    return msgspec.json.decode(lines[-1], type=dict[str, Any])
