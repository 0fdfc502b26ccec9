"""Files under `assets/`, read once and served from memory; nothing else on the disk is reachable.

The stamp is a hash of them all: pages ask for `/assets/<name>?<stamp>`, so that a browser may
keep a file for good and still gets the new one after an upgrade.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from holdfast.crypto.pure import base32, hash_bytes

_FOLDER: Final = Path(__file__).parent / "assets"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Asset(msgspec.Struct, frozen=True):
    """One file and its media type."""

    body: bytes
    media_type: str


@cache
def assets() -> dict[str, Asset]:
    """Every asset by file name."""
    found = {}
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _TYPES:
            found[path.name] = Asset(path.read_bytes(), _TYPES[path.suffix])
    assert found, f"no assets in {_FOLDER}"
    return found


@cache
def stamp() -> str:
    """Changes when any asset does."""
    bodies = b"".join(hash_bytes(asset.body) for asset in assets().values())
    return base32(hash_bytes(bodies))[:12]
