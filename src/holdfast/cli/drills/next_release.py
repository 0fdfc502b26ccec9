"""Source trees of releases that do not exist yet: this one with a generated patch (ADR 0041).

The next version speaks one more node wire, in which headquarters and nodes each say one thing more,
and keeps its index under another schema. A poison is a release that starts and is no good. A patch
that no longer fits the source is an error, so that no drill passes on an unpatched tree.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, NamedTuple

import holdfast
from holdfast import __version__
from holdfast.errors import OperationFault
from holdfast.rim.store.index import SCHEMA_VERSION
from holdfast.wire.versions import WIRE, WIRE_MIN

NEXT_VERSION: Final = f"{__version__}+next"
"""Of the tree that `next_tree` makes."""


class Patch(NamedTuple):
    """In the file at `path` of the package, `old` stands exactly once and becomes `new`."""

    path: str
    old: str
    new: str


NEXT: Final = (
    Patch("__init__.py", f'"{__version__}"', f'"{NEXT_VERSION}"'),
    Patch("wire/versions.py", f"WIRE: Final = {WIRE}\n", f"WIRE: Final = {WIRE + 1}\n"),
    Patch("wire/versions.py", f"WIRE_MIN: Final = {WIRE_MIN}\n", f"WIRE_MIN: Final = {WIRE}\n"),
    Patch("wire/versions.py", "    Desired: {", f'    Desired: {{"greeting": {WIRE + 1}, '),
    Patch("wire/versions.py", "    Heartbeat: {\n", f'    Heartbeat: {{\n"mood": {WIRE + 1},\n'),
    Patch("wire/hq.py", "    wire: int = 1\n", '    greeting: str = ""\n    wire: int = 1\n'),
    Patch(
        "wire/hq.py",
        '    refused: bytes = b""\n',
        '    mood: str = "well"\n    refused: bytes = b""\n',
    ),
    Patch(
        "hq/desired.py",
        "            wire=WIRE,\n",
        '            wire=WIRE,\n            greeting="hello",\n',
    ),
    Patch(
        "rim/store/index.py",
        f"SCHEMA_VERSION = {SCHEMA_VERSION}\n",
        f"SCHEMA_VERSION = {SCHEMA_VERSION + 1}\n",
    ),
    Patch(
        "rim/store/index.py",
        '_SCHEMA = """\n',
        '_SCHEMA = """\nCREATE TABLE notes(blob BLOB PRIMARY KEY, note TEXT);\n',
    ),
)
CRASH: Final = (
    Patch(
        "relay/main.py",
        '    _log.info("%s serves at %s", config.name or config.role, relay.address)\n',
        "    loop.call_later(3.0, os._exit, 13)\n",
    ),
)
"""It starts, serves, and dies after three seconds, every time."""
DEAF: Final = (
    Patch(
        "relay/verbs.py",
        "    canary = request.blob_class is BlobClass.CANARY\n",
        "    canary = request.blob_class is BlobClass.CANARY\n    if canary:\n"
        '        raise PeerFault("no", code="class")\n',
    ),
)
"""It serves clients and refuses what its peers probe it with."""


def make_tree(target: Path, *patches: Patch) -> Path:
    """Copy the running package below a new `target` and patch it. Raises OperationFault when a
    patch does not fit."""
    package = Path(holdfast.__file__).parent
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, target / package.name, ignore=ignore)
    for patch in patches:
        path = target / package.name / patch.path
        text = path.read_text()
        if text.count(patch.old) != 1:
            raise OperationFault(f"a patch of {patch.path} does not fit", retryable=False)
        path.write_text(text.replace(patch.old, patch.new))
    return target


def next_tree(target: Path) -> Path:
    """The next version's source."""
    return make_tree(target, *NEXT)
