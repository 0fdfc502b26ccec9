"""The role as the agent's child process: messages, a watchdog, an end.

A role that has said nothing for `SILENT_S` is hung (it owes a Status every few seconds) and is
killed; one that cannot be written to for `SEND_S` is hung too. Both are real seconds.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, cast

from holdfast.errors import OperationFault, PeerFault
from holdfast.rim.clock import Clock
from holdfast.rim.process import Child, spawn
from holdfast.wire.control import Begin, FromRole, ToRole, Warm
from holdfast.wire.versions import WIRE, at_wire

SILENT_S: Final = 60.0
SEND_S: Final = 10.0
STOP_GRACE_S: Final = 10.0

_log = logging.getLogger("holdfast.node.role")


class RoleProcess:
    """One run of the role."""

    def __init__(
        self, child: Child[FromRole], clock: Clock, wire: int = WIRE, release: bytes = b""
    ) -> None:
        """`release` is what it was started from; empty: what is installed."""
        self.release = release
        self._child = child
        self._clock = clock
        self._wire = wire

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        clock: Clock,
        environment: Mapping[str, str] | None = None,
        wire: int = WIRE,
        release: bytes = b"",
    ) -> RoleProcess:
        """Start the role, which speaks node wire `wire`; its log goes where ours goes. Raises
        OperationFault."""
        kind = cast("type[FromRole]", FromRole)
        child: Child[FromRole] = await spawn(command, kind=kind, environment=environment)
        return cls(child, clock, wire, release)

    async def warm(self, real_s: float) -> bool:
        """Whether a role that takes over says in time that it is warm."""
        try:
            async with self._clock.real_timeout(real_s):
                return isinstance(await self._child.receive(), Warm)
        except (TimeoutError, PeerFault) as error:
            _log.error("the new role: %s", error or "says nothing")
            return False

    def kill(self) -> None:
        """End it now."""
        self._child.kill()

    async def begin(self, options: Sequence[str]) -> None:
        """Tell a role that was started with `relay wait` what it is. Raises OperationFault."""
        await self._child.send(Begin(tuple(options)))

    @property
    def pid(self) -> int:
        return self._child.pid

    async def send(self, message: ToRole) -> None:
        """Tell the role something; one that does not listen is killed."""
        try:
            async with self._clock.real_timeout(SEND_S):
                await self._child.send(at_wire(message, self._wire))
        except OperationFault:
            _log.info("the role is gone before it could be told %s", type(message).__name__)
        except TimeoutError:
            _log.error("the role does not listen; killing it")
            self._child.kill()

    async def messages(self) -> AsyncIterator[FromRole]:
        """What the role says until it ends; garbage and silence end it."""
        while True:
            try:
                async with self._clock.real_timeout(SILENT_S):
                    message = await self._child.receive()
            except TimeoutError:
                _log.error("the role said nothing for %.0f s; killing it", SILENT_S)
                message = None
            except PeerFault as fault:
                _log.error("the role speaks garbage (%s); killing it", fault)
                message = None
            if message is None:
                return
            yield message

    async def end(self) -> int:
        """Wait for a role that closed its side, or that was told to stop; kill one that lingers.

        Returns the exit status, negative for a signal.
        """
        try:
            async with self._clock.real_timeout(STOP_GRACE_S):
                return await self._child.wait()
        except TimeoutError:
            self._child.kill()
            return await self._child.wait()

    async def stop(self) -> int:
        """Cut its lifeline and wait for its end."""
        return await self._child.stop(self._clock, STOP_GRACE_S)
