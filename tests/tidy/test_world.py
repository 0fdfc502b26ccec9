"""Only `rim` and `crypto` touch the world (DESIGN §2, "Why pure machines").

Reading the time, drawing randomness, sleeping, making a key, opening a socket or starting a
process anywhere else would be invisible to the simulator and to the tests that turn the clock.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "holdfast"
EXEMPT = frozenset({"rim", "crypto"})

MODULES_BANNED = frozenset(
    {
        "time",
        "random",
        "secrets",
        "uuid",
        "socket",
        "ssl",
        "select",
        "selectors",
        "subprocess",
        "multiprocessing",
        "http.client",
        "http.server",
        "urllib.request",
        "httpx",
        "requests",
        "OpenSSL",
    }
)

CALLS_BANNED = frozenset(
    {
        "asyncio.sleep",
        "asyncio.timeout",
        "asyncio.timeout_at",
        "asyncio.wait_for",
        "asyncio.open_connection",
        "asyncio.open_unix_connection",
        "asyncio.start_server",
        "asyncio.start_unix_server",
        "asyncio.create_subprocess_exec",
        "asyncio.create_subprocess_shell",
        "datetime.now",
        "datetime.utcnow",
        "datetime.today",
        "date.today",
        "os.fork",
        "os.urandom",
        "os.getrandom",
        "os.times",
        "threading.Timer",
    }
)
"""Matched against the last two parts of a dotted name, through any alias."""

ATTRIBUTES_BANNED = frozenset(
    {
        "call_at",
        "call_later",
        "create_connection",
        "create_datagram_endpoint",
        "create_server",
        "create_unix_server",
        "generate",
        "generate_private_key",
        "utcnow",
    }
)
"""Methods that touch the world whatever object they are called on."""


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or attribute; a call in the middle reads as its function."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Call):
        return dotted(node.func)
    return "?"


def _aliases(tree: ast.Module) -> dict[str, str]:
    """Local name -> dotted origin of everything imported."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.asname:
                    names[name.asname] = name.name
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                names[name.asname or name.name] = f"{node.module}.{name.name}"
    return names


def _banned_module(name: str) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:length]) in MODULES_BANNED for length in range(1, len(parts) + 1))


def _imports(node: ast.AST) -> list[str]:
    """Banned modules that an import statement brings in."""
    if isinstance(node, ast.Import):
        return [name.name for name in node.names if _banned_module(name.name)]
    if isinstance(node, ast.ImportFrom) and not node.level:
        named = [f"{node.module}.{name.name}" for name in node.names]
        return [name for name in named if _banned_module(name)]
    return []


def _use(node: ast.Attribute | ast.Name, aliases: dict[str, str]) -> str:
    """The banned thing that an expression names; empty when none."""
    name = dotted(node)
    head, _, rest = name.partition(".")
    if head in aliases:
        name = f"{aliases[head]}.{rest}" if rest else aliases[head]
    parts = name.split(".")
    if ".".join(parts[-2:]) in CALLS_BANNED:
        return name
    if isinstance(node, ast.Attribute):
        if node.attr in ATTRIBUTES_BANNED:
            return name
        if node.attr == "time" and "loop" in dotted(node.value).split(".")[-1]:
            return name
    return ""


def violations(source: str) -> list[str]:
    """Uses of the world in one module's text."""
    tree = ast.parse(source)
    aliases = _aliases(tree)
    found = []
    for node in ast.walk(tree):
        found += [f"{getattr(node, 'lineno', 0)}: imports {name}" for name in _imports(node)]
        if isinstance(node, ast.Attribute | ast.Name) and (use := _use(node, aliases)):
            found.append(f"{node.lineno}: uses {use}")
    return found


def test_only_rim_and_crypto_touch_the_world() -> None:
    """DESIGN §2: nothing outside `rim` and `crypto` reads time, draws, sleeps or connects."""
    found = [
        f"{path.relative_to(SRC)}:{text}"
        for path in sorted(SRC.rglob("*.py"))
        if path.relative_to(SRC).parts[0] not in EXEMPT
        for text in violations(path.read_text())
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from time import monotonic",
        "import time as clock",
        "import random",
        "from random import randint",
        "import secrets",
        "import uuid",
        "from uuid import uuid4",
        "import socket",
        "import ssl",
        "import subprocess",
        "import urllib.request",
        "from urllib import request",
        "import os\nos.urandom(3)",
        "from os import urandom\nurandom(3)",
        "import asyncio\nasyncio.sleep(1)",
        "import asyncio as aio\naio.wait_for(x, 1)",
        "from asyncio import sleep\nsleep(1)",
        "from asyncio import timeout as limit\nlimit(1)",
        "import datetime\ndatetime.datetime.now()",
        "import datetime as dt\ndt.datetime.now(dt.UTC)",
        "from datetime import datetime\ndatetime.now()",
        "from datetime import datetime as D\nD.utcnow()",
        "from datetime import date\ndate.today()",
        "loop.call_later(1, f)",
        "asyncio.get_running_loop().call_at(1, f)",
        "loop.time()",
        "self._loop.time()",
        "asyncio.get_running_loop().time()",
        "Ed25519PrivateKey.generate()",
        "ec.generate_private_key(ec.SECP256R1())",
        "asyncio.open_connection('h', 1)",
        "loop.create_server(f)",
        "schedule = loop.call_later",
        "import threading\nthreading.Timer(1, f)",
    ],
)
def test_a_planted_use_is_found(source: str) -> None:
    assert violations(source)


@pytest.mark.parametrize(
    "source",
    [
        "from datetime import datetime, UTC\ndatetime.fromtimestamp(1.0, UTC)",
        "await clock.sleep(1)",
        "now = clock.elapsed()",
        "async with clock.timeout(3): pass",
        "import asyncio\nasyncio.create_task(f())\nasyncio.Event()",
        "row.time",
        "import urllib.parse",
    ],
)
def test_a_clock_that_was_passed_in_is_allowed(source: str) -> None:
    assert violations(source) == []
