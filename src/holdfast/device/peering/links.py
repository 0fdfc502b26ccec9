"""Calls and their answers over one standing connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from holdfast.errors import HoldfastError, OperationFault, PeerFault
from holdfast.limits.peers import LINK_CALL_S, LINK_CALLS_MAX
from holdfast.rim.clock import Clock
from holdfast.rim.stream import Stream
from holdfast.wire.address import split_address
from holdfast.wire.codec import pack
from holdfast.wire.peers import Call, Return, parse_frame

Serve = Callable[["Link", Call], Awaitable[bytes]]
"""Answers a call, or raises HoldfastError."""


class Link:
    """A verified connection to `device`. `marks` are those it told last."""

    def __init__(
        self, stream: Stream, device: bytes, clock: Clock, serve: Serve, *, dialled: bool
    ) -> None:
        self.device = device
        self.dialled = dialled
        self.host = split_address(stream.peer)[0]
        self.local = stream.local
        self.marks: frozenset[bytes] = frozenset()
        self._stream = stream
        self._clock = clock
        self._serve = serve
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Return]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def call(
        self,
        to: bytes,
        path: tuple[bytes, ...],
        verb: str,
        body: bytes,
        wait_s: float = LINK_CALL_S,
    ) -> bytes:
        """Ask. Raises OperationFault when no answer comes, or the other side cannot."""
        self._number += 1
        number = self._number
        answer: asyncio.Future[Return] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with self._clock.real_timeout(wait_s):
                await self._stream.send(pack(Call(number, to, path, verb, body)))
                found = await answer
        except TimeoutError as error:
            raise OperationFault("a device did not answer in time") from error
        finally:
            self._waiting.pop(number, None)
            if answer.done() and not answer.cancelled():
                answer.exception()
        if found.code == "refused":
            raise PeerFault(found.body.decode(errors="replace")[:200], code="refused")
        if found.code:
            raise OperationFault(found.body.decode(errors="replace")[:200])
        return found.body

    async def run(self, idle_s: float) -> None:
        """Read until the other side ends, breaks the rules, or is silent for `idle_s` real
        seconds."""
        try:
            while True:
                frame = parse_frame(await self._stream.receive(idle_s))
                if isinstance(frame, Return):
                    waiting = self._waiting.get(frame.number)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(frame)
                elif frame.path[-1] != self.device:
                    raise PeerFault("call in another device's name", code="forbidden")
                else:
                    crowded = len(self._tasks) >= LINK_CALLS_MAX
                    task = asyncio.create_task(self._answer(frame, crowded=crowded))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        except (OperationFault, PeerFault):
            pass
        finally:
            self.close()

    def close(self) -> None:
        """End it; whoever waits for an answer learns that none comes."""
        self._stream.close()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(OperationFault("the connection ended"))
        for task in self._tasks:
            task.cancel()

    async def _answer(self, call: Call, *, crowded: bool) -> None:
        try:
            if crowded:
                raise OperationFault("too many calls at once")
            reply = Return(call.number, "", await self._serve(self, call))
        except OperationFault as fault:
            reply = Return(call.number, "unavailable", str(fault).encode())
        except HoldfastError as fault:
            reply = Return(call.number, "refused", str(fault).encode())
        try:
            await self._stream.send(pack(reply))
        except OperationFault:
            self._stream.close()
