"""`holdfast provider key`: what an account's owner does on its provider's web page."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import cyclopts
import msgspec
from cyclopts import Parameter

from holdfast.cli.hq_options import Json
from holdfast.cli.output import emit
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.cloud.daemon import DaemonFile
from holdfast.rim.cloud.process import ProcessCloud
from holdfast.rim.files import read_file
from holdfast.wire.cloud import SERVERS

app = cyclopts.App(name="key", help="Keys of a process provider: create, revoke.")
Dir = Annotated[Path, Parameter(name="--dir", help="Directory of the provider.")]


@app.command
def create(*, home: Dir, scope: str = SERVERS, note: str = "", json: Json = False) -> None:
    """Make a key for machines alone and print it. It is shown once.

    Parameters
    ----------
    scope
        What it is for: servers, log, keys; comma-separated.
    note
        For people.
    """
    scopes = tuple(filter(None, scope.split(",")))
    made = asyncio.run(_cloud(home).make_key(scopes, note))
    emit(made, as_json=json, text=f"{made.key}\nits id is {made.id}")


@app.command
def revoke(id: str, *, home: Dir, json: Json = False) -> None:
    """Take a key back: the next call with it is refused.

    Parameters
    ----------
    id
        As `create` printed it.
    """
    asyncio.run(_cloud(home).revoke_key(id))
    emit({"revoked": id}, as_json=json, text=f"{id} is taken back")


def _cloud(home: Path) -> ProcessCloud:
    """The running provider, with the account's own key."""
    about, key = read_file(home / "daemon.json"), read_file(home / "key")
    if about is None or key is None:
        raise UsageError(f"no provider serves from {home}; run: holdfast provider serve")
    listen = msgspec.json.decode(about, type=DaemonFile).listen
    return ProcessCloud(listen, key.decode().strip(), SystemClock())
