"""One call to a headquarters' admin port: as the owner of its directory, or as a named operator.

An operator's key is in HOLDFAST_OPERATOR_KEY. Who cannot read the directory says where the port is
in HOLDFAST_OPERATOR_AT: `host:port` on this machine, the near end of a tunnel for instance.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final, TypeVar

from holdfast.errors import UsageError
from holdfast.hq.gate import ACCEPTED
from holdfast.hq.home import HqHome
from holdfast.hq.operators import Waiting
from holdfast.hq.verbs import BASE
from holdfast.rim.clock import SystemClock
from holdfast.rim.loopback import LOOPBACK_REPLY_BYTES_MAX, LoopbackClient
from holdfast.wire.codec import unpack_json

T = TypeVar("T")
KEY_VARIABLE: Final = "HOLDFAST_OPERATOR_KEY"
AT_VARIABLE: Final = "HOLDFAST_OPERATOR_AT"


def call_hq(home: Path, method: str, path: str, body: object, reply: type[T]) -> T:
    """One verb; `path` below /admin/v1. Raises OperationFault, and UsageError, also when the action
    waits for a second person."""
    client = _client(home)

    async def call() -> T:
        status, data = await client.exchange(method, BASE + path, body)
        if status == ACCEPTED:
            waiting = unpack_json(Waiting, data, bytes_max=LOOPBACK_REPLY_BYTES_MAX)
            raise UsageError(f"asked, and not done yet: it needs {waiting.needs}")
        return client.read(status, data, reply)

    return asyncio.run(call())


def read_hq(home: Path, path: str) -> bytes:
    """One page that is no JSON. Raises OperationFault, UsageError."""
    client = _client(home)
    status, data = asyncio.run(client.exchange("GET", BASE + path, None))
    return data if status == 200 else client.read(status, data, bytes)


def _client(home: Path) -> LoopbackClient:
    key, where = os.environ.get(KEY_VARIABLE, ""), os.environ.get(AT_VARIABLE, "")
    if not (key and where):
        about = HqHome(home).admin()
        key, where = key or about.key, where or about.address
    return LoopbackClient(where, key, SystemClock())
