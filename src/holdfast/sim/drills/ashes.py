"""What a person does when no headquarters is left: look at the copy, raise a new one from it.

The commands are those that the person would type, as processes: `holdfast hq token list` and the
like with the key in the environment, `holdfast hq phoenix` with the words, `holdfast hq serve`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from holdfast.crypto.phrase import Phrase
from holdfast.errors import OperationFault
from holdfast.hq.home import HqHome
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import Clock
from holdfast.rim.files import read_file, write_file
from holdfast.rim.front_client import Where
from holdfast.rim.process import Child, holdfast_command, spawn
from holdfast.wire.snapshot import identity_of

T = TypeVar("T")
WAIT_REAL_S: Final = 90.0
"""For a new headquarters to lead, and to miss the heartbeats of those that are gone."""


class Replacement(msgspec.Struct, frozen=True):
    """As `holdfast hq rise --json` prints it."""

    gone: str
    name: str
    role: Role
    cell: str
    token: str


class Replacements(msgspec.Struct, frozen=True):
    """The whole line; other fields are left out."""

    living: tuple[str, ...]
    told: int
    items: tuple[Replacement, ...]
    waiting: tuple[str, ...] = ()


class Ashes:
    """`where` are nodes that live, `phrase` the words in the envelope, `key` an operator's."""

    def __init__(
        self, directory: Path, where: Where, phrase: Phrase, key: str, clock: Clock
    ) -> None:
        self._where = where
        self._key = key
        self._clock = clock
        self._directory = directory / "envelope"
        self._directory.mkdir()
        self._words = self._directory / "words.txt"
        self._opener = self._directory / "key.txt"
        write_file(self._words, " ".join(phrase.words()).encode())
        write_file(self._opener, identity_of(phrase).encode())
        self.home = HqHome(directory / "phoenix")
        self._child: Child[Any] | None = None
        self._typed = 0

    async def look(self, shape: type[T], *words: str) -> T:
        """What `holdfast WORDS --json` prints with no headquarters there. Raises OperationFault."""
        found = msgspec.json.decode(await self._type(*words, f"--dir={self._directory}"))
        for ours in ("commit", "seed"):
            found.pop(ours)
        return msgspec.convert(found, shape)

    async def rise(self, *more: str) -> None:
        """`holdfast hq phoenix`. Raises OperationFault."""
        where = f"--at={self._where}"
        home = f"--dir={self.home.directory}"
        await self._type("hq", "phoenix", home, where, f"--phrase={self._words}", *more)

    async def replace(self) -> Replacements:
        """`holdfast hq rise` beside the new headquarters until it has waited for heartbeats, then
        with `--yes` and the names. Raises OperationFault."""
        home = f"--dir={self.home.directory}"
        until = self._clock.elapsed() + WAIT_REAL_S * self._clock.scale
        while True:
            line = await self._type("hq", "rise", home, local=True)
            found = msgspec.json.decode(line, type=Replacements)
            if not found.waiting:
                break
            if self._clock.elapsed() > until:
                raise OperationFault(f"{', '.join(found.waiting)}: nobody says", retryable=False)
            await self._clock.sleep_real(1.0)
        names = [f"--gone={item.gone}" for item in found.items]
        line = await self._type("hq", "rise", home, "--yes", *names, local=True)
        return msgspec.json.decode(line, type=Replacements)

    async def serve(self) -> Child[Any]:
        """`holdfast hq serve`, until its ports are open."""
        command = holdfast_command("hq", "serve", f"--dir={self.home.directory}")
        self._child = await spawn(command, log=self._directory.parent / "phoenix.log")
        return self._child

    async def stop(self) -> None:
        """End what was started."""
        if self._child is not None:
            await self._child.stop(self._clock, 5.0)

    async def _type(self, *words: str, local: bool = False) -> bytes:
        """The last line that a command prints; `local`: as the owner of the directory. Raises
        OperationFault."""
        environment: dict[str, str] = {}
        if not local:
            environment["HOLDFAST_OPERATOR_AT"] = str(self._where)
            environment["HOLDFAST_OPERATOR_KEY"] = self._key
            environment["HOLDFAST_COPY_IDENTITY"] = str(self._opener)
        self._typed += 1
        log = self._directory / f"{self._typed:02}-{'-'.join(words[:2])}.log"
        command = holdfast_command(*words, "--json")
        child: Child[Any] = await spawn(command, log=log, environment=environment)
        ended = await child.wait()
        lines = (read_file(log) or b"").splitlines()
        if ended or not lines:
            text = b"\n".join(lines)[-400:].decode(errors="replace")
            raise OperationFault(f"holdfast {' '.join(words)}: {text}", retryable=False)
        return next(line for line in reversed(lines) if line.startswith(b"{"))
