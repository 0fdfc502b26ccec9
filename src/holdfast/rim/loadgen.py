"""Connections of a load generator: TLS, one exchange at a time, a callback instead of a future.

Built so that the generator costs as little as it can: what a benchmark shall measure is the server.
Both dialects go through the same code but for where an answer ends, so neither server is favoured.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final

from holdfast.errors import OperationFault
from holdfast.wire.address import split_address

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


class Link(asyncio.Protocol):
    """One connection. `on_answer(link, bytes)` is called once for each `send`."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._buffer = b""
        self.closed = False
        self.sent_at = 0.0
        self.number = 0
        """What was sent last, and when: the driver's notes."""
        self.stem = b""
        """What every request of this link starts with."""
        self.tail = b""
        """What every request of this link ends with."""
        self.group = 0
        self.on_answer: Callable[[Link, bytes], None] = lambda link, answer: None
        self.on_lost: Callable[[Link], None] = lambda link: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.on_lost(self)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while self._buffer and (size := self.measure(self._buffer)) > 0:
            answer, self._buffer = self._buffer[:size], self._buffer[size:]
            if self.counts(answer):
                self.on_answer(self, answer)

    def measure(self, data: bytes) -> int:
        """Bytes of the first whole message in `data`; 0 while it is incomplete."""
        raise NotImplementedError

    def counts(self, message: bytes) -> bool:
        """Whether a message is an answer, and not the server's own talk."""
        return True

    def send(self, request: bytes) -> None:
        """Send one request."""
        self._transport.write(request)

    def close(self) -> None:
        """Close at once."""
        self._transport.abort()

    async def ask(self, request: bytes) -> bytes:
        """Send and wait. Raises OperationFault when the connection ends first."""
        waiter: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def lost(link: Link) -> None:
            if not waiter.done():
                waiter.set_exception(OperationFault("the server hung up"))

        self.on_answer = lambda link, answer: waiter.set_result(answer)
        self.on_lost = lost
        if self.closed:
            lost(self)
        else:
            self.send(request)
        try:
            return await waiter
        finally:
            self.on_lost = lambda link: None


class HttpLink(Link):
    """HTTP/1.1 answers with a Content-Length."""

    def measure(self, data: bytes) -> int:
        end = data.find(_HEAD_END)
        if end < 0:
            return 0
        at = data.lower().find(_LENGTH, 0, end)
        if at < 0:
            raise OperationFault("an answer without a length")
        at += len(_LENGTH)
        size = end + len(_HEAD_END) + int(data[at : data.index(b"\r\n", at)])
        return size if len(data) >= size else 0


class NatsLink(Link):
    """The NATS client protocol: one line, and a payload after MSG."""

    def measure(self, data: bytes) -> int:
        end = data.find(b"\r\n")
        if end < 0:
            return 0
        size = end + 2
        if data.startswith(b"MSG "):
            size += int(data[data.rindex(b" ", 0, end) : end]) + 2
        return size if len(data) >= size else 0

    def counts(self, message: bytes) -> bool:
        if message.startswith(b"PING"):
            self.send(b"PONG\r\n")
        return not message.startswith((b"PING", b"INFO", b"+OK"))


async def dial(kind: type[Link], address: str, context: ssl.SSLContext | None) -> Link:
    """An open connection of that dialect; in the clear without `context`. Raises
    OperationFault."""
    host, port = split_address(address)
    try:
        _, link = await asyncio.get_running_loop().create_connection(
            kind, host, port, ssl=context, server_hostname=host if context else None
        )
    except OSError as error:
        raise OperationFault(f"cannot reach {address}: {error}") from error
    return link
