"""A wire between two programs of a drill that can be cut: the faulty form of a TCP connection.

Bytes are passed on unread, so TLS goes through from end to end. A *cut* wire drops what is open and
then neither refuses nor answers, the way a dead route looks: connections are taken and hang.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from holdfast.wire.address import split_address

_PIECE: Final = 64 * 1024


class Wire:
    """Listens at `address` once started, and passes on to `target` (`host:port`)."""

    def __init__(self, target: str) -> None:
        self._target = split_address(target)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._whole = asyncio.Event()
        self._whole.set()

    async def start(self, host: str = "127.0.0.1") -> None:
        """Listen at a free port."""
        self._server = await asyncio.start_server(self._take, host, 0)

    @property
    def address(self) -> str:
        """Where the near end connects."""
        assert self._server is not None, "start it first"
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    @property
    def whole(self) -> bool:
        return self._whole.is_set()

    def cut(self) -> None:
        """From now on nothing passes."""
        self._whole.clear()
        for task in self._open:
            task.cancel()

    def mend(self) -> None:
        """New connections pass again."""
        self._whole.set()

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._carry(reader, writer)
        finally:
            self._open.discard(task)
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._whole.wait()
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        ways = [
            asyncio.create_task(_pump(reader, far_writer)),
            asyncio.create_task(_pump(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            far_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
