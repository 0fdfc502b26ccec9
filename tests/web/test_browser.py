"""The page in a real browser, before, during and after the loss of a provider.

Screenshots go to `out/screens/`; a person looks at them. Everything else is asserted: no console
message, no violation of the content policy, no request to anywhere else, updates without a
reload, a login link that works once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect
from tests.web import story
from tests.web.real import RealFleet
from tests.web.serving import Served, served

from holdfast.limits import PAGE_FOUND_MAX, PAGE_TIMELINE_MAX
from holdfast.web.board import PageSource
from holdfast.web.model import FleetPage
from holdfast.web.source import FleetPages, page_of
from holdfast.web.words import headline

pytestmark = [pytest.mark.browser, pytest.mark.system]

SCREENS = Path(__file__).parents[2] / "out" / "screens"
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZES = {"desktop": (1440, 900), "phone": (390, 844)}


class Visit(msgspec.Struct):
    """One browser on one page, with everything that went wrong in it."""

    page: Page
    context: BrowserContext
    served: Served
    stage: PageSource
    wrong: list[str]

    async def enter(self) -> None:
        """Follow a fresh login link and wait until the page is live."""
        await self.page.goto(self.served.login.link(self.served.url))
        await self.page.wait_for_url(f"{self.served.url}/")
        await expect(self.page.locator("#link")).to_have_text("Live")

    async def turn(self, new: FleetPage) -> None:
        """Change the fleet and wait until the page says so by itself."""
        assert isinstance(self.stage, story.Stage)
        self.stage.turn(new)
        await expect(self.page.locator("#state")).to_have_text(headline(new).title)


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield chromium
        finally:
            await chromium.close()


@asynccontextmanager
async def visit(
    chromium: Browser,
    first: FleetPage | PageSource,
    size: str = "desktop",
    scheme: str = "light",
    js: bool = True,
) -> AsyncIterator[Visit]:
    """A fresh browser profile on a fresh server; fails at the end if anything went wrong."""
    width, height = SIZES[size]
    stage = story.Stage(first) if isinstance(first, FleetPage) else first
    async with served(stage) as web:
        context = await chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
            java_script_enabled=js,
        )
        wrong: list[str] = []
        page = await context.new_page()
        page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        context.on(
            "request",
            lambda request: (
                None if request.url.startswith(web.url) else wrong.append(f"left: {request.url}")
            ),
        )
        try:
            yield Visit(page, context, web, stage, wrong)
        finally:
            await context.close()
    assert wrong == []


def play(script: Callable[[Browser], Awaitable[None]]) -> None:
    async def main() -> None:
        async with browser() as chromium:
            await script(chromium)

    asyncio.run(main())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_before_during_and_after(size: str, scheme: str) -> None:
    """Seed 004 §4.4 on one page, and the screenshots of it."""
    SCREENS.mkdir(parents=True, exist_ok=True)

    async def script(chromium: Browser) -> None:
        real = RealFleet()
        lost = real.world.providers[0]
        async with visit(chromium, FleetPages(real, real), size, scheme) as there:
            page = there.page
            await there.enter()
            await page.evaluate("window.still = 'the same document'")
            for name, title in (
                ("before", "All 12 servers answer."),
                ("watching", f"HQ is watching 4 servers at {lost}."),
                ("failing", f"4 servers at {lost} fail their checks."),
                ("during", f"Provider {lost} is lost."),
                ("after", f"Provider {lost} is lost; its work goes on elsewhere."),
            ):
                if name == "watching":
                    real.world.lose(lost)
                real.until(title)
                moment = page_of(real.view())
                await expect(page.locator("#state")).to_have_text(title)
                tiles = len(moment.servers + moment.spawns)
                await expect(page.locator(".tile")).to_have_count(tiles)
                entries = min(len(moment.timeline), PAGE_TIMELINE_MAX)
                await expect(page.locator(".entries li")).to_have_count(entries)
                await page.wait_for_function(_CHART_DRAWN)
                await page.evaluate(_SETTLED)
                shot = SCREENS / f"{name}-{size}-{scheme}.png"
                await page.screenshot(path=shot, full_page=True)
                assert await page.evaluate(_OVERFLOW) == [], f"wider than the window: {name}"
            assert await page.evaluate("window.still") == "the same document"

    play(script)


_CHART_DRAWN = """() => {
  const canvas = document.querySelector("#chart canvas");
  if (!canvas || !canvas.width) return false;
  const blank = document.createElement("canvas");
  [blank.width, blank.height] = [canvas.width, canvas.height];
  return canvas.toDataURL() !== blank.toDataURL();
}"""
_OVERFLOW = """() => document.documentElement.scrollWidth > document.documentElement.clientWidth
  ? [...document.querySelectorAll("body *")]
      .filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth)
      .map((e) => e.className || e.tagName)
  : []"""


def test_what_a_person_reads_during_the_loss() -> None:
    async def script(chromium: Browser) -> None:
        async with visit(chromium, story.before()) as there:
            page = there.page
            await there.enter()
            await there.turn(story.during())
            black = page.locator("#s-relay-ap-alder")
            await expect(black).to_contain_text("black")
            await expect(black).to_contain_text("failing since 14:00:36")
            await expect(page.locator("#c-intent0")).to_contain_text("starting")
            await expect(page.locator("#c-intent3")).to_contain_text("decided")
            await expect(page.locator("#p-alder")).to_contain_text("lost at 14:00:52")
            await expect(page.locator("[data-level=short]")).to_contain_text("8 slots")
            # A screen reader is told the headline, once.
            spoken = page.locator("#spoken")
            await expect(spoken).to_contain_text("Provider alder is lost. 4 of 12 servers")
            await expect(spoken).to_have_attribute("aria-live", "polite")
            assert "Provider alder is lost." in await page.title()
            await there.turn(story.after())
            await expect(page.locator(".debt")).to_contain_text("Diversity debt")
            await expect(page.locator("[data-level=full]")).to_contain_text("8 slots")

    play(script)


def test_the_filter_and_an_open_table_survive_updates() -> None:
    async def script(chromium: Browser) -> None:
        async with visit(chromium, story.before()) as there:
            page = there.page
            await there.enter()
            await page.get_by_role("link", name="Decided").click()
            await expect(page.locator("#link")).to_have_text("Live")
            await page.get_by_text("As a table").click()
            await there.turn(story.during())
            kinds = await page.locator(".entries .kind").all_inner_texts()
            assert set(kinds) == {"decided"}
            assert page.url.endswith("?kind=decided#timeline")
            await expect(page.locator(".table-of table")).to_be_visible()
            await expect(page.locator(".table-of tbody tr")).to_have_count(2)
            current = page.locator(".filters [aria-current]")
            await expect(current).to_contain_text("Decided")

    play(script)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(scheme: str) -> None:
    """WCAG 2.2, 1.4.3: text stands out from what is behind it, 4.5 to 1."""

    async def script(chromium: Browser) -> None:
        async with visit(chromium, story.before(), scheme=scheme) as there:
            await there.enter()
            for moment in (story.during(), story.after(), story.frozen(), story.large(120)):
                await there.turn(moment)
                await there.page.evaluate(_SETTLED)
                assert await there.page.evaluate(_FAINT) == []

    play(script)


_SETTLED = "Promise.all(document.getAnimations().map((a) => a.finished))"
_FAINT = """() => {
  const rgba = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = ([r, g, b, a], [R, G, B]) => [r, g, b].map((v, i) => v * a + [R, G, B][i] * (1 - a));
  const luminance = (c) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = c.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    const chain = [];
    for (; e; e = e.parentElement) chain.unshift(rgba(getComputedStyle(e).backgroundColor));
    return chain.reduce((under, colour) => over(colour, under), [255, 255, 255]);
  };
  const found = new Set();
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.nodeValue.trim());
    if (!own || e.closest(".hidden, .skip, noscript") || !e.getClientRects().length) continue;
    let opacity = 1;
    for (let up = e; up; up = up.parentElement) opacity *= getComputedStyle(up).opacity;
    const ground = behind(e);
    const ink = rgba(getComputedStyle(e).color);
    ink[3] *= opacity;
    const [a, b] = [luminance(over(ink, ground)), luminance(ground)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const what = `${e.tagName}.${e.className} ${e.textContent.trim().slice(0, 30)}`;
    if (ratio < 4.5) found.add(`${ratio.toFixed(2)} ${what}`);
  }
  return [...found];
}"""


def test_the_keyboard_reaches_everything() -> None:
    async def script(chromium: Browser) -> None:
        async with visit(chromium, story.after()) as there:
            page = there.page
            await there.enter()
            reached = []
            for _ in range(14):
                await page.keyboard.press("Tab")
                reached.append(
                    await page.evaluate(
                        "document.activeElement.getAttribute('aria-label')"
                        " || document.activeElement.innerText.split('\\n')[0]"
                    )
                )
            for name in ("Skip to the fleet", "Sign out", "Servers by provider and region",
                         "As a table", "All 18", "Saw 4", "Decided 4", "Did 10"):  # fmt: skip
                assert name in reached, (name, reached)
            assert reached[0] == "Skip to the fleet"
            # An update must not take the focus away.
            await page.get_by_role("link", name="Saw").focus()
            await there.turn(story.before())
            assert await page.evaluate("document.activeElement.innerText") == "Saw 0"

    play(script)


def test_the_login_link_works_once() -> None:
    async def script(chromium: Browser) -> None:
        async with visit(chromium, story.before()) as there:
            link = there.served.login.link(there.served.url)
            await there.page.goto(link)
            await there.page.wait_for_url(f"{there.served.url}/")
            await expect(there.page.locator("h1")).to_have_text("All 12 servers answer.")
            cookie = (await there.context.cookies())[0]
            assert cookie["httpOnly"]
            assert cookie["sameSite"] == "Strict"
            assert await there.page.evaluate("document.cookie") == ""
            other = await chromium.new_context()
            page = await other.new_page()
            answer = await page.goto(link)
            assert answer is not None
            assert answer.status == 403
            await expect(page.locator("h1")).to_have_text("This link is spent")
            await page.screenshot(path=SCREENS / "spent-desktop-light.png")
            await page.goto(there.served.url)
            await expect(page.locator("h1")).to_have_text("You are not signed in")
            await other.close()
            await there.page.get_by_role("button", name="Sign out").click()
            await expect(there.page.locator("h1")).to_have_text("You are not signed in")
            there.wrong.remove(_CONSOLE_401)

    SCREENS.mkdir(parents=True, exist_ok=True)
    play(script)


_CONSOLE_401 = (
    "error: Failed to load resource: the server responded with a status of 401 (Unauthorized)"
)
"""Chromium's own note about the page after signing out; it is the point of that step."""


