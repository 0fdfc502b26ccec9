"""Somebody at the keyboards of several machines: types `holdfast` commands and notes them down."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock
from holdfast.rim.process import Child, holdfast_command, spawn
from holdfast.sim.places import Place

VERB_S: Final = 120.0
"""Real seconds for one command."""
STOP_S: Final = 20.0
_TAIL_LINES: Final = 12


class Typist:
    """`transcript` holds a line for each command: where, and what was typed."""

    def __init__(self, logs: Path, clock: Clock) -> None:
        self._logs = logs
        self._clock = clock
        self.transcript: list[str] = []
        self._count = 0
        self._running: dict[Child[Any], str] = {}

    async def type(self, place: Place, *words: str, status: int | None = 0) -> str:
        """Run one command to its end; what it printed. Raises OperationFault for another status
        than `status`; None takes any."""
        line, log = self._note(place, words)
        child: Child[Any] = await spawn(place.enter(*holdfast_command(*words)), log=log)
        try:
            async with self._clock.real_timeout(VERB_S):
                ended = await child.wait()
        except TimeoutError as error:
            child.kill()
            raise OperationFault(f"{line}: no end within {VERB_S:.0f} s") from error
        if status is not None and ended != status:
            raise OperationFault(f"{line}: status {ended}, not {status}\n{tail(log)}")
        return log.read_text(errors="replace")

    async def look(self, place: Place, *words: str) -> dict[str, Any]:
        """`ask`, over and over while one waits for something: not noted down."""
        found = await self.ask(place, *words)
        self.transcript.pop()
        return found

    async def ask(self, place: Place, *words: str, status: int | None = 0) -> dict[str, Any]:
        """`type` with --json; its last line."""
        text = await self.type(place, *words, "--json", status=status)
        lines = [line for line in text.splitlines() if line.startswith("{")]
        if not lines:
            raise OperationFault(f"holdfast {' '.join(words[:2])} printed no JSON:\n{text}")
        return msgspec.json.decode(lines[-1], type=dict[str, Any])

    async def start(self, place: Place, *words: str) -> Child[Any]:
        """Start one command that goes on."""
        line, log = self._note(place, words)
        child: Child[Any] = await spawn(place.enter(*holdfast_command(*words)), log=log)
        self._running[child] = line
        return child

    async def stop(self, child: Child[Any]) -> int:
        """Ctrl-C's older sister: SIGTERM; the exit status."""
        self._running.pop(child, None)
        return await child.stop(self._clock, STOP_S)

    async def stop_all(self) -> dict[str, int]:
        """Stop what goes on, newest first; exit status by command."""
        return {
            line: await self.stop(child) for child, line in reversed(list(self._running.items()))
        }

    def forget(self, child: Child[Any]) -> None:
        """It was killed, or ended by itself."""
        self._running.pop(child, None)

    def _note(self, place: Place, words: tuple[str, ...]) -> tuple[str, Path]:
        self._count += 1
        line = f"{place.name}$ holdfast {shlex.join(words)}"
        self.transcript.append(line)
        plain = [word for word in words[:3] if word.isascii() and word.replace("-", "").isalpha()]
        return line, self._logs / f"{self._count:02d}-{place.name}-{'-'.join(plain)}.log"


def tail(log: Path) -> str:
    """The last lines of what a command printed."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
