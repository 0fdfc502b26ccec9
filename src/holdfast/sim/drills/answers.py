"""Whether two answers are the same, apart from what moves by itself.

What two direct answers, one before and one after, differ in is left out: a clock, a load. Nothing
else is, so a field that stands still is compared for every caller.
"""

from __future__ import annotations

from typing import Any

import msgspec


def leaves(data: bytes) -> dict[str, Any]:
    """Path to value of everything in a JSON document, or of every line `name value` in a text."""
    found: dict[str, Any] = {}
    if data[:1] in (b"{", b"["):
        _walk("", msgspec.json.decode(data), found)
        return found
    for line in data.decode().splitlines():
        name, _, value = line.rpartition(" ")
        found[name] = value
    return found


def _walk(path: str, value: Any, found: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _walk(f"{path}.{key}", inner, found)
    elif isinstance(value, list):
        found[f"{path}#"] = len(value)
        for index, inner in enumerate(value):
            _walk(f"{path}.{index}", inner, found)
    else:
        found[path] = value


def moving(before: bytes, after: bytes) -> frozenset[str]:
    """Paths in which two direct answers differ."""
    one, two = leaves(before), leaves(after)
    return frozenset(key for key in one.keys() | two.keys() if one.get(key) != two.get(key))


def different(direct: bytes, through: bytes, apart: frozenset[str]) -> tuple[str, ...]:
    """Paths in which an answer differs from the direct one, those of `apart` left out."""
    return tuple(sorted(moving(direct, through) - apart))


def plain(path: str) -> str:
    """A path without the places in lists, for people."""
    return ".".join(part for part in path.split(".") if part and not part.isdigit())
