"""What the device verbs share: options, opening a device, progress on a terminal, words."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table

from holdfast.cli.local_files import default_directory, network_file
from holdfast.crypto.phrase import Phrase
from holdfast.device.folder.ports import OnProgress, no_progress
from holdfast.device.folder.ports import Progress as Step
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.state import DeviceState, no_passphrase
from holdfast.device.vault.split import fetch_half
from holdfast.errors import PeerFault, UsageError
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.files import read_file, write_file
from holdfast.wire.locator import Locator, parse_locator
from holdfast.wire.person import CARRIER, READER

DEFAULT_HOME: Final = "~/.holdfast"
Dir = Annotated[
    Path,
    Parameter(name="--dir", env_var="HOLDFAST_HOME", help="The device's own directory."),
]
Json = Annotated[bool, Parameter(help="One JSON object as the last line.", negative="")]
Scale = Annotated[
    float, Parameter(help="The network's seconds per second of yours; as it was started with.")
]
HOME: Final = Path(DEFAULT_HOME).expanduser()


@asynccontextmanager
async def opened(home: Path, clock: Clock) -> AsyncIterator[DeviceRuntime]:
    """The device in `home`, held and open: its key unlocked, its carriers asked for their half.
    Raises UsageError and OperationFault."""
    state = DeviceState.open(home, clock, passphrase=passphrase)
    runtime = DeviceRuntime(state, clock, SystemEntropy())
    try:
        if state.needs_half:
            await fetch_half(state, clock, SystemEntropy())
        await runtime.open()
        yield runtime
    finally:
        await runtime.close()
        state.close()


def passphrase() -> str:
    """The passphrase of a locked device: from the file that HOLDFAST_PASSPHRASE_FILE names, which
    a key store may provide, or typed. Raises UsageError."""
    path = os.environ.get("HOLDFAST_PASSPHRASE_FILE")
    if path:
        return _file(Path(path), "passphrase").strip()
    if sys.stdin.isatty():
        return getpass.getpass("passphrase of this device: ")
    return no_passphrase()


def device_name() -> str:
    """What this machine is called."""
    return os.uname().nodename[:60] or "device"


def parse_roles(text: str) -> tuple[str, ...]:
    """`reader`, `carrier`, or both. Raises UsageError."""
    roles = tuple(sorted({role.strip() for role in text.split(",")} - {""}))
    if not roles or not set(roles) <= {READER, CARRIER}:
        raise UsageError(f"{text!r} is no list of roles; write reader, carrier, or both")
    return roles


def read_locator(text: str) -> Locator:
    """A locator line, a file that holds one, or for an empty text that of the network which
    `holdfast up` runs here. Raises UsageError."""
    if not text:
        about = network_file(default_directory())
        if about is None:
            raise UsageError("no locator; pass --locator, or start a network with holdfast up")
        text = about.locator
    elif not text.lower().startswith("hfloc1"):
        text = _file(Path(text), "locator")
    try:
        return parse_locator(text)
    except PeerFault as fault:
        raise UsageError(f"this is no locator ({fault}); copy the whole line") from fault


def read_phrase(path: Path) -> Phrase:
    """The words in a file. Raises UsageError."""
    return Phrase.parse(_file(path, "words"))


def write_phrase(path: Path, phrase: Phrase) -> None:
    """Write new words to a file that only its owner can read. Raises OperationFault."""
    write_file(path, (" ".join(phrase.words()) + "\n").encode())


def _file(path: Path, what: str) -> str:
    data = read_file(path.expanduser())
    if data is None:
        raise UsageError(f"no {what} and no file called {str(path)[:80]!r}; check the name")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text file; it should hold a {what}") from error


def words_table(phrase: Phrase) -> Table:
    """Numbered words in columns, for paper."""
    table = Table(show_header=False, box=None, padding=(0, 3, 0, 0))
    words = phrase.words()
    rows = len(words) // 4
    for row in range(rows):
        cells = (f"{n + 1:2}. {words[n]}" for n in range(row, len(words), rows))
        table.add_row(*cells)
    return table


class Bars:
    """Progress bars on a terminal, nothing elsewhere. A context manager."""

    def __init__(self, *, quiet: bool) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        if not quiet and sys.stderr.isatty():
            self._progress = Progress(
                TextColumn("{task.description:<8}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TransferSpeedColumn(),
                TextColumn("{task.fields[names]} names"),
                console=Console(stderr=True),
                transient=True,
            )

    def __enter__(self) -> OnProgress:
        if self._progress is None:
            return no_progress
        self._progress.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _show(self, step: Step) -> None:
        assert self._progress is not None
        if step.phase == "done":
            return
        if step.phase not in self._tasks:
            self._tasks[step.phase] = self._progress.add_task(step.phase, names=0)
        total = step.bytes_total or step.files_total or None
        done = step.bytes if step.bytes_total else step.files
        self._progress.update(
            self._tasks[step.phase], total=total, completed=done, names=f"{step.files:,}"
        )