def test_without_javascript_it_is_a_page() -> None:
    async def script(chromium: Browser) -> None:
        async with visit(chromium, story.during(), js=False) as there:
            page = there.page
            await page.goto(there.served.login.link(there.served.url))
            await (
                page.get_by_role("link", name="Go to the fleet")
                .or_(page.locator("#state"))
                .first.wait_for()
            )
            await page.goto(there.served.url)
            await expect(page.locator("#state")).to_have_text("Provider alder is lost.")
            await expect(page.locator("#link")).to_have_text(
                "Refreshes every 10 s", use_inner_text=True
            )
            await expect(page.locator(".tile")).to_have_count(16)
            await page.get_by_role("link", name="Saw").click()
            await expect(page.locator(".entries li")).to_have_count(4)
            await page.screenshot(path=SCREENS / "no-javascript-desktop-light.png", full_page=True)

    SCREENS.mkdir(parents=True, exist_ok=True)
    play(script)


def test_it_says_when_holdfast_is_gone() -> None:
    async def script(chromium: Browser) -> None:
        async with visit(chromium, story.before()) as there:
            await there.enter()
            await there.context.set_offline(True)
            there.served.login.leave((await there.context.cookies())[0]["value"])
            assert isinstance(there.stage, story.Stage)
            there.stage.turn(story.watching())  # the stream ends with the session
            await expect(there.page.locator("#link")).not_to_have_text("Live")
            await there.context.set_offline(False)
            await expect(there.page.locator("#link")).to_contain_text("Signed out", timeout=10_000)
            there.wrong.clear()  # Chromium notes every failed request; they were asked for

    play(script)


