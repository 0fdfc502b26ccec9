"""One call to a headquarters' admin port: as the owner of its directory, or as a named operator.

An operator's key is in HOLDFAST_OPERATOR_KEY. Who cannot read the directory says where the port is
in HOLDFAST_OPERATOR_AT: `host:port` on this machine, the near end of a tunnel for instance, or
`front://NODE[,NODE...]#FINGERPRINT`, the line that `holdfast hq front` prints: then the call goes
sealed through whichever of those nodes serves. With every headquarters gone, what is only looked at
is answered from the sealed copy that nodes keep, where HOLDFAST_COPY_IDENTITY names a key file that
opens it (`cli.hq_copy`); that it is a copy, and how old, is said on stderr.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Final, TypeVar

from holdfast.errors import OperationFault, UsageError
from holdfast.hq.gate import ACCEPTED
from holdfast.hq.home import HqHome
from holdfast.hq.operators import Waiting
from holdfast.hq.verbs import BASE
from holdfast.limits.front import FRONT_PATIENCE_REAL_S
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.front_client import SCHEME, FrontClient, bearer, parse_where
from holdfast.rim.loopback import LOOPBACK_REPLY_BYTES_MAX, LoopbackClient
from holdfast.wire.codec import pack_json, unpack_json

T = TypeVar("T")
COPY_VARIABLE: Final = "HOLDFAST_COPY_IDENTITY"
LOOK_PATIENCE_REAL_S: Final = 15.0
"""For a headquarters to answer, where a copy can: longer than another one takes to lead."""
KEY_VARIABLE: Final = "HOLDFAST_OPERATOR_KEY"
AT_VARIABLE: Final = "HOLDFAST_OPERATOR_AT"
_NAME: Final = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,255}")
_UNAUTHORIZED: Final = 401


def call_hq(home: Path, method: str, path: str, body: object, reply: type[T]) -> T:
    """One verb; `path` below /admin/v1. Raises OperationFault, and UsageError, also when the action
    waits for a second person."""
    status, data = _ask(home, method, path, body)
    if status == ACCEPTED:
        waiting = unpack_json(Waiting, data, bytes_max=LOOPBACK_REPLY_BYTES_MAX)
        raise UsageError(f"asked, and not done yet: it needs {waiting.needs}")
    return LoopbackClient.read(status, data, reply)


def call_own(home: Path, method: str, path: str, body: object, reply: type[T]) -> T:
    """As `call_hq`, at the headquarters in this directory whatever the environment says: for what
    must not be done by another one. Raises OperationFault, UsageError."""
    about = HqHome(home).admin()
    client = LoopbackClient(about.address, about.key, SystemClock())
    status, data = asyncio.run(client.exchange(method, BASE + path, body))
    return LoopbackClient.read(status, data, reply)


def read_hq(home: Path, path: str) -> bytes:
    """One page that is no JSON. Raises OperationFault, UsageError."""
    status, data = _ask(home, "GET", path, None)
    return data if status == 200 else LoopbackClient.read(status, data, bytes)


def part(name: str) -> str:
    """A name as a part of a path. Raises UsageError for what is no name of anything."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name; it has letters, digits, hyphens and dots")
    return name


def _ask(home: Path, method: str, path: str, body: object) -> tuple[int, bytes]:
    """Status and body, from the port itself or by way of nodes."""
    where, key = _where(home)
    if where.startswith(SCHEME):
        return asyncio.run(_through(where, key, method, BASE + path, body))
    client = LoopbackClient(where, key, SystemClock())
    status, data = asyncio.run(client.exchange(method, BASE + path, body))
    if status == _UNAUTHORIZED and os.environ.get(KEY_VARIABLE):
        raise UsageError(f"the key in {KEY_VARIABLE} opens nothing here; an owner makes another")
    return status, data


def _where(home: Path) -> tuple[str, str]:
    """(where the operator's port is, the key)."""
    key, where = os.environ.get(KEY_VARIABLE, ""), os.environ.get(AT_VARIABLE, "")
    if where.startswith(SCHEME) and not key:
        raise UsageError(
            f"{AT_VARIABLE} leads through nodes, and {KEY_VARIABLE} is empty; an owner makes a key "
            "with holdfast hq operator add"
        )
    if not (key and where):
        about = HqHome(home).admin()
        key, where = key or about.key, where or about.address
    return where, key


async def _through(where: str, key: str, method: str, path: str, body: object) -> tuple[int, bytes]:
    """By way of nodes. Raises OperationFault, PeerFault."""
    payload = b"" if body is None else pack_json(body)
    client = FrontClient(parse_where(where), SystemClock(), SystemEntropy())
    identity = os.environ.get(COPY_VARIABLE, "") if method == "GET" else ""
    patience_s = LOOK_PATIENCE_REAL_S if identity else FRONT_PATIENCE_REAL_S
    try:
        return await client.exchange(method, path, payload, bearer(key), patience_s=patience_s)
    except OperationFault as fault:
        if not identity:
            raise
        from holdfast.cli.hq_copy import (
            open_copy,  # a whole headquarters, which others need not load
        )

        copy = await open_copy(client, Path(identity))
        print(f"holdfast: {fault}; {copy.words(SystemClock().wall())}", file=sys.stderr, flush=True)
        return await copy.read(path)
    finally:
        await client.close()
