"""The role as the agent's child process: messages, a watchdog, an end.

A role that has said nothing for `SILENT_S` is hung (it owes a Status every few seconds) and is
killed; one that cannot be written to for `SEND_S` is hung too. Both are real seconds.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from typing import Final, cast

from holdfast.errors import OperationFault, PeerFault
from holdfast.rim.clock import Clock
from holdfast.rim.process import Child, spawn
from holdfast.wire.control import Begin, FromRole, ToRole

SILENT_S: Final = 60.0
SEND_S: Final = 10.0
STOP_GRACE_S: Final = 10.0

_log = logging.getLogger("holdfast.node.role")


class RoleProcess:
    """One run of the role."""

    def __init__(self, child: Child[FromRole], clock: Clock) -> None:
        self._child = child
        self._clock = clock

    @classmethod
    async def start(cls, command: Sequence[str], clock: Clock) -> RoleProcess:
        """Start the role; its log goes where ours goes. Raises OperationFault."""
        kind = cast("type[FromRole]", FromRole)
        return cls(await spawn(command, kind=kind), clock)

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
                await self._child.send(message)
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
