"""What the composition root hangs on HQ's loopback port."""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette
from tests.web.real import RealFleet
from tests.web.serving import ask

from holdfast.rim.clock import Clock, ManualClock
from holdfast.rim.entropy import SeededEntropy
from holdfast.web.mount import mount


class Headquarters(RealFleet):
    """As much of it as a page needs."""

    def __init__(self) -> None:
        super().__init__()
        self._clock = ManualClock()

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def admin_address(self) -> str:
        return "127.0.0.1:8800"


def test_routes_task_and_link_fit_together() -> None:
    async def main() -> None:
        routes, run, link = mount(Headquarters(), SeededEntropy(3), command="holdfast login")
        app = Starlette(routes=routes)
        running = asyncio.ensure_future(run())
        url = link()
        assert url.startswith("http://127.0.0.1:8800/login?code=")
        entered = await ask(app, "GET", url.removeprefix("http://127.0.0.1:8800"))
        cookie = entered.headers["set-cookie"].split(";")[0]
        page = await ask(app, "GET", "/", cookie=cookie)
        assert "All 12 servers answer." in page.body
        assert "real.holdfast.test" in page.body
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