@pytest.mark.parametrize("size", list(SIZES))
def test_three_thousand_servers(size: str) -> None:
    SCREENS.mkdir(parents=True, exist_ok=True)

    async def script(chromium: Browser) -> None:
        async with visit(chromium, story.large(), size) as there:
            page = there.page
            await there.enter()
            await expect(page.locator(".marks i")).to_have_count(3_000)
            await page.screenshot(path=SCREENS / f"large-{size}-light.png", full_page=True)
            await page.locator("#p-elm .crowd-summary a").last.click()
            await expect(page.locator(".tile")).to_have_count(100)
            await expect(page.locator(".lens")).to_contain_text("Only elm in us.")
            await page.locator(".lens a").click()
            # What ails comes first, and is found by its words.
            assert await page.locator(".grid tbody th .provider").first.inner_text() == "elm"
            assert await page.locator(".marks i").first.get_attribute("data-tier") != "green"
            search = page.get_by_role("searchbox", name="Find servers")
            await search.fill("elm red")
            await search.press("Enter")
            await expect(page.locator(".lens")).to_contain_text("with “elm red”")
            tiles = page.locator(".tile")
            assert 0 < await tiles.count() <= PAGE_FOUND_MAX
            tiers = await tiles.evaluate_all("all => all.map((e) => e.dataset.tier)")
            assert set(tiers) == {"red"}
            await page.screenshot(path=SCREENS / f"large-found-{size}-light.png")
            # An update leaves the search, and what one is typing, alone.
            await search.fill("relay-eu-0")
            await there.turn(msgspec.structs.replace(story.large(), frozen=True))
            assert await search.input_value() == "relay-eu-0"
            await search.press("Enter")
            await expect(page.locator(".lens")).to_contain_text("relay-eu-0")
            await search.fill("no such server")
            await search.press("Enter")
            empty = page.locator(".fleet .empty")
            await expect(empty).to_have_text("No server is called like that.")
            assert await page.evaluate(_OVERFLOW) == []

    play(script)


def test_what_calls_for_a_person_is_on_the_page() -> None:
    """In words, with a command; nothing of it wider than a telephone."""
    SCREENS.mkdir(parents=True, exist_ok=True)

    async def script(chromium: Browser) -> None:
        for size in SIZES:
            first = msgspec.structs.replace(story.after(), alerts=story.ALERTS)
            async with visit(chromium, first, size) as there:
                page = there.page
                await there.enter()
                items = page.locator("#alerts li")
                await expect(items).to_have_count(len(story.ALERTS))
                await expect(items.first).to_contain_text("critical")
                await expect(items.first.locator(".step")).to_contain_text("holdfast hq servers")
                await expect(items.last).to_contain_text("seen by ann")
                await page.screenshot(path=SCREENS / f"alerts-{size}-light.png", full_page=True)
                assert await page.evaluate(_OVERFLOW) == []
                assert await page.evaluate(_FAINT) == []
                await there.turn(story.before())
                await expect(page.locator("#alerts")).to_have_count(0)

    play(script)
