"""`holdfast folder`: share directories, invite people, keep in step."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import cyclopts
import msgspec
import uvloop
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from holdfast.cli.device import STORED_S
from holdfast.cli.devices import HOME, Bars, Dir, Json, Scale, opened, passphrase
from holdfast.cli.output import EXIT_NO, EXIT_OK, emit
from holdfast.cli.service import clock_of, start_log, until_stopped
from holdfast.crypto.pure import base32
from holdfast.device.direct import Direct, standing
from holdfast.device.folder.ports import OnProgress, Progress
from holdfast.device.folders import Figures, FolderSync, Synced
from holdfast.device.inviting import POLL_S, Inviter, join_group
from holdfast.device.locking import lock_folder, unlock_folder
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.sharing import check_place, move, place, share
from holdfast.device.state import DeviceState
from holdfast.device.tend import tend
from holdfast.device.view import DeviceView
from holdfast.device.watch import Watch
from holdfast.device.witness import hand_in, show_receipts
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.logic.pool.fanout import Stage
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.memory import be_frugal
from holdfast.wire.invite import Invite, parse_invite
from holdfast.wire.qr import qr_terminal

STALL_S: Final = 30.0
"""Real seconds without progress after which `sync` leaves the rest to the outbox."""
SHOW_S: Final = 0.2
Name = Annotated[str, Parameter(help="The folder's name; not needed when there is only one.")]

app = cyclopts.App(name="folder", help_format="plaintext", help="Shared folders.")


@app.command
def add(
    directory: Path,
    *,
    name: str = "",
    dir: Dir = HOME,
    time_scale: Scale = 1.0,
    json: Json = False,
) -> None:
    """Share a directory: make a group around it. Nothing is read before `folder sync`.

    Parameters
    ----------
    directory
        What to share.
    name
        What to call it; the directory's own name when empty.
    """
    start_log("warning")
    name = name or directory.resolve().name
    made = asyncio.run(_add(directory.expanduser(), name, dir.expanduser(), clock_of(time_scale)))
    emit(made, as_json=json, text=f"{name} is shared; next: holdfast folder sync {name}")


async def _add(directory: Path, name: str, home: Path, clock: Clock) -> dict[str, Any]:
    async with opened(home, clock) as runtime:
        group = await share(runtime, directory, name)
        stored = await runtime.reach(Stage.STORED, STORED_S)
        return _group(group.id, name, directory, stored)


def _group(group: bytes, name: str, path: Path, stored: bool) -> dict[str, Any]:
    return {"name": name, "group": base32(group), "path": str(path), "stored": stored}


@app.command
def join(
    invite: str,
    directory: Path,
    *,
    dir: Dir = HOME,
    time_scale: Scale = 1.0,
    json: Json = False,
) -> None:
    """Join a folder with an invite, or take up one of your own groups by its name.

    The device that made the invite must be running: `folder invite`, or `folder sync --watch`.

    Parameters
    ----------
    invite
        The line that starts with hfinv1, or the name of a folder that another of your devices has.
    directory
        Where the folder goes; made when it does not exist. Files already there are kept and shared.
    """
    start_log("warning")
    home, clock = dir.expanduser(), clock_of(time_scale)
    made = asyncio.run(_join(invite, directory.expanduser(), home, clock, json))
    text = f"joined {made['name']}; next: holdfast folder sync {made['name']}"
    emit(made, as_json=json, text=text)


def _invite(text: str, clock: Clock) -> Invite:
    """Raises UsageError for a line that was not copied whole, or that has expired."""
    try:
        return parse_invite(text, clock.wall())
    except PeerFault as fault:
        raise UsageError(f"this invite does not work: {fault}") from fault


async def _join(
    text: str, directory: Path, home: Path, clock: Clock, quiet: bool
) -> dict[str, Any]:
    async with opened(home, clock) as runtime:
        check_place(runtime, directory)
        if text.lower().startswith("hfinv1"):
            invite = _invite(text, clock)
            if not quiet:
                Console(stderr=True).print("waiting for the device that made the invite ...")
            group = await join_group(runtime, invite)
        else:
            await tend(runtime, everywhere=True)
            group = await runtime.open_group(runtime.key_named(text))
        key = next(key for key in runtime.state.groups() if key.id == group.id)
        await place(runtime, key, directory)
        stored = await runtime.reach(Stage.STORED, STORED_S)
        return _group(key.id, key.name, directory, stored)


@app.command
def invite(
    name: Name = "",
    /,
    *,
    wait: Annotated[bool | None, Parameter(help="Stay until the invite is used.")] = None,
    qr: Annotated[bool, Parameter(help="Draw the QR code.")] = True,
    dir: Dir = HOME,
    time_scale: Scale = 1.0,
    json: Json = False,
) -> int:
    """Make an invite to a folder: for one device, good for ten minutes.

    Somebody must answer it: this command while it waits, or a running `folder sync --watch`. It
    waits on a terminal unless told otherwise.
    """
    start_log("warning")
    clock, home = clock_of(time_scale), dir.expanduser()
    view = DeviceView(home)
    try:
        made = view.invite(name, SystemEntropy().bytes(32), clock.wall())
        line = str(made)
        console = Console(highlight=False)
        if not json:
            if qr and console.is_terminal:
                _draw(console, line)
            console.print(line, soft_wrap=True)
        waits = wait if wait is not None else not json and sys.stdout.isatty()
        if not (json or waits):
            told = "good for one device, for ten minutes, while folder sync --watch runs here"
            Console(stderr=True).print(told)
        taken = asyncio.run(_wait(home, view, made, clock)) if waits else ""
    finally:
        view.close()
    about = {"invite": line, "id": made.id.hex(), "expires_at": made.expires_at, "taken_by": taken}
    emit(about, as_json=json, text=f"used by {taken}" if taken else "")
    return EXIT_NO if waits and not taken else EXIT_OK


def _draw(console: Console, line: str) -> None:
    """The QR code, where the terminal is wide enough for it."""
    drawn = qr_terminal(line)
    columns = max(len(row) for row in drawn.splitlines())
    if columns <= console.width:
        console.print(drawn, soft_wrap=True, highlight=False)
    else:
        console.print(f"(a terminal of {columns} columns would show it as a QR code)")


async def _wait(home: Path, view: DeviceView, made: Invite, clock: Clock) -> str:
    """Answer until the invite is used or has run out; the name of who used it."""
    Console(stderr=True).print("waiting for the other device; Ctrl-C ends this ...")
    try:
        async with opened(home, clock) as runtime:
            inviter = Inviter(runtime)
            while not (taken := view.taken_by(made.id)) and clock.wall() < made.expires_at:
                await _answer(inviter)
                await clock.sleep_real(POLL_S)
            await runtime.reach(Stage.STORED, STORED_S)
            return taken
    except UsageError:  # another process holds the directory, and answers
        while not (taken := view.taken_by(made.id)) and clock.wall() < made.expires_at:
            await clock.sleep_real(POLL_S)
        return taken


async def _answer(inviter: Inviter) -> None:
    try:
        await inviter.answer()
    except OperationFault as fault:
        Console(stderr=True).print(f"{fault}")


@app.command
def moved(
    name: str, directory: Path, /, *, dir: Dir = HOME, time_scale: Scale = 1.0, json: Json = False
) -> None:
    """Say that a folder lies elsewhere now: it was moved, restored from a backup, on a new disk.

    What is missing there counts as deleted at the next sync, so look before you say so.

    Parameters
    ----------
    name
        The folder's name.
    directory
        Where it is now; the same place when only the disk below it is another.
    """
    start_log("warning")
    home = dir.expanduser()
    path = asyncio.run(_moved(name, directory.expanduser(), home, clock_of(time_scale)))
    text = f"{name} is at {path}; next: holdfast folder sync {name}"
    emit({"name": name, "path": str(path)}, as_json=json, text=text)


async def _moved(name: str, directory: Path, home: Path, clock: Clock) -> Path:
    state = DeviceState.open(home, clock, passphrase=passphrase)
    try:
        key = next((key for key in state.groups() if key.name == name), None)
        if key is None:
            raise UsageError(f"there is no folder called {name!r}; see holdfast folder list")
        path = move(state, key, directory)
    finally:
        state.close()
    async with opened(home, clock) as runtime:
        runtime.folders[key.id].folder.accept_top()
    return path


@app.command
def sync(
    name: Name = "",
    /,
    *,
    watch: Annotated[bool, Parameter(help="Stay in step until stopped.", negative="")] = False,
    dir: Dir = HOME,
    time_scale: Scale = 1.0,
    json: Json = False,
) -> int:
    """Bring folders in step: once, or with --watch until stopped.

    Ends when everything is stored: receipts from two relays of three. Exit status 1 says that
    something is not as it should be; the text says what.
    """
    start_log("warning")
    be_frugal()
    clock = clock_of(time_scale)
    if watch:
        report = uvloop.run(_watch(dir.expanduser(), clock, quiet=json))
    else:
        report = uvloop.run(_sync(name, dir.expanduser(), clock, quiet=json))
    emit(report, as_json=json, text="" if watch else _sync_text(report))
    return EXIT_OK if report["ok"] else EXIT_NO


async def _sync(name: str, home: Path, clock: Clock, *, quiet: bool) -> dict[str, Any]:
    async with opened(home, clock) as runtime:
        wanted = [runtime.key_named(name).id] if name else list(runtime.folders)
        folders = [runtime.folders[group] for group in wanted if group in runtime.folders]
        if not folders:
            raise UsageError("no folder is checked out here; holdfast folder add or join first")
        try:
            await tend(runtime, everywhere=True)
        except OperationFault as fault:
            Console(stderr=True).print(f"offline: {fault}")
        for folder in folders:
            with Bars(quiet=quiet) as show:
                await folder.sync(show, everywhere=folder.last is None)
        with Bars(quiet=quiet) as show:
            stored = await _send(runtime, clock, show)
            if stored and await show_receipts(runtime):
                stored = await _send(runtime, clock, show)
        for folder in folders:
            await folder.group.audit()
        await hand_in(runtime)
        return _report(runtime, folders, stored)


async def _send(runtime: DeviceRuntime, clock: Clock, show: OnProgress) -> bool:
    """Wait until everything is stored, showing how far that is; not when nothing moves."""
    total = left = runtime.bytes_below(Stage.STORED)
    moved_at = clock.elapsed()
    while not await runtime.reach(Stage.STORED, SHOW_S):
        before, left = left, runtime.bytes_below(Stage.STORED)
        show(Progress("send", bytes=total - left, bytes_total=total))
        if left < before:
            moved_at = clock.elapsed()
        elif clock.elapsed() - moved_at > STALL_S * clock.scale:
            return False
    return True


def _report(runtime: DeviceRuntime, folders: list[FolderSync], stored: bool) -> dict[str, Any]:
    figures = [folder.figures() for folder in folders]
    for folder, figure in zip(folders, figures, strict=True):
        runtime.state.keep_figures(folder.group.id, msgspec.json.encode(figure))
    trouble = any(f.last and (f.last.problems or f.last.missing or f.last.offline) for f in figures)
    trouble |= any(figure.shut_out for figure in figures)
    return {
        "ok": stored and not trouble,
        "stored": stored,
        "folders": [msgspec.to_builtins(figure) for figure in figures],
    }


def _sync_text(report: dict[str, Any]) -> str:
    lines = []
    for figure in report["folders"]:
        last = figure["last"] or {}
        lines.append(
            f"{figure['name']}: {last.get('changes', 0)} changes recorded,"
            f" {last.get('files', 0)} files received; {figure['queued']} queued,"
            f" {figure['stored']} stored, {figure['replicated']} replicated"
        )
        if figure["shut_out"]:
            lines.append("  this device was removed from it: what lies here stays as it is")
        lines += [f"  {text}" for text in (*last.get("problems", ()), *last.get("skipped", ()))]
        lines += [f"  LIED: {text}" for text in figure["liars"]]
        if last.get("kept"):
            lines += [f"  kept both: {text}" for text in last["kept"]]
        if last.get("offline"):
            lines.append(f"  offline: {last['offline']}")
    if not report["stored"]:
        lines.append("not everything is stored yet; it waits in the outbox, sync again later")
    return "\n".join(lines)


async def _watch(home: Path, clock: Clock, *, quiet: bool) -> dict[str, Any]:
    async with opened(home, clock) as runtime:
        if not runtime.folders:
            raise UsageError("no folder is checked out here; holdfast folder add or join first")
        console = Console(stderr=True, highlight=False)

        def show(folder: FolderSync, done: Synced) -> None:
            if not quiet and not done.quiet:
                console.print(
                    f"{folder.group.name}: {done.changes} out, {done.files} in,"
                    f" {done.removed} removed" + (f" ({done.offline})" if done.offline else ""),
                    soft_wrap=True,
                )
                for name in done.kept:
                    console.print(f"  kept both: {name}", markup=False, soft_wrap=True)

        if not quiet:
            names = ", ".join(sorted(folder.group.name for folder in runtime.folders.values()))
            console.print(f"watching {names}; Ctrl-C ends this", markup=False)
        direct = Direct(runtime, standing(runtime, clock, SystemEntropy()))
        await until_stopped(Watch(runtime, show, direct=direct).run())
        stored = runtime.reached(Stage.STORED)
        return _report(runtime, list(runtime.folders.values()), stored) | {"ok": True}


@app.command(name="lock")
def lock(
    name: Name = "", /, *, dir: Dir = HOME, time_scale: Scale = 1.0, json: Json = False
) -> None:
    """Take a folder's files off this disk, once two replicas have everything.

    `folder list` shows which folders lie open here. `folder unlock` brings it back.
    """
    start_log("warning")
    path = asyncio.run(_lock(name, dir.expanduser(), clock_of(time_scale)))
    text = (
        f"{path} is locked: nothing of it lies on this disk, two replicas have everything;"
        f" bring it back with holdfast folder unlock {name}".rstrip()
    )
    emit({"path": str(path), "locked": True}, as_json=json, text=text)


async def _lock(name: str, home: Path, clock: Clock) -> Path:
    async with opened(home, clock) as runtime:
        return await lock_folder(runtime, runtime.key_named(name), 10 * STORED_S)


@app.command(name="unlock")
def unlock(
    name: Name = "", /, *, dir: Dir = HOME, time_scale: Scale = 1.0, json: Json = False
) -> None:
    """Bring a locked folder back to where it was."""
    start_log("warning")
    path = asyncio.run(_unlock(name, dir.expanduser(), clock_of(time_scale), quiet=json))
    emit({"path": str(path), "locked": False}, as_json=json, text=f"{path} is back, as plaintext")


async def _unlock(name: str, home: Path, clock: Clock, *, quiet: bool) -> Path:
    async with opened(home, clock) as runtime:
        with Bars(quiet=quiet) as show:
            return await unlock_folder(runtime, runtime.key_named(name), show)


@app.command(name="list")
def list_folders(*, dir: Dir = HOME, json: Json = False) -> None:
    """Every folder you are in, and where it is on this device."""
    figures = _figures(dir)
    lines = [f"{f.name}\t{f.path or '(not on this device)'}" for f in figures]
    record = {"folders": [{"name": f.name, "group": f.group, "path": f.path} for f in figures]}
    emit(record, as_json=json, text="\n".join(lines) or "no folders; holdfast folder add DIR")


@app.command
def status(name: Name = "", /, *, dir: Dir = HOME, json: Json = False) -> None:
    """Where folders stand, as of their last sync. Works beside a running one.

    queued: on this device's disk only. stored: receipts from two relays. replicated: two replicas
    have it as well.
    """
    figures = [figure for figure in _figures(dir) if name in ("", figure.name)]
    if name and not figures:
        raise UsageError(f"no folder called {name!r}; see holdfast folder list")
    emit({"folders": [msgspec.to_builtins(figure) for figure in figures]}, as_json=json)
    if not json:
        _status_table(figures)


def _figures(home: Path) -> list[Figures]:
    view = DeviceView(home.expanduser())
    try:
        return view.folders()
    finally:
        view.close()


def _status_table(figures: list[Figures]) -> None:
    table = Table()
    for column in ("folder", "files", "bytes", "queued", "stored", "replicated", "members", ""):
        table.add_column(column, justify="left" if column in ("folder", "") else "right")
    for f in figures:
        notes = []
        if not f.path:
            notes.append("not on this device")
        if f.path and f.unwitnessed:
            notes.append("unwitnessed")
        if f.record_refused:
            notes.append(f"newest slot record refused: {f.record_refused}")
        if f.failing:
            notes.append(f"silent: {', '.join(f.failing)}")
        notes += [f"LIED: {text}" for text in f.liars]
        if f.gaps or f.unread:
            notes.append(f"{f.gaps} gaps, {f.unread} unreadable")
        if f.update_needed:
            notes.append("update needed")
        counts = (f.files, f.bytes, f.queued, f.stored, f.replicated, f.members)
        table.add_row(f.name, *(f"{count:,}" for count in counts), "; ".join(notes))
    Console(highlight=False).print(table)
