"""`holdfast uninstall`: take away exactly what Holdfast made in one directory, and say it first."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter

from holdfast.cli.homes import SERVICE_FILE, Kind, ServiceFile, kind_of, ours
from holdfast.cli.output import EXIT_NO, EXIT_OK, emit
from holdfast.cli.systemd import running_systemd, systemctl
from holdfast.device.view import DeviceView
from holdfast.errors import UsageError
from holdfast.logic.group.paths import STAGING_NAME
from holdfast.node.home import Home
from holdfast.rim.files import lock_directory, read_file

LISTED_MAX: Final = 40
"""Paths shown one by one; a store of a thousand segments is shown as a count."""


def uninstall(
    *,
    dir: Annotated[Path, Parameter(name="--dir", help="Of a headquarters, a node or a device.")],
    yes: Annotated[bool, Parameter(negative="", help="Do not ask.")] = False,
    json: Annotated[bool, Parameter(negative="", help="One JSON object as the last line.")] = False,
) -> int:
    """Remove a headquarters, a node or a device from this machine, its service included.

    Lists what goes and asks. What Holdfast did not make stays and is named; so do your folders and
    the files in them. Status 1 when you said no.
    """
    directory = dir.expanduser().absolute()
    kind = kind_of(directory)
    service = _service(directory)
    if service is None or not running_systemd():
        lock_directory(directory, f"the {kind}").close()  # refuses while it runs
    found = list(ours(directory, kind))
    elsewhere = [*_markers(kind, directory), *_unit(service)]
    kept = _strangers(directory, found)
    if not json or not yes:
        _list(directory, kind, found, elsewhere, kept)
    if not yes and not _agreed():
        emit({"removed": 0}, as_json=json, text="nothing was removed")
        return EXIT_NO
    if service is not None and running_systemd():
        asyncio.run(systemctl(kind, "disable", "--now", Path(service.unit).name))
        lock_directory(directory, f"the {kind}").close()
    _remove(directory, found, elsewhere, kept)
    if service is not None and running_systemd():
        asyncio.run(systemctl(kind, "daemon-reload"))
    record = {
        "kind": kind,
        "removed": len(found) + len(elsewhere),
        "kept": [str(path) for path in kept],
        "directory_left": directory.exists(),
    }
    emit(record, as_json=json, text=f"removed {record['removed']} files and directories")
    return EXIT_OK


def _service(directory: Path) -> ServiceFile | None:
    data = read_file(directory / SERVICE_FILE)
    try:
        return msgspec.json.decode(data, type=ServiceFile) if data else None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UsageError(f"{directory / SERVICE_FILE} is damaged; remove it: {error}") from error


def _unit(service: ServiceFile | None) -> list[Path]:
    path = Path(service.unit) if service is not None else None
    return [path] if path is not None and path.exists() else []


def _markers(kind: Kind, directory: Path) -> list[Path]:
    """What a device keeps inside the folders it has checked out."""
    if kind is not Kind.DEVICE:
        return []
    view = DeviceView(directory)
    try:
        tops = [Path(folder.path) for folder in view.folders() if folder.path]
    finally:
        view.close()
    name = STAGING_NAME.decode()
    return [top / name for top in tops if (top / name).exists()]


def _strangers(directory: Path, found: list[Path]) -> list[Path]:
    """What lies in the directory and is not ours."""
    known = set(found)
    return [path for path in sorted(directory.iterdir()) if path not in known]


def _list(
    directory: Path, kind: Kind, found: list[Path], elsewhere: list[Path], kept: list[Path]
) -> None:
    say = sys.stderr
    print(f"This {kind} goes:", file=say)
    shown = [*elsewhere, *found]
    for path in shown[:LISTED_MAX]:
        print(f"  {path}", file=say)
    if len(shown) > LISTED_MAX:
        print(f"  and {len(shown) - LISTED_MAX} more below {directory}", file=say)
    for path in kept:
        print(f"  stays, not ours: {path}", file=say)
    for line in _warnings(directory, kind):
        print(line, file=say)


def _warnings(directory: Path, kind: Kind) -> list[str]:
    if kind is Kind.HQ:
        return ["Its keys go with it: without a copy this network has no headquarters any more."]
    if kind is Kind.DEVICE:
        return ["Your folders stay. Without your words on paper nothing else can be restored."]
    report = Home(directory).report()
    if report is not None and report.phase == "retired":
        return []
    return [f"Headquarters still counts on it; first: holdfast node leave --dir {directory}"]


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise UsageError("no terminal to ask on; say --yes if you mean it")
    return input("Remove all this? [y/N] ").strip().lower() in ("y", "yes")


def _remove(directory: Path, found: list[Path], elsewhere: list[Path], kept: list[Path]) -> None:
    for path in (*elsewhere, *found):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path) if path in elsewhere else path.rmdir()
        else:
            path.unlink(missing_ok=True)
    if not kept and not any(directory.iterdir()):
        directory.rmdir()
