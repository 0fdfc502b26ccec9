"""One page of text for programs of this machine, on a socket file of the service's own directory.

What must not be public (figures of a server) is readable by whoever may read its directory:

    curl --unix-socket <state>/metrics.sock http://localhost/metrics
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock

_HEAD_BYTES_MAX = 8 * 1024
_READ_S = 5.0
_SOCKET_NAME_MAX = 100
"""A socket's path fits 107 bytes; a longer one is reached through its open directory."""


class LocalPage:
    """Answers every GET on a socket file with the same page."""

    def __init__(self, path: Path, page: Callable[[], str], clock: Clock) -> None:
        self._path = path
        self._page = page
        self._clock = clock
        self._server: asyncio.Server | None = None
        self._directory = -1

    async def start(self) -> None:
        """Listen, in place of whatever was left behind. Raises OperationFault."""
        try:
            self._path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._answer, path=self._name())
            self._path.chmod(0o600)
        except OSError as error:
            raise OperationFault(f"cannot listen at {self._path}: {error}") from error

    async def stop(self) -> None:
        """Close and remove the socket file."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        self._path.unlink(missing_ok=True)
        if self._directory >= 0:
            os.close(self._directory)

    def _name(self) -> str:
        text = str(self._path.absolute())
        if len(os.fsencode(text)) <= _SOCKET_NAME_MAX:
            return text
        self._directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._directory}/{self._path.name}"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._clock.real_timeout(_READ_S):
                head = await reader.readuntil(b"\r\n\r\n")
                good = head.startswith(b"GET ") and len(head) <= _HEAD_BYTES_MAX
                body = self._page().encode() if good else b""
                status = "200 OK" if good else "400 Bad Request"
                writer.write(
                    f"HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4\r\n"
                    f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
                )
                writer.write(body)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()
