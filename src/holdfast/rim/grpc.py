"""Unary gRPC calls over a Unix socket: what it takes to speak to a child process, and no more.

gRPC is HTTP/2 with a length before each message and the status in trailers; `h2` speaks the HTTP/2.
Messages are bytes here: whoever calls knows their protobuf.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock

REPLY_BYTES_MAX: Final = 64 * 1024 * 1024
"""Counters of 10,000 devices are about 2 MiB."""
CALL_S: Final = 10.0
_READ_BYTES: Final = 256 * 1024


class GrpcFault(OperationFault):
    """The other side answered with a status that is not OK."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"gRPC status {status}: {message}", retryable=False)
        self.status = status


class GrpcChannel:
    """One connection, one call at a time; opened anew when it breaks."""

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._turn = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter, Any] | None = None

    async def call(self, method: str, request: bytes) -> bytes:
        """The reply to `method` (`/package.Service/Method`). Raises OperationFault, GrpcFault."""
        async with self._turn:
            try:
                async with self._clock.real_timeout(CALL_S):
                    return await self._call(method, request)
            except (OSError, TimeoutError, EOFError) as error:
                self._drop()
                raise OperationFault(f"{method}: no answer from {self._path}") from error
            except GrpcFault:
                raise
            except BaseException:
                self._drop()
                raise

    async def close(self) -> None:
        """Let the connection go."""
        self._drop()

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Any]:
        from h2.config import H2Configuration
        from h2.connection import H2Connection

        if self._streams is None:
            reader, writer = await asyncio.open_unix_connection(self._path)
            connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
            connection.initiate_connection()
            connection.increment_flow_control_window(REPLY_BYTES_MAX)
            writer.write(connection.data_to_send())
            self._streams = reader, writer, connection
        return self._streams

    async def _call(self, method: str, request: bytes) -> bytes:
        from h2 import events

        reader, writer, connection = await self._open()
        stream = connection.get_next_available_stream_id()
        connection.send_headers(stream, _headers(method))
        body = b"\0" + len(request).to_bytes(4, "big") + request
        sent, reply, status, message = 0, bytearray(), -1, ""
        while True:
            sent += _send(connection, stream, body, sent)
            writer.write(connection.data_to_send())
            await writer.drain()
            data = await reader.read(_READ_BYTES)
            if not data:
                raise EOFError
            for event in connection.receive_data(data):
                if isinstance(event, events.DataReceived) and event.stream_id == stream:
                    reply += event.data
                    connection.acknowledge_received_data(event.flow_controlled_length, stream)
                    if len(reply) > REPLY_BYTES_MAX:
                        raise EOFError
                elif isinstance(event, events.ResponseReceived | events.TrailersReceived):
                    found = {str(name): str(value) for name, value in event.headers}
                    status = int(found.get("grpc-status", status))
                    message = found.get("grpc-message", message)
                elif isinstance(event, events.StreamEnded) and event.stream_id == stream:
                    writer.write(connection.data_to_send())
                    return _unwrap(bytes(reply), status, message)
                elif isinstance(event, events.StreamReset | events.ConnectionTerminated):
                    raise EOFError


def _headers(method: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]


def _send(connection: Any, stream: int, body: bytes, sent: int) -> int:
    """Send what the window allows of the rest of `body`; how much."""
    if sent == len(body):
        return 0
    done = 0
    while sent + done < len(body):
        room = min(connection.local_flow_control_window(stream), connection.max_outbound_frame_size)
        if not room:
            return done
        piece = body[sent + done : sent + done + room]
        done += len(piece)
        connection.send_data(stream, piece, end_stream=sent + done == len(body))
    return done


def _unwrap(reply: bytes, status: int, message: str) -> bytes:
    if status != 0:
        raise GrpcFault(status, message)
    if len(reply) < 5 or reply[0] != 0 or len(reply) != 5 + int.from_bytes(reply[1:5], "big"):
        raise OperationFault("a gRPC reply that is none", retryable=False)
    return reply[5:]
