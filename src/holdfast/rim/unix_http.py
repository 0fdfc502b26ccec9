"""One GET over a Unix socket: how a proxy's own counters are read."""

from __future__ import annotations

import asyncio
from typing import Final

import h11

from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock

BODY_BYTES_MAX: Final = 4 * 1024 * 1024
_TIMEOUT_S: Final = 3.0
_READ_BYTES: Final = 64 * 1024


async def get(path: str, target: str, clock: Clock) -> bytes:
    """The body of `GET target` at the socket `path`. Raises OperationFault."""
    try:
        async with clock.real_timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return await _get(reader, writer, target)
            finally:
                writer.close()
    except (OSError, TimeoutError, h11.RemoteProtocolError) as error:
        raise OperationFault(f"no answer from {path}") from error


async def _get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str) -> bytes:
    connection = h11.Connection(h11.CLIENT)
    headers = [("host", "localhost"), ("connection", "close")]
    request = h11.Request(method="GET", target=target, headers=headers)
    writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(event, h11.Response) and event.status_code != 200:
            raise OperationFault(f"{target}: status {event.status_code}")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > BODY_BYTES_MAX:
                raise OperationFault(f"{target}: more than {BODY_BYTES_MAX} bytes")
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            return bytes(body)
