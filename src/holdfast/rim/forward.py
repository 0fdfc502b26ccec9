"""Forwarding from a Unix socket to a port, byte for byte under a meter.

A meter says how many of the bytes at hand may pass and when to go on reading. What may not pass is
not forwarded, and every connection is closed at that byte: a quota is cut exactly.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final, Protocol, cast

from holdfast.errors import OperationFault

HIGH_WATER: Final = 256 * 1024
"""Bytes kept for a slow side before the other is no longer read."""


class Meter(Protocol):
    """What a forwarder asks of its owner."""

    def pass_up(self, count: int) -> int:
        """How many of `count` bytes towards the target may pass; counted when this returns."""
        ...

    def pass_down(self, count: int) -> int:
        """The same for bytes back."""
        ...

    def wait_s(self) -> float:
        """Real seconds before more should be read; 0 to go on."""
        ...


class Forwarder:
    """Listens at a path and forwards each connection to a host and port."""

    def __init__(self, listen: Path, target: tuple[str, int], meter: Meter) -> None:
        self._listen = listen
        self._target = target
        self.meter = meter
        self._pairs: set[_Side] = set()
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Raises OperationFault when the path cannot be listened at."""
        loop = asyncio.get_running_loop()
        self._listen.unlink(missing_ok=True)
        try:
            self._server = await loop.create_unix_server(
                lambda: _Side(self, None), str(self._listen), backlog=4096
            )
        except OSError as error:
            raise OperationFault(f"cannot listen at {self._listen}: {error}") from error

    async def stop(self) -> None:
        """Serve nobody any more."""
        if self._server is not None:
            self._server.close()
        self.cut()

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._pairs) // 2

    def cut(self) -> int:
        """Close every connection, the targets' halves at once and the callers' when what passed has
        left; how many."""
        sides = list(self._pairs)
        for side in sides:
            side.end()
        return len(sides) // 2

    async def connect(self, side: _Side) -> None:
        """Find the other half of a new connection."""
        loop = asyncio.get_running_loop()
        try:
            _, other = await loop.create_connection(lambda: _Side(self, side), *self._target)
        except OSError:
            side.abort()
            return
        side.join(other)

    def note(self, side: _Side, *, open: bool) -> None:
        """Keep count of what is open."""
        (self._pairs.add if open else self._pairs.discard)(side)


class _Side(asyncio.Protocol):
    """One half. `towards` is set on the half that was dialled."""

    def __init__(self, forwarder: Forwarder, towards: _Side | None) -> None:
        self._forwarder = forwarder
        self._other = towards
        self._dialled = towards is not None
        self._transport: Any = None
        self._held: list[bytes] = []
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        cast(Any, transport).set_write_buffer_limits(high=HIGH_WATER)
        self._forwarder.note(self, open=True)
        if not self._dialled:
            self._task = asyncio.get_running_loop().create_task(self._forwarder.connect(self))

    def join(self, other: _Side) -> None:
        """The other half is there: hand over what came meanwhile."""
        self._other = other
        for data in self._held:
            self.data_received(data)
        self._held.clear()

    def data_received(self, data: bytes) -> None:
        if self._other is None:
            self._held.append(data)
            return
        meter = self._forwarder.meter
        allowed = (meter.pass_down if self._dialled else meter.pass_up)(len(data))
        if allowed:
            self._other.write(data if allowed == len(data) else data[:allowed])
        if allowed < len(data):
            self._other.finish()
            self._forwarder.cut()
            return
        wait_s = meter.wait_s()
        if wait_s > 0:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(wait_s, self._go_on)

    def _go_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def finish(self) -> None:
        """Let what was written leave, then close."""
        if self._transport is not None:
            self._transport.close()

    def end(self) -> None:
        """No more from here: what passed towards the caller is counted, so it may leave."""
        if self._dialled:
            self.abort()
        else:
            self.finish()

    def abort(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.abort()

    def pause_writing(self) -> None:
        if self._other is not None:
            self._other.hold()

    def resume_writing(self) -> None:
        if self._other is not None:
            self._other._go_on()

    def hold(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._forwarder.note(self, open=False)
        if self._other is not None:
            self._other.finish()
