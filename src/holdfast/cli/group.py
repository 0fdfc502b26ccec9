"""`holdfast group`: who is in what."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter

from holdfast.cli.device import STORED_S
from holdfast.cli.devices import HOME, Dir, Json, Scale, opened, passphrase
from holdfast.cli.output import emit
from holdfast.cli.service import clock_of, start_log
from holdfast.crypto.pure import base32
from holdfast.device.membership import remove
from holdfast.device.view import DeviceView
from holdfast.errors import UsageError
from holdfast.logic.pool.fanout import Stage
from holdfast.rim.clock import Clock

app = cyclopts.App(name="group", help_format="plaintext", help="Groups this person is in.")


@app.command(name="list")
def list_groups(*, dir: Dir = HOME, json: Json = False) -> None:
    """Every group in your keyring."""
    view = DeviceView(dir.expanduser())
    try:
        figures = view.folders()
    finally:
        view.close()
    record = {"groups": [{"name": f.name, "group": f.group, "kind": "folder"} for f in figures]}
    text = "\n".join(f"{f.name}\tfolder\t{f.group[:16]}" for f in figures)
    emit(record, as_json=json, text=text or "no groups; holdfast folder add DIR")


@app.command
def members(
    name: Annotated[str, Parameter(help="The group; not needed when there is only one.")] = "",
    /,
    *,
    dir: Dir = HOME,
    json: Json = False,
) -> None:
    """The devices and persons of a group, as its log says on this device."""
    view = DeviceView(dir.expanduser(), passphrase)
    try:
        group, own_name, _ = view.group_named(name)
        found = view.members(group)
    finally:
        view.close()
    record = {
        "name": own_name,
        "members": [
            {
                "key": base32(m.device),
                "label": m.label,
                "level": m.level.name.lower(),
                "person": base32(m.person),
                "root": m.is_root,
            }
            for m in found
        ],
    }
    rows = [
        f"{'a person' if m.is_root else m.label}\t{m.level.name.lower()}\t{base32(m.device)[:16]}"
        + (f"\tof {base32(m.person)[:16]}" if m.person and not m.is_root else "")
        for m in found
    ]
    emit(record, as_json=json, text="\n".join(rows))


@app.command(name="remove")
def remove_member(
    member: str,
    name: Annotated[str, Parameter(help="The group; not needed when there is only one.")] = "",
    /,
    *,
    dir: Dir = HOME,
    time_scale: Scale = 1.0,
    json: Json = False,
) -> None:
    """Put a person out of a group, with all their devices; the others go on in a new era.

    Parameters
    ----------
    member
        The label of one of the person's devices, or the start of a key, as `group members` shows.
    """
    start_log("warning")
    done = asyncio.run(_remove(member, name, dir.expanduser(), clock_of(time_scale)))
    emit(done, as_json=json, text=f"{member} is out of {done['name']}: era {done['era']}")


async def _remove(member: str, name: str, home: Path, clock: Clock) -> dict[str, Any]:
    async with opened(home, clock) as runtime:
        group = await runtime.open_group(runtime.key_named(name))
        await group.read()
        found = [
            m
            for m in group.log.state.members.all()
            if not m.is_root and (m.label == member or base32(m.device).startswith(member))
        ]
        if len({m.person or m.device for m in found}) != 1:
            raise UsageError(f"{len(found)} members match {member!r}; see holdfast group members")
        await remove(runtime, group, {found[0].person or found[0].device})
        stored = await runtime.reach(Stage.STORED, STORED_S)
        return {"name": group.name, "era": group.era.number, "stored": stored}
