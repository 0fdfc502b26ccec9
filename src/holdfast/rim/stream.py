"""Frames over a plain TCP stream between devices that meet on a network.

    u32 length | frame

Nothing here is encrypted: what travels is sealed and signed by those who speak (pairings, letters).
A listener answers at most `connections_max` at once and gives each a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from holdfast.errors import OperationFault, PeerFault
from holdfast.rim.clock import Clock

_LENGTH: Final = 4


class Stream:
    """One connection. `send` and `receive` whole frames."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        clock: Clock,
        *,
        frame_bytes_max: int,
        frame_s: float,
    ) -> None:
        self._reader = reader
        self._writer = writer
        own = writer.get_extra_info("sockname") or ("",)
        self.local: str = own[0].removeprefix("::ffff:")
        """Our own host on this connection."""
        self._clock = clock
        self._bytes_max = frame_bytes_max
        self._frame_s = frame_s
        name = writer.get_extra_info("peername") or ("", 0)
        name = (name[0].removeprefix("::ffff:"), name[1])
        self.peer: str = f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
        """Where the other side seems to be."""

    async def send(self, frame: bytes) -> None:
        """Send one frame. Raises OperationFault."""
        assert len(frame) <= self._bytes_max
        try:
            async with self._clock.real_timeout(self._frame_s):
                self._writer.write(len(frame).to_bytes(_LENGTH, "big") + frame)
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise OperationFault(f"{self.peer} went away: {error!r}") from error

    async def receive(self, wait_s: float | None = None) -> bytes:
        """The next frame. Raises OperationFault when none comes, PeerFault for one too large."""
        try:
            async with self._clock.real_timeout(wait_s or self._frame_s):
                head = await self._reader.readexactly(_LENGTH)
                size = int.from_bytes(head, "big")
                if size > self._bytes_max:
                    raise PeerFault(f"frame of {size} bytes", code="too-large")
                return await self._reader.readexactly(size)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise OperationFault(f"{self.peer} went away") from error

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


Answer = Callable[[Stream], Awaitable[None]]


class Listener:
    """Listens on one address and gives every connection to `answer`."""

    def __init__(
        self,
        answer: Answer,
        clock: Clock,
        *,
        frame_bytes_max: int,
        frame_s: float,
        connections_max: int,
    ) -> None:
        self._answer = answer
        self._clock = clock
        self._bytes_max = frame_bytes_max
        self._frame_s = frame_s
        self._connections_max = connections_max
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.address = ""

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 picks one. Raises OperationFault."""
        try:
            self._server = await asyncio.start_server(self._serve, host, port)
        except OSError as error:
            why = f"cannot listen on {host}:{port}: {error.strerror}"
            raise OperationFault(why, retryable=False) from error
        bound = self._server.sockets[0].getsockname()[1]
        self.address = f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
        for writer in tuple(self._open):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= self._connections_max:
            writer.close()
            return
        self._open.add(writer)
        stream = Stream(
            reader, writer, self._clock, frame_bytes_max=self._bytes_max, frame_s=self._frame_s
        )
        try:
            await self._answer(stream)
        except (OperationFault, PeerFault):
            pass
        finally:
            self._open.discard(writer)
            writer.close()


async def connect(
    address: tuple[str, int], clock: Clock, *, frame_bytes_max: int, frame_s: float
) -> Stream:
    """A connection to (host, port). Raises OperationFault."""
    host, port = address
    try:
        async with clock.real_timeout(frame_s):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        reason = error.strerror or type(error).__name__
        raise OperationFault(f"cannot reach {host}:{port}: {reason}; is it still there?") from error
    return Stream(reader, writer, clock, frame_bytes_max=frame_bytes_max, frame_s=frame_s)
