"""`holdfast device`: make this machine a device of a person, or bring everything back."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import cyclopts
import msgspec
from cyclopts import Parameter
from rich.console import Console

from holdfast.cli.agent import run_agent, tell
from holdfast.cli.devices import (
    HOME,
    Bars,
    Dir,
    Json,
    Scale,
    device_name,
    opened,
    parse_roles,
    passphrase,
    read_locator,
    read_phrase,
    words_table,
    write_phrase,
)
from holdfast.cli.layers import layer_text, walk_layers
from holdfast.cli.output import EXIT_NO, EXIT_OK, emit
from holdfast.cli.service import clock_of, host_port, start_log
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.phrase import Phrase
from holdfast.crypto.pure import base32, node_id
from holdfast.device.folders import Synced
from holdfast.device.headquarters import RealHeadquarters
from holdfast.device.persons import device_named, devices
from holdfast.device.persons import revoke as revoke_device
from holdfast.device.persons import state as state_device
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.setup import (
    Setup,
    World,
    check_device_name,
    draw_phrase,
    folder_directory,
    refuse_ready,
    set_up,
)
from holdfast.device.sharing import place
from holdfast.device.state import DeviceState
from holdfast.device.tend import tend
from holdfast.device.tickets import draw
from holdfast.device.view import DeviceView
from holdfast.errors import HoldfastError, OperationFault
from holdfast.logic.pool.fanout import Stage
from holdfast.rim.clock import Clock, SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.wire.tickets import parse_grant

STORED_S: Final = 20.0
"""Real seconds a verb waits for its few operations to be stored; they are safe in the outbox."""
PhraseFile = Annotated[Path | None, Parameter(help="File with the words.")]
Roles = Annotated[str, Parameter(help="reader, carrier, or both with a comma.")]
Region = Annotated[str, Parameter(help="Where you are, roughly: eu, ap, ...")]

app = cyclopts.App(name="device", help_format="plaintext", help="A device of a person.")


@app.command
def init(
    *,
    locator: str = "",
    phrase_file: PhraseFile = None,
    name: str = "",
    region: Region = "",
    dir: Dir = HOME,
    time_scale: Scale = 1.0,
    json: Json = False,
) -> None:
    """Make this machine a device: of a new person, or of the one whose words you give.

    Parameters
    ----------
    locator
        The line that starts with hfloc1, or a file that holds it; without it, that of the network
        which `holdfast up` runs here.
    phrase_file
        Your 24 words. When the file does not exist, new words are drawn and written to it; without
        the option they are shown once.
    name
        What people will call this device; the machine's name when empty.
    """
    start_log("warning")
    refuse_ready(dir.expanduser(), SystemClock())
    words_file = phrase_file.expanduser() if phrase_file is not None else None
    is_new = words_file is None or not words_file.exists()
    phrase = draw_phrase(SystemEntropy()) if is_new else read_phrase(words_file or Path())
    name = name or device_name()
    setup = Setup(dir.expanduser(), name, read_locator(locator), phrase, is_new, region)
    if is_new and words_file is not None:
        write_phrase(words_file, phrase)
    with _undone_on_failure(setup.home, words_file if is_new else None):
        made = asyncio.run(_init(setup, clock_of(time_scale)))
    if is_new and words_file is None:
        made["words"] = " ".join(phrase.words())
    emit(made, as_json=json)
    if not json:
        _tell(made, phrase if is_new else None, words_file)


@contextmanager
def _undone_on_failure(home: Path, words: Path | None = None) -> Iterator[None]:
    """A device that could not be made leaves no directory, and no words of nobody."""
    existed = home.exists()
    try:
        yield
    except HoldfastError:
        if not existed:
            shutil.rmtree(home, ignore_errors=True)
            if words is not None:
                words.unlink(missing_ok=True)
        raise


async def _init(setup: Setup, clock: Clock) -> dict[str, Any]:
    runtime = await set_up(setup, World(clock, SystemEntropy()))
    try:
        return _about(runtime, await runtime.reach(Stage.STORED, STORED_S))
    finally:
        await _shut(runtime)


def _about(runtime: DeviceRuntime, stored: bool) -> dict[str, Any]:
    return {
        "name": runtime.state.name,
        "device": base32(runtime.state.key.public),
        "person": base32(node_id(runtime.state.person)),
        "slot": runtime.state.home_slot.hex(),
        "locator": str(runtime.keyring.slot.current_locator()),
        "groups": [key.name for key in runtime.state.groups()],
        "devices": len(runtime.keyring_log.devices()),
        "stored": stored,
        "dir": str(runtime.state.home),
    }


async def _shut(runtime: DeviceRuntime) -> None:
    await runtime.close()
    runtime.state.close()


def _tell(made: dict[str, Any], words: Phrase | None, phrase_file: Path | None) -> None:
    console = Console(highlight=False)
    console.print(f"device {made['name']} is ready in {made['dir']}", soft_wrap=True)
    if made["groups"]:
        console.print(f"groups found: {', '.join(made['groups'])}", soft_wrap=True)
    if words is not None and phrase_file is None:
        console.print("\nYour words. Write them on paper, now; they are shown once:\n")
        console.print(words_table(words))
    elif words is not None:
        console.print(f"your words are in {phrase_file}: put them on paper, then remove the file")
    console.print("\nKeep this locator with the words; both together bring everything back:\n")
    console.print(made["locator"], soft_wrap=True)
    if not made["stored"]:
        console.print("\nservers do not answer yet: run `holdfast folder sync` later")
    console.print("\nnext: holdfast folder add DIR --name NAME")


@app.command
def restore(
    *,
    phrase_file: Path,
    into: Path,
    locator: str = "",
    name: str = "",
    region: Region = "",
    dir: Dir = HOME,
    time_scale: Scale = 1.0,
    json: Json = False,
) -> int:
    """Bring back every folder from your words and a locator; no other device is needed.

    Parameters
    ----------
    phrase_file
        Your words.
    into
        Each folder is restored into a directory of its name below this one.
    locator
        The locator you kept with the words.
    name
        What people will call this device; the machine's name when empty.
    """
    start_log("warning")
    phrase = read_phrase(phrase_file)
    name = name or device_name()
    setup = Setup(dir.expanduser(), name, read_locator(locator), phrase, region=region)
    with _undone_on_failure(setup.home):
        report = asyncio.run(_restore(setup, into.expanduser(), clock_of(time_scale), quiet=json))
    lines = [
        f"{folder['name']}: {folder['files']} files, {folder['content_bytes']} bytes"
        + "".join(f"\n  {problem}" for problem in folder["problems"])
        for folder in report["folders"]
    ]
    emit(report, as_json=json, text="\n".join(lines) or "no folders in the keyring")
    return EXIT_OK if report["complete"] else EXIT_NO


@app.command
def recover(
    *,
    phrase_file: Path,
    into: Path,
    locator: str = "",
    name: str = "",
    region: Region = "",
    dir: Dir = HOME,
    time_scale: Scale = 1.0,
    json: Json = False,
) -> int:
    """Bring everything back when every other device is gone, from whichever layer still has it.

    Asked in this order: your other devices, friends' devices, relays, replicas, the cold archive.
    Everything comes into this device's vault as ciphertext, then every folder below INTO.

    Parameters
    ----------
    phrase_file
        Your words.
    into
        Each folder is restored into a directory of its name below this one.
    locator
        The locator you kept with the words.
    name
        What people will call this device; the machine's name when empty.
    """
    start_log("warning")
    phrase = read_phrase(phrase_file)
    name = name or device_name()
    setup = Setup(dir.expanduser(), name, read_locator(locator), phrase, region=region)
    with _undone_on_failure(setup.home):
        report = asyncio.run(
            _restore(setup, into.expanduser(), clock_of(time_scale), quiet=json, layers=True)
        )
    lines = [layer_text(layer) for layer in report["layers"]]
    lines += [
        f"{f['name']}: {f['files']} files, {f['content_bytes']} bytes" for f in report["folders"]
    ]
    emit(report, as_json=json, text="\n".join(lines))
    return EXIT_OK if report["complete"] else EXIT_NO


async def _restore(
    setup: Setup, into: Path, clock: Clock, *, quiet: bool, layers: bool = False
) -> dict[str, Any]:
    runtime = await set_up(setup, World(clock, SystemEntropy()))
    try:
        served = {"layers": await walk_layers(runtime)} if layers else {}
        taken: set[str] = set()
        folders = []
        for key in runtime.state.groups():
            if key.kind != "folder":
                continue
            if key.id not in runtime.folders:
                await place(runtime, key, folder_directory(into, key.name, taken, key.id))
            with Bars(quiet=quiet) as show:
                done = await runtime.folders[key.id].sync(show, everywhere=True)
            folders.append(_restored(runtime, key.id, key.name, done))
        stored = await runtime.reach(Stage.STORED, STORED_S)
        complete = bool(folders) and all(
            not f["problems"] and not f["missing"] and not f["offline"] for f in folders
        )
        return _about(runtime, stored) | served | {"folders": folders, "complete": complete}
    finally:
        await _shut(runtime)


def _restored(runtime: DeviceRuntime, group: bytes, name: str, done: Synced) -> dict[str, Any]:
    folder = runtime.folders[group]
    runtime.state.keep_figures(group, msgspec.json.encode(folder.figures()))
    return {"name": name, "path": str(folder.path)} | msgspec.structs.asdict(done)


@app.command
def start(
    *,
    listen: str = "0.0.0.0:0",
    page: str = "127.0.0.1:0",
    dir: Dir = HOME,
    time_scale: Scale = 1.0,
    json: Json = False,
) -> None:
    """Run this device: sync folders, carry for your devices and friends, show a page on loopback.

    Parameters
    ----------
    listen
        Where other devices find this one, host:port.
    page
        Where your page is; loopback only.
    """
    start_log("warning")
    show = tell if not json else lambda started: emit(started, as_json=True)
    where = host_port(listen), host_port(page)
    asyncio.run(run_agent(dir.expanduser(), clock_of(time_scale), *where, show))


@app.command
def status(*, dir: Dir = HOME, json: Json = False) -> None:
    """What this device is, and what waits in its outbox. Works beside a running sync."""
    view = DeviceView(dir.expanduser())
    try:
        about = view.status()
        found = msgspec.structs.asdict(about) | {"locator": str(view.home_locator())}
    finally:
        view.close()
    text = (
        f"{about.name}, device {about.device[:16]} of person {about.person[:16]}\n"
        f"{about.folders} of {about.groups} groups checked out here\n"
        f"outbox: {about.outbox_blobs} blobs, {about.outbox_bytes} bytes;"
        f" {about.receipts} receipts kept"
    )
    if about.evidence or about.record_conflicts:
        text += (
            f"\nproofs of lies: {about.evidence} by servers (holdfast device proofs),"
            f" {about.record_conflicts} pairs of slot records by HQ"
        )
    text += "".join(f"\nLIED: {liar}" for liar in about.liars)
    emit(found, as_json=json, text=text)


@app.command(name="add")
def add_device(
    *,
    phrase_file: Path,
    locator: str = "",
    name: str = "",
    roles: Roles = "reader,carrier",
    region: Region = "",
    dir: Dir = HOME,
    time_scale: Scale = 1.0,
    json: Json = False,
) -> None:
    """Make this machine another device of the person whose words you give.

    Parameters
    ----------
    phrase_file
        Your words.
    locator
        The locator you kept with the words.
    name
        What people will call this device; the machine's name when empty.
    """
    start_log("warning")
    phrase = read_phrase(phrase_file)
    name = name or device_name()
    home = dir.expanduser()
    setup = Setup(home, name, read_locator(locator), phrase, False, region, parse_roles(roles))
    with _undone_on_failure(home):
        made = asyncio.run(_init(setup, clock_of(time_scale)))
    emit(made, as_json=json, text=f"{name} is one of {made['devices']} devices, in {dir}")


@app.command(name="list")
def list_devices(*, dir: Dir = HOME, time_scale: Scale = 1.0, json: Json = False) -> None:
    """Your devices: what each is for, and whether it is still in."""
    start_log("warning")
    found = asyncio.run(_list(dir.expanduser(), clock_of(time_scale)))
    rows = [
        f"{d['name']}{' (this one)' if d['this'] else ''}\t{', '.join(d['roles']) or 'out'}"
        f"\t{d['device'][:16]}"
        for d in found
    ]
    emit({"devices": found}, as_json=json, text="\n".join(rows))


async def _list(home: Path, clock: Clock) -> list[dict[str, Any]]:
    async with opened(home, clock) as runtime:
        await _look(runtime)
        return [
            {
                "name": device.name,
                "device": base32(device.key),
                "roles": list(device.roles) if device.is_in else [],
                "in": device.is_in,
                "this": device.is_this,
            }
            for device in devices(runtime)
        ]


async def _look(runtime: DeviceRuntime) -> None:
    """The keyring as servers have it now, or else as it is here."""
    try:
        await tend(runtime)
    except OperationFault as fault:
        Console(stderr=True).print(f"offline: {fault}")


@app.command
def rename(
    old: str,
    new: str,
    *,
    phrase_file: Path,
    roles: Roles = "",
    dir: Dir = HOME,
    time_scale: Scale = 1.0,
    json: Json = False,
) -> None:
    """Call a device something else, or give it other roles. The root says so, so it takes words.

    Parameters
    ----------
    old
        What it is called.
    new
        What it is called from now on.
    phrase_file
        Your words.
    """
    start_log("warning")
    check_device_name(new)
    root = read_phrase(phrase_file).root()
    done = asyncio.run(_rename(old, new, root, roles, dir.expanduser(), clock_of(time_scale)))
    emit(done, as_json=json, text=f"{old} is {new} now")


async def _rename(
    old: str, new: str, root: SigningKey, roles: str, home: Path, clock: Clock
) -> dict[str, Any]:
    async with opened(home, clock) as runtime:
        await _look(runtime)
        device = device_named(runtime, old)
        kept = parse_roles(roles) if roles else device.roles
        await state_device(runtime, root, device.key, new, kept)
        stored = await runtime.reach(Stage.STORED, STORED_S)
        return {"name": new, "device": base32(device.key), "roles": list(kept), "stored": stored}


@app.command
def revoke(
    name: str,
    *,
    phrase_file: PhraseFile = None,
    dir: Dir = HOME,
    time_scale: Scale = 1.0,
    json: Json = False,
) -> int:
    """Put a lost or stolen device out: of the keyring and of every group, each with a new era.

    Any of your devices can do this. With the words the root says so too, and nothing the lost
    device does can undo it.

    Parameters
    ----------
    name
        What the device is called.
    phrase_file
        Your words, if they are at hand.
    """
    start_log("warning")
    root = read_phrase(phrase_file).root() if phrase_file is not None else None
    done = asyncio.run(_revoke(name, root, dir.expanduser(), clock_of(time_scale)))
    text = f"{name} is out of the keyring and of {len(done['groups'])} groups"
    if done["waiting"]:
        text += f"; not yet of {', '.join(done['waiting'])}: run this again when servers answer"
    emit(done, as_json=json, text=text)
    return EXIT_NO if done["waiting"] else EXIT_OK


async def _revoke(name: str, root: SigningKey | None, home: Path, clock: Clock) -> dict[str, Any]:
    async with opened(home, clock) as runtime:
        await _look(runtime)
        done = await revoke_device(runtime, device_named(runtime, name), root)
        stored = await runtime.reach(Stage.STORED, STORED_S)
        return msgspec.structs.asdict(done) | {"stored": stored}


@app.command
def tickets(grant: str = "", *, dir: Dir = HOME, json: Json = False) -> None:
    """How many tickets this device holds; with a grant, draw what it is good for.

    A network may ask for a ticket before it stores the first blob of a new group. Headquarters
    signs tickets without seeing them.

    Parameters
    ----------
    grant
        The line that starts with hfgrant1, from whoever runs the network.
    """
    clock = clock_of(1.0)
    state = DeviceState.open(dir.expanduser(), clock)
    try:
        drawn = 0
        if grant:
            office = RealHeadquarters(clock, state.store.records.trust.revocations)
            drawn = asyncio.run(draw(state, office, parse_grant(grant), clock, SystemEntropy()))
        held = state.store.wallet.count(state.home_locator().network)
    finally:
        state.close()
    emit({"drawn": drawn, "tickets": held}, as_json=json, text=f"{held} tickets, {drawn} new")


@app.command
def proofs(*, out: Path | None = None, dir: Dir = HOME, json: Json = False) -> None:
    """What servers were caught at, with the proofs; --out writes them for others to verify.

    Parameters
    ----------
    out
        A directory; each proof becomes a file in it (`holdfast hq evidence verify FILE`).
    """
    view = DeviceView(dir.expanduser())
    try:
        found = view.findings()
        proven = {f.proof: view.proof(f.proof) for f in found if f.proof}
    finally:
        view.close()
    for name, data in proven.items():
        if out is not None and data is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / f"{name.hex()[:16]}.proof").write_bytes(data)
    lines = [
        f"{f.text}, {f.count} times" + (f", proof {f.proof.hex()[:16]}" if f.proof else "")
        for f in found
    ]
    record = [
        {
            "name": f.name,
            "node": base32(f.node),
            "lie": str(f.lie),
            "detail": f.detail,
            "count": f.count,
            "first_at": f.first_at,
            "last_at": f.last_at,
            "proof": f.proof.hex() if f.proof else "",
        }
        for f in found
    ]
    text = "\n".join(lines) or "no server was caught at a lie"
    emit({"findings": record}, as_json=json, text=text)


@app.command
def locator(*, dir: Dir = HOME, json: Json = False) -> None:
    """Print the newest locator: keep it with your words."""
    view = DeviceView(dir.expanduser())
    try:
        line = str(view.home_locator())
    finally:
        view.close()
    emit({"locator": line}, as_json=json, text=line)


@app.command
def follow(locator: str, *, dir: Dir = HOME, json: Json = False) -> None:
    """Follow a slot anew, from a locator that somebody you trust gave you.

    A device follows changes of its servers only gradually. After a long time away too much may
    have changed at once; `folder status` then says that a record is refused. This begins again.

    Parameters
    ----------
    locator
        The line that starts with hfloc1, or a file that holds it.
    """
    found = read_locator(locator)
    state = DeviceState.open(dir.expanduser(), clock_of(1.0), passphrase=passphrase)
    try:
        state.follow_anew(found)
    finally:
        state.close()
    emit({"slot": found.slot.hex()}, as_json=json, text="done; next: holdfast folder sync")
