"""One GET over a Unix socket: how a proxy's own counters are read."""

from __future__ import annotations

import asyncio
from typing import Final

from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock

_BODY_BYTES_MAX: Final = 4 * 1024 * 1024
_TIMEOUT_S: Final = 3.0


async def get(path: str, target: str, clock: Clock) -> bytes:
    """The body of `GET target` at the socket `path`. Raises OperationFault."""
    try:
        async with clock.real_timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(
                    f"GET {target} HTTP/1.0\r\nhost: x\r\nconnection: close\r\n\r\n".encode()
                )
                data = await reader.read(-1)
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise OperationFault(f"no answer from {path}") from error
    head, mark, body = data.partition(b"\r\n\r\n")
    if not mark or b" 200 " not in head.split(b"\r\n")[0] + b" " or len(body) > _BODY_BYTES_MAX:
        raise OperationFault(f"{path} does not answer {target}")
    return body
