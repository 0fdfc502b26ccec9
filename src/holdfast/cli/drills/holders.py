"""Sessions that clients of a drill hold at seats whose server changes under them.

A session counts as dropped when it fails before its client has opened one at the successor.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from holdfast.cli.local import LocalNetwork
from holdfast.cli.tour import ground
from holdfast.errors import HoldfastError
from holdfast.fabric.session import Session
from holdfast.logic.fleet.model import Seat
from holdfast.rim.clock import Clock
from holdfast.rim.pool_client import PoolClient
from holdfast.sim.crowd import CrowdClient

ASK_S: Final = 0.1
"""Real seconds between two questions of one session."""


class Holder:
    """A client that keeps one session at whoever has a seat, and asks it something."""

    def __init__(
        self,
        client: CrowdClient,
        seat: Callable[[], Seat],
        network: LocalNetwork,
        clock: Clock,
    ) -> None:
        """`seat`: who has it by the record that the client follows."""
        self._client = client
        self._seat = seat
        self._network = network
        self._clock = clock
        self._held: tuple[bytes, PoolClient, Session] | None = None
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0
        self.why = ""
        """What the dropped session died of."""
        self.moved = 0

    async def start(self) -> None:
        """Open the session. Raises HoldfastError."""
        self._held = await self._open()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Let it go; `dropped` and `moved` stay."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._held is not None:
            await self._held[1].close()

    async def _run(self) -> None:
        """A record that names another node is followed before the old session is let go."""
        while self._held is not None:
            node, client, session = self._held
            try:
                await session.have([self._client.era.tag])
            except HoldfastError as error:
                self.dropped += 1
                self.why = f"{type(error).__name__}: {error}"
                return
            if self._seat().node != node:
                with contextlib.suppress(HoldfastError):  # the successor is not there yet
                    self._held = await self._open()
                    self.moved += 1
                    await client.close()
            await self._clock.sleep_real(ASK_S)

    async def _open(self) -> tuple[bytes, PoolClient, Session]:
        seat = self._seat()
        client = PoolClient(seat.addresses[0], roots=self._network.roots(), clock=self._clock)
        try:
            session = await Session.open(client, self._client.era.access, self._client.locator.slot)
        except BaseException:
            await client.close()
            raise
        return seat.node, client, session


async def hold(holders: Sequence[Holder]) -> None:
    """Open every session. Raises HoldfastError."""
    for holder in holders:
        await holder.start()


async def let_go(holders: Sequence[Holder]) -> tuple[int, int]:
    """End every session; (how many were dropped before, how many moves there were)."""
    for holder in holders:
        await holder.stop()
    return sum(holder.dropped for holder in holders), sum(holder.moved for holder in holders)


async def dropped_by_destroying(
    network: LocalNetwork, machine: str, holders: Sequence[Holder], clock: Clock
) -> int:
    """The control: sessions that are dropped when their machine is just destroyed."""
    await hold(holders)
    await ground.destroy(network, machine)
    await clock.sleep_real(10 * ASK_S)
    return (await let_go(holders))[0]
