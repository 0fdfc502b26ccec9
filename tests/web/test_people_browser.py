"""Two devices paired by their pages alone, copies and risks shown (issue 5)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect
from starlette.applications import Starlette
from tests.device.world import Fleet
from tests.fabric.world import FAST
from tests.relay.harness import Pool
from tests.web.test_browser import SCREENS, SIZES, browser

from holdfast.device.agent import Agent
from holdfast.device.face import Front
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.sharing import share
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.loopback_server import LoopbackServer
from holdfast.web.login import Login
from holdfast.web.people import routes

pytestmark = [pytest.mark.browser, pytest.mark.system]


class Served:
    """A device with its agent and its page."""

    def __init__(self, runtime: DeviceRuntime) -> None:
        self.agent = Agent(runtime)
        self.front = Front(runtime, self.agent)
        self.front.listen = ("127.0.0.1", 0)
        self.login = Login(SystemClock(), SystemEntropy(), command="holdfast device start")
        self.server = LoopbackServer(Starlette(routes=routes(self.front, self.login)))
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.agent.start("127.0.0.1", 0)
        await self.server.start("127.0.0.1", 0)
        self._task = asyncio.create_task(self.front.run())

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.front.close()
        await self.server.stop()
        await self.agent.stop()

    async def visit(self, chromium: Browser, wrong: list[str], size: str) -> Page:
        width, height = SIZES[size]
        context = await chromium.new_context(viewport={"width": width, "height": height})
        page = await context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        url = f"http://{self.server.address}"
        await page.goto(self.login.link(url))
        await page.wait_for_url(f"{url}/")
        return page


def test_two_devices_are_paired_by_their_pages_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet, browser() as chromium:
                ada, _ = await fleet.device("ada")
                bob, _ = await fleet.device("bob")
                (tmp_path / "diary").mkdir()
                (tmp_path / "diary" / "one.txt").write_bytes(b"dear diary")
                group = await share(ada, tmp_path / "diary", "diary")
                await ada.folders[group.id].sync()
                both = Served(ada), Served(bob)
                try:
                    for served in both:
                        await served.start()
                    await pair(chromium, *both)
                finally:
                    for served in both:
                        await served.stop()

    asyncio.run(main())


async def pair(chromium: Browser, ada: Served, bob: Served) -> None:
    wrong: list[str] = []
    at_ada = await ada.visit(chromium, wrong, "desktop")
    at_bob = await bob.visit(chromium, wrong, "phone")
    await expect(at_ada.locator("#risk")).to_contain_text("at risk", timeout=60_000)
    await expect(at_ada.locator("#folders")).to_contain_text("plaintext")
    await at_ada.locator("#wait").click()
    code = await at_ada.locator("#code").inner_text()
    address = (await at_ada.locator("#at").inner_text()).split(" or ")[0]
    await expect(at_ada.locator(".qr svg")).to_be_visible()
    SCREENS.mkdir(parents=True, exist_ok=True)
    await at_ada.screenshot(path=SCREENS / "people-waiting.png", full_page=True)
    await at_bob.locator("[name=code]").fill(code)
    await at_bob.locator("[name=at]").fill(address)
    await at_bob.locator("#meet").click()
    words = await at_bob.locator("#words").inner_text()
    assert len(words.split()) == 5
    await expect(at_ada.locator("#words")).to_have_text(words, timeout=30_000)
    await expect(at_ada.locator("#friends")).to_contain_text("bob")
    await expect(at_bob.locator("#friends")).to_contain_text("ada")
    await expect(at_ada.locator("#risk")).to_contain_text("at least two", timeout=90_000)
    await at_ada.screenshot(path=SCREENS / "people-desktop.png", full_page=True)
    await at_bob.screenshot(path=SCREENS / "people-phone.png", full_page=True)
    await at_bob.locator("[name=code]").fill("no-code")
    await at_bob.locator("#meet").click()
    await expect(at_bob.locator("#trouble")).to_contain_text("address")
    assert wrong == []
