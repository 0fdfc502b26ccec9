"""`holdfast provider credential`: the keys with which headquarters orders machines.

A key is read from a file or from standard input, never from the command line: arguments are for
everybody on the machine to see.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import cyclopts

from holdfast.cli.hq_call import call_hq
from holdfast.cli.hq_options import Dir, Json
from holdfast.cli.output import emit
from holdfast.errors import UsageError
from holdfast.hq.credential_admin import (
    Credential,
    Credentials,
    Every,
    KeyOffer,
    Staged,
    Take,
)
from holdfast.limits.control import CREDENTIAL_BYTES_MAX
from holdfast.rim.files import read_file

app = cyclopts.App(name="credential", help="Providers' keys: set, show, rotate, schedule.")


@app.command(name="set")
def set_(name: str, *, home: Dir, key_file: Path | None = None, json: Json = False) -> None:
    """Give headquarters a provider's first key; it is tried before it is kept.

    Parameters
    ----------
    name
        The provider, as hq.json names it.
    key_file
        Holds the key and nothing else; standard input without it.
    """
    known = _find(home, name)
    if known.here:
        raise UsageError(
            f"{name} has a key; replace it: holdfast provider credential rotate {name}"
        )
    _change(home, name, key_file, json, "set")


@app.command
def rotate(name: str, *, home: Dir, key_file: Path | None = None, json: Json = False) -> None:
    """Put a new key in the place of the former, once the provider has taken it.

    Parameters
    ----------
    name
        The provider, as hq.json names it.
    key_file
        Holds the new key and nothing else; standard input without it.
    """
    if not _find(home, name).fingerprint:
        raise UsageError(f"{name} has no key yet: holdfast provider credential set {name}")
    _change(home, name, key_file, json, "rotated; take the former key back at the provider now")


@app.command
def show(*, home: Dir, json: Json = False) -> None:
    """How old each key is, what it may do, when it is due. Never the key."""
    found = call_hq(home, "GET", "/credentials", None, Credentials)
    text = "\n".join(map(_line, found.items)) or "no provider has a key"
    emit(found, as_json=json, text=text)


@app.command
def schedule(name: str, *, home: Dir, every_days: float, json: Json = False) -> None:
    """Be told in status and audit log when a key is to be rotated.

    Parameters
    ----------
    name
        The provider, as hq.json names it.
    every_days
        How old its key may become; 0 ends the reminders.
    """
    path = f"/credentials/{quote(name, safe='')}/schedule"
    found = call_hq(home, "PUT", path, Every(every_days), Credential)
    emit(found, as_json=json, text=_line(found))


def _change(home: Path, name: str, key_file: Path | None, json: bool, done: str) -> None:
    path = f"/credentials/{quote(name, safe='')}"
    staged = call_hq(home, "POST", f"{path}/stage", KeyOffer(_read(key_file)), Staged)
    found = call_hq(home, "POST", f"{path}/take", Take(staged.fingerprint), Credential)
    wide = (
        f"\nit may do more than is needed ({', '.join(found.scopes)}): a key for machines alone "
        "loses less when it leaks"
    )
    text = f"{done}\n{_line(found)}" + (wide if found.wide else "")
    emit(found, as_json=json, text=text)


def _read(key_file: Path | None) -> str:
    if key_file is not None:
        data = read_file(key_file)
        if data is None:
            raise UsageError(f"no file {key_file}")
    else:
        data = sys.stdin.buffer.read(CREDENTIAL_BYTES_MAX + 2)
    try:
        return data.decode().strip()
    except UnicodeDecodeError:
        raise UsageError("that is no key: it is not text") from None


def _find(home: Path, name: str) -> Credential:
    for item in call_hq(home, "GET", "/credentials", None, Credentials).items:
        if item.provider == name:
            return item
    raise UsageError(f"no provider {name!r} with a key; hq.json names them")


def _line(item: Credential) -> str:
    if not item.fingerprint:
        return f"{item.provider}: no key; set it: holdfast provider credential set {item.provider}"
    may = ", ".join(item.scopes) or "the provider does not say"
    text = f"{item.provider}: {item.age_days:g} days old, may: {may}"
    if item.next_rotation_at:
        when = datetime.fromtimestamp(item.next_rotation_at, UTC).date()
        text += f", {'DUE since' if item.due else 'next rotation'} {when}"
    if not item.here:
        text += "; this headquarters lacks it: holdfast provider credential set"
    return text + (f"; {item.staged} waits for a second operator" if item.staged else "")
