"""Users of a drill: each has a subscription, a client made from it, and refreshes as apps do.

A refresh starts the new configuration beside the old one and then switches, as clients that reload
do; the old process ends when its requests have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from holdfast.errors import HoldfastError, OperationFault
from holdfast.logic.access.xray_json import xray_json
from holdfast.rim.clock import Clock
from holdfast.rim.internet import expected, fetch
from holdfast.rim.process import Child
from holdfast.sim.access.ground import AccessGround

SIZE: Final = 5_000
STOP_S: Final = 2.0


class User:
    """One user. `first_port` and the one above it are its own."""

    def __init__(
        self,
        ground: AccessGround,
        clock: Clock,
        token: str,
        first_port: int,
        web: tuple[str, int],
    ) -> None:
        self._ground = ground
        self._clock = clock
        self.token = token
        self._ports = (first_port, first_port + 1)
        self._web = web
        self._turn = 0
        self._client: Child[Any] | None = None
        self._using = 0
        self.requests = 0
        self.failed = 0
        self.refreshes = 0
        self.digest = ""

    @property
    def port(self) -> int:
        """Where its client listens now."""
        return self._ports[self._turn % 2]

    async def refresh(self) -> bool:
        """Fetch the subscription and follow it; whether it had changed."""
        view = await self._ground.subscription(self.token)
        if view.digest == self.digest or not view.endpoints:
            return False
        port = self._ports[(self._turn + 1) % 2]
        name = f"user-{self._ports[0]}-{self._turn}"
        client = await self._ground.client(xray_json(view, socks_port=port), name)
        old, self._client = self._client, client
        self._turn += 1
        self.digest = view.digest
        self.refreshes += 1
        if old is not None:
            while self._using:
                await self._clock.sleep_real(0.02)
            await old.stop(self._clock, STOP_S)
        return True

    async def use(self) -> bool:
        """One small download by the client of now; whether it came through whole."""
        self._using += 1
        try:
            got = await asyncio.to_thread(fetch, ("127.0.0.1", self.port), self._web, SIZE, 10.0)
            good = got.digest == expected(SIZE)
        except OperationFault:
            good = False
        finally:
            self._using -= 1
        self.requests += 1
        self.failed += not good
        return good

    async def live(self, refresh_s: float, goes_on: Callable[[], bool]) -> None:
        """Use it without a break, and refresh every `refresh_s` real seconds."""
        refreshing = asyncio.create_task(self._refresh_often(refresh_s, goes_on))
        while goes_on():
            await self.use()
            await self._clock.sleep_real(0.02)
        await refreshing

    async def _refresh_often(self, refresh_s: float, goes_on: Callable[[], bool]) -> None:
        while goes_on():
            try:
                await self.refresh()
            except HoldfastError:
                continue
            await self._clock.sleep_real(refresh_s)
