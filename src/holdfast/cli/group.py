"""`holdfast group`: who is in what."""

from __future__ import annotations

from typing import Annotated

import cyclopts
from cyclopts import Parameter

from holdfast.cli.devices import HOME, Dir, Json
from holdfast.cli.output import emit
from holdfast.device.view import DeviceView

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
    view = DeviceView(dir.expanduser())
    try:
        group, own_name, _ = view.group_named(name)
        found = view.members(group)
    finally:
        view.close()
    record = {"name": own_name, "members": [{"key": key, "label": label} for key, label in found]}
    emit(record, as_json=json, text="\n".join(f"{label}\t{key[:16]}" for key, label in found))
