"""One request to somebody else's HTTP API on this machine: what a benchmark asks its contenders."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Mapping

from holdfast.errors import OperationFault
from holdfast.wire.address import split_address

TIMEOUT_S = 60.0


async def ask(method: str, address: str, path: str, headers: Mapping[str, str]) -> bytes:
    """The body of a 200 answer. Raises OperationFault for anything else."""
    return await asyncio.to_thread(_ask, method, address, path, headers)


def _ask(method: str, address: str, path: str, headers: Mapping[str, str]) -> bytes:
    host, port = split_address(address)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, headers=dict(headers))
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise OperationFault(f"{address}{path}: {error}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise OperationFault(f"{address}{path} answered {answer.status}: {body[:200]!r}")
    return body
