"""`holdfast doctor`: the verb."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from holdfast import __version__
from holdfast.cli.devices import HOME
from holdfast.cli.doctor import device, hq, node
from holdfast.cli.doctor.finding import Finding, as_text, needs_person
from holdfast.cli.homes import Kind, kind_of
from holdfast.cli.output import EXIT_NO, EXIT_OK, emit
from holdfast.rim.clock import Clock, SystemClock

_EXAMINE = {Kind.HQ: hq.examine, Kind.NODE: node.examine, Kind.DEVICE: device.examine}


def doctor(
    *,
    dir: Annotated[
        Path, Parameter(name="--dir", help="Of a headquarters, a node or a device.")
    ] = HOME,
    json: Annotated[bool, Parameter(negative="", help="One JSON object as the last line.")] = False,
) -> int:
    """Look at a headquarters, a node or a device from all sides and say what to do next.

    Reads, and asks others; changes nothing. Works beside a running one and for one that does not
    run. Status 1 when something needs a person.
    """
    directory = dir.expanduser().absolute()
    title, found = examine(directory, SystemClock())
    record = {
        "kind": kind_of(directory),
        "dir": str(directory),
        "version": __version__,
        "findings": found,
        "ok": not needs_person(found),
    }
    emit(record, as_json=json, text=as_text(title, found))
    return EXIT_NO if needs_person(found) else EXIT_OK


def examine(directory: Path, clock: Clock) -> tuple[str, list[Finding]]:
    """Title and findings for what lies in `directory`. Raises UsageError."""
    return asyncio.run(_EXAMINE[kind_of(directory)](directory, clock))
