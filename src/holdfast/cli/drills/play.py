"""How a drill is played: a directory of its own, one report, status 1 when it did not hold."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import cyclopts
import msgspec

from holdfast.cli.output import EXIT_NO, EXIT_OK, emit


class Report(Protocol):
    """The JSON of a drill, and whether what it checks held."""

    @property
    def held(self) -> bool: ...


R = TypeVar("R", bound=Report)
Keep = Annotated[Path | None, cyclopts.Parameter(help="Work there, and leave everything.")]


def play(
    name: str,
    drill: Callable[[Path], Awaitable[R]],
    *,
    keep: Path | None,
    json: bool,
    run: Callable[[Coroutine[Any, Any, R]], R] = asyncio.run,
) -> int:
    """Run one drill in its directory and print what it found. `run`: the event loop's."""
    home = keep or Path(tempfile.mkdtemp(prefix=f"holdfast-{name}-"))
    home.mkdir(parents=True, exist_ok=True)

    async def story() -> R:
        return await drill(home)

    report = run(story())
    if keep is None and report.held:
        shutil.rmtree(home, ignore_errors=True)
    elif not report.held:
        print(f"everything is left in {home}", file=sys.stderr)
    emit(report, as_json=json, text=_text(name, report))
    return EXIT_OK if report.held else EXIT_NO


def _text(name: str, report: Report) -> str:
    found = msgspec.to_builtins(report, enc_hook=str)
    width = max(map(len, found))
    lines = [f"  {key:<{width}}  {value}" for key, value in found.items()]
    return "\n".join([f"{name}: {'held' if report.held else 'DID NOT HOLD'}", *lines])
