"""`holdfast hq release`: sign releases, add them to a headquarters, look at them (ADR 0041).

Signing is done where the release key is, which is not headquarters; what it writes is carried
there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

import cyclopts
import msgspec
from cyclopts import Parameter

from holdfast.cli.hq_call import call_hq
from holdfast.cli.output import emit
from holdfast.cli.release_key import read_release_key
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import PeerFault, UsageError
from holdfast.hq.home import at
from holdfast.hq.releases import BUNDLE_BYTES_MAX, Bundle, put_archive
from holdfast.hq.upgrade_admin import ReleaseItem, ReleaseItems, ReleaseOrder
from holdfast.hq.verbs import Done
from holdfast.rim.archive import pack_source, read_members
from holdfast.rim.clock import SystemClock
from holdfast.rim.files import read_file, write_file
from holdfast.wire.codec import pack, unpack
from holdfast.wire.release import Knobs, Release, release_id, sign_release

Dir = Annotated[Path, Parameter(name="--dir", help="Directory of the headquarters.")]
Json = Annotated[bool, Parameter(name="--json", help="One JSON object as the last line.")]
release = cyclopts.App(name="release", help="Signed releases: sign, add, list, show.")

_ABOUT: Final = {
    "version": ("holdfast/__init__.py", r'^__version__ = "([^"]+)"'),
    "wire": ("holdfast/wire/versions.py", r"^WIRE: Final = (\d+)"),
    "wire_min": ("holdfast/wire/versions.py", r"^WIRE_MIN: Final = (\d+)"),
    "schema": ("holdfast/rim/store/index.py", r"^SCHEMA_VERSION = (\d+)"),
}
"""Where an archive says what it is."""


def make_bundle(source: Path, key: Path, name: str, knobs: Knobs) -> Bundle:
    """A release of a source directory or a wheel, signed. Raises UsageError, PeerFault."""
    signer, proof, network = read_release_key(key)
    archive = pack_source(source)
    told = _about(archive)
    statement = Release(
        network=network,
        name=name or told["version"],
        version=told["version"],
        wire_min=int(told["wire_min"]),
        wire=int(told["wire"]),
        schema=int(told["schema"]),
        digest=hash_bytes(archive),
        size=len(archive),
        knobs=knobs,
        created_at=int(SystemClock().wall()),
    )
    return Bundle(sign_release(signer, proof, statement), archive)


def _about(archive: bytes) -> dict[str, str]:
    """What an archive says of itself. Raises UsageError."""
    files = read_members(archive, {path for path, _ in _ABOUT.values()})
    told = {}
    for what, (path, pattern) in _ABOUT.items():
        found = re.search(pattern, files.get(path, b"").decode("utf-8", "replace"), re.MULTILINE)
        if found is None:
            raise UsageError(f"the source does not say its {what} in {path}; is it Holdfast's?")
        told[what] = found[1]
    return told


@release.command
def sign(
    source: Path,
    *,
    key: Path,
    out: Path,
    name: str = "",
    requests_per_s: float | None = None,
    sessions_max: int | None = None,
    session_idle_s: float | None = None,
    json: Json = False,
) -> None:
    """Sign a release with the network's release key; carry --out to headquarters.

    Parameters
    ----------
    source
        A wheel, or a directory with the package holdfast/ in it.
    key
        Directory that `holdfast root release-key` made.
    out
        File to write.
    name
        What operators call it; its version by default. The same code with other settings is
        another release and needs another name.
    requests_per_s
        A setting: requests a second that a server answers, of everybody together.
    sessions_max
        A setting: sessions of one server.
    session_idle_s
        A setting: seconds without a request after which a session ends.
    """
    bundle = make_bundle(source, key, name, Knobs(requests_per_s, sessions_max, session_idle_s))
    write_file(out, pack(bundle), mode=0o644)
    id = release_id(bundle.staple).hex()
    text = f"signed {id[:12]}, {len(bundle.archive)} bytes; next: holdfast hq release add {out}"
    emit({"id": id, "out": str(out), "size": len(bundle.archive)}, as_json=json, text=text)


@release.command
def add(file: Path, *, home: Dir, json: Json = False) -> None:
    """Let headquarters hand out a release, which changes nothing yet.

    Several headquarters have a directory each: add it to every one of them.

    Parameters
    ----------
    file
        What `holdfast hq release sign` wrote.
    """
    data = read_file(file)
    if data is None:
        raise UsageError(f"no file {file}; it is made by holdfast hq release sign")
    try:
        bundle = unpack(Bundle, data, bytes_max=BUNDLE_BYTES_MAX)
    except PeerFault as fault:
        raise UsageError(f"{file} is no signed release: {fault}") from fault
    put_archive(at(home).directory, bundle.staple, bundle.archive)
    done = call_hq(home, "POST", "/releases", ReleaseOrder(bundle.staple), Done)
    text = f"added {done.subject}; next: holdfast hq upgrade {done.subject}"
    emit(done, as_json=json, text=text)


@release.command(name="list")
def show_all(*, home: Dir, json: Json = False) -> None:
    """Every release headquarters may hand out."""
    found = call_hq(home, "GET", "/releases", None, ReleaseItems)
    lines = [f"{i.name:20} {i.version:10} {i.id[:12]}  by {i.added_by}" for i in found.items]
    emit(found, as_json=json, text="\n".join(lines) or "no releases")


@release.command
def show(name: str, *, home: Dir, json: Json = False) -> None:
    """One release: what it speaks, what it stores, its settings.

    Parameters
    ----------
    name
        Its name, or its id.
    """
    found = call_hq(home, "GET", "/releases", None, ReleaseItems)
    chosen = [item for item in found.items if name in (item.name, item.id)]
    if not chosen:
        raise UsageError(f"no release {name!r}; see: holdfast hq release list")
    emit(chosen[0], as_json=json, text=_describe(chosen[0]))


def _describe(item: ReleaseItem) -> str:
    knobs = {k: v for k, v in msgspec.to_builtins(item.knobs).items() if v is not None}
    return (
        f"{item.name}  version {item.version}  {item.size} bytes\nid        {item.id}\n"
        f"node wire {item.wire_min} to {item.wire}, index schema {item.schema}\n"
        f"settings  {knobs or 'those of the program'}"
    )
