"""The house has floors: a floor imports only floors below it (DESIGN §2).

The rules are data, the checker is forty lines, and each rule has a positive control: a planted
violation that must be found, so that a checker that has gone blind fails too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "holdfast"

FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"crypto"}),
    frozenset({"logic"}),
    frozenset({"wire"}),
    frozenset({"rim"}),
    frozenset({"fabric"}),
    frozenset(
        {"hq", "relay", "vault", "access", "home", "device", "node", "continuity"},
    ),
    frozenset({"web", "sim", "bot"}),
    frozenset({"cli"}),
)
"""Lowest first. Rooms that share a floor do not import each other."""

ROOT_MODULES = frozenset({"errors", "limits", "__init__"})
"""May be imported by everybody and import nobody of the house but each other."""

LOGIC_STDLIB = frozenset(
    {
        "__future__",
        "abc",
        "binascii",
        "bisect",
        "collections",
        "contextlib",
        "dataclasses",
        "enum",
        "fractions",
        "functools",
        "hashlib",
        "heapq",
        "hmac",
        "ipaddress",
        "itertools",
        "math",
        "operator",
        "posixpath",
        "re",
        "statistics",
        "string",
        "struct",
        "textwrap",
        "types",
        "typing",
        "unicodedata",
    }
)
"""The stdlib that touches no world. `logic` adds msgspec and `crypto.pure`, nothing else."""


def floor_of(room: str) -> int:
    """Index of the floor on which `room` stands."""
    for index, rooms in enumerate(FLOORS):
        if room in rooms:
            return index
    raise AssertionError(f"holdfast.{room} stands on no floor: add it to FLOORS or move it")


def imports(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, `from a import b` as `a.b`; relative ones resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                kept = parts[: len(parts) - node.level + 1]
                base = ".".join((*kept, base)) if base else ".".join(kept)
            for name in node.names:
                yield node.lineno, f"{base}.{name.name}"


def violations(source: str, module: str) -> list[str]:
    """What `module` (dotted, without `holdfast.`) imports that its floor forbids."""
    room = module.split(".")[0]
    package = "holdfast." + module.rpartition(".")[0] if "." in module else "holdfast"
    found = []
    for line, name in imports(ast.parse(source), package):
        head, _, rest = name.partition(".")
        if head == "holdfast":
            reason = _house(room, rest or "__init__")
        elif room == "logic" and head != "msgspec" and head not in LOGIC_STDLIB:
            reason = f"logic may not import {head}"
        else:
            continue
        if reason:
            found.append(f"{module}:{line}: {reason}")
    return found


def _house(room: str, target: str) -> str:
    """Why `room` may not import holdfast.`target`; empty when it may."""
    other = target.split(".")[0]
    if other in ROOT_MODULES or other == room or other == "__version__":
        return ""
    if room in ROOT_MODULES:
        return f"a root module imports holdfast.{target}"
    if room == "__main__":
        return "" if other == "cli" else f"__main__ imports holdfast.{target}"
    if room == "logic":
        pure = target == "crypto.pure" or target.startswith("crypto.pure.")
        return "" if pure else f"logic may import crypto.pure only, not holdfast.{target}"
    if floor_of(other) < floor_of(room):
        return ""
    return f"{room} (floor {floor_of(room)}) imports {other} (floor {floor_of(other)})"


def modules() -> list[tuple[str, Path]]:
    """(dotted name, path) of every module of the product."""
    named = []
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        if len(parts) > 1 and parts[-1] == "__init__":
            parts = (*parts[:-1], "__init__")
        named.append((".".join(parts), path))
    return named


def test_the_house_obeys_its_floors() -> None:
    """DESIGN §2: the floors and the one-way arrows."""
    found = [text for name, path in modules() for text in violations(path.read_text(), name)]
    assert not found, "\n".join(found)


def test_every_room_stands_on_a_floor() -> None:
    rooms = {path.name for path in SRC.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms
    for room in rooms - ROOT_MODULES:
        floor_of(room)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("relay.port", "from holdfast.hq import brain"),
        ("hq.brain", "import holdfast.relay.port"),
        ("web.pages", "from holdfast.sim import world"),
        ("fabric.push", "from holdfast.device import folder"),
        ("rim.net", "from holdfast.fabric.session import Session"),
        ("wire.token", "from holdfast.rim.clock import Clock"),
        ("crypto.keys", "from holdfast.logic import effects"),
        ("logic.fleet.tiers", "from holdfast.crypto import keys"),
        ("logic.fleet.tiers", "from holdfast.crypto.keys import SigningKey"),
        ("logic.fleet.tiers", "import asyncio"),
        ("logic.fleet.tiers", "import cryptography"),
        ("logic.fleet.tiers", "from holdfast.wire import codec"),
        ("logic.fleet.tiers", "from ...wire import codec"),
        ("logic.fleet.tiers", "def f():\n    from holdfast.wire import codec"),
        ("node.agent", "from holdfast.cli import main"),
        ("errors", "from holdfast.wire import codec"),
    ],
)
def test_a_planted_arrow_is_found(module: str, source: str) -> None:
    assert violations(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("cli.up", "from holdfast.web import app\nfrom holdfast.hq import main"),
        ("logic.trust.merkle", "from holdfast.crypto.pure import hash_bytes"),
        ("logic.trust.merkle", "from holdfast.crypto import pure"),
        ("logic.fleet.tiers", "from . import model\nfrom ..effects import NOTHING"),
        ("relay.port", "from holdfast.rim.clock import Clock\nimport asyncio"),
        ("crypto.keys", "from holdfast.errors import PeerFault"),
    ],
)
def test_an_arrow_downwards_is_allowed(module: str, source: str) -> None:
    assert violations(source, module) == []
