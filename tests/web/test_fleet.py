"""The routes, asked as a browser, as a stranger and as an attacker would."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from html.parser import HTMLParser
from urllib.parse import quote

import msgspec
import pytest
from starlette.applications import Starlette
from tests.web import story
from tests.web.serving import Answer, ask

from holdfast.hq.brain_words import Kind
from holdfast.limits import LOGIN_SESSION_S, PAGE_FOUND_MAX, PAGE_STREAMS_MAX
from holdfast.rim.clock import ManualClock
from holdfast.rim.entropy import SeededEntropy
from holdfast.rim.usage import cpu_s
from holdfast.web import render, static
from holdfast.web.board import Board, Version
from holdfast.web.fleet import routes
from holdfast.web.grid import Lens
from holdfast.web.guard import is_loopback
from holdfast.web.login import Login
from holdfast.web.model import FleetPage


class Door:
    """An app and a way in."""

    def __init__(self, page: FleetPage) -> None:
        self.clock = ManualClock()
        self.stage = story.Stage(page)
        self.login = Login(self.clock, SeededEntropy(7), command="holdfast login")
        self.board = Board(self.stage, self.clock)
        self.app = Starlette(routes=routes(self.board, self.login))

    async def ask(self, method: str, target: str, **headers: str) -> Answer:
        return await ask(self.app, method, target, **headers)

    async def enter(self) -> str:
        """Sign in; the Cookie header."""
        link = self.login.link("http://127.0.0.1:8800").removeprefix("http://127.0.0.1:8800")
        answer = await self.ask("GET", link)
        assert answer.status == 200
        return answer.headers["set-cookie"].split(";")[0]


def play(script: Callable[[Door], Awaitable[None]], page: FleetPage | None = None) -> None:
    async def main() -> None:
        await script(Door(page or story.before()))

    asyncio.run(main())


PRIVATE = ("/", "/fleet/live", "/fleet/events", "/fleet.json")
PUBLIC = ("/healthz", "/login?code=x", "/assets/holdfast.css")


# --- Login ---------------------------------------------------------------------------------------
def test_nothing_without_a_session() -> None:
    async def script(door: Door) -> None:
        for path in PRIVATE:
            answer = await door.ask("GET", path)
            assert answer.status == 401
            assert "relay-" not in answer.body
            assert "holdfast login" in answer.body
        assert (await door.ask("POST", "/logout", origin="http://127.0.0.1:8800")).status == 401

    play(script)


def test_the_link_works_once() -> None:
    async def script(door: Door) -> None:
        link = door.login.link("http://127.0.0.1:8800")[len("http://127.0.0.1:8800") :]
        preview = await door.ask("HEAD", link)
        assert preview.status == 204, "a preview must not burn the code"
        first = await door.ask("GET", link)
        cookie = first.headers["set-cookie"]
        for part in ("HttpOnly", "SameSite=strict", "Path=/", f"Max-Age={int(LOGIN_SESSION_S)}"):
            assert part in cookie
        assert cookie.startswith("holdfast-8800=")
        again = await door.ask("GET", link)
        assert again.status == 403
        assert "set-cookie" not in again.headers
        assert door.login.refused == 1
        page = await door.ask("GET", "/", cookie=cookie.split(";")[0])
        assert page.status == 200
        assert "All 12 servers answer." in page.body

    play(script)


def test_sign_out_ends_the_session() -> None:
    async def script(door: Door) -> None:
        cookie = await door.enter()
        foreign = await door.ask("POST", "/logout", cookie=cookie, origin="http://evil.example")
        assert foreign.status == 403
        assert (await door.ask("GET", "/fleet.json", cookie=cookie)).status == 200
        gone = await door.ask("POST", "/logout", cookie=cookie, origin="http://127.0.0.1:8800")
        assert gone.status == 303
        assert (await door.ask("GET", "/fleet.json", cookie=cookie)).status == 401

    play(script)


# --- The door ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8800", "127.0.0.1.evil.example", "localhost.evil.example", "",
     "10.0.0.1", "127.0.0.1:8800@evil.example", "[::2]:80", "0.0.0.0", "127.0.0.1:x", "::1"],
)  # fmt: skip
def test_only_loopback_names_are_answered(host: str) -> None:
    """DNS rebinding: a name of the internet that points here is not us."""

    async def script(door: Door) -> None:
        cookie = await door.enter()
        for path in (*PRIVATE, *PUBLIC):
            answer = await door.ask("GET", path, host=host, cookie=cookie)
            assert answer.status == 421
        assert door.login.refused == 0, "a refused host must not reach the login"

    play(script)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8800", "127.9.8.7:1", "localhost:80", "LOCALHOST", "[::1]:80"]
)
def test_loopback_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "https://127.0.0.1:8800"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "cors"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "no-cors"},
    ],
)
def test_no_other_site_may_ask(headers: dict[str, str]) -> None:
    async def script(door: Door) -> None:
        cookie = await door.enter()
        for path in (*PRIVATE, *PUBLIC):
            assert (await door.ask("GET", path, cookie=cookie, **headers)).status == 403

    play(script)


def test_a_link_from_elsewhere_may_be_followed() -> None:
    async def script(door: Door) -> None:
        way = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
        assert (await door.ask("GET", "/", cookie=await door.enter(), **way)).status == 200

    play(script)


def test_every_answer_is_strict() -> None:
    async def script(door: Door) -> None:
        cookie = await door.enter()
        for path in ("/", "/fleet/live", "/fleet.json", *PUBLIC, "/assets/none.js"):
            headers = (await door.ask("GET", path, cookie=cookie)).headers
            assert headers["content-security-policy"].startswith("default-src 'self';")
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
            assert "access-control-allow-origin" not in headers
            kept = "assets" in path and "none" not in path
            assert headers["cache-control"] == ("no-cache" if kept else "no-store")

    play(script)


# --- Pages ---------------------------------------------------------------------------------------
def test_the_page_shows_the_fleet() -> None:
    async def script(door: Door) -> None:
        body = (await door.ask("GET", "/", cookie=await door.enter())).body
        for server in door.stage.page().servers:
            assert f'id="s-{server.name}"' in body
            assert server.node in body
        for text in ("Provider alder is lost.", "lost at", "starting", "black", "green"):
            assert text in body

    play(script, story.during())


def test_live_is_the_page_without_its_frame() -> None:
    async def script(door: Door) -> None:
        cookie = await door.enter()
        whole = (await door.ask("GET", "/", cookie=cookie)).body
        live = (await door.ask("GET", "/fleet/live", cookie=cookie)).body
        assert live.startswith("<main")
        assert live in whole

    play(script, story.after())


def test_entries_are_filtered_by_kind() -> None:
    async def script(door: Door) -> None:
        cookie = await door.enter()
        for kind in Kind:
            body = (await door.ask("GET", f"/fleet/live?kind={kind}", cookie=cookie)).body
            assert set(re.findall(r'data-kind="(\w+)"', body)) == {str(kind)}
            assert f'hx-get="/fleet/live?kind={kind}"' in body, "a live page keeps its filter"
        everything = (await door.ask("GET", "/fleet/live?kind=nonsense", cookie=cookie)).body
        assert len(re.findall(r"data-kind=", everything)) == len(door.stage.page().timeline)
        order = [int(n) for n in re.findall(r'id="e-(\d+)"', everything)]
        assert order == sorted(order, reverse=True), "newest first"

    play(script, story.after())


def test_json_is_the_page() -> None:
    async def script(door: Door) -> None:
        answer = await door.ask("GET", "/fleet.json", cookie=await door.enter())
        assert answer.headers["content-type"] == "application/json"
        assert msgspec.json.decode(answer.body, type=FleetPage) == door.stage.page()

    play(script, story.during())


def test_names_cannot_become_markup() -> None:
    """Text that comes from others is text, wherever the page puts it."""
    evil = '"><script>alert(1)</script><i x="\u202e'
    page = story.during()
    page = msgspec.structs.replace(
        page,
        network=evil,
        servers=(msgspec.structs.replace(page.servers[0], name=evil, provider=evil, node=evil),),
        timeline=(msgspec.structs.replace(page.timeline[0], subject=evil, text=evil),),
        frozen=True,
        frozen_reason=evil,
    )

    async def script(door: Door) -> None:
        cookie = await door.enter()
        for target in ("/", "/?provider=%22%3E%3Cscript%3E&region=%3Cscript%3E"):
            body = (await door.ask("GET", target, cookie=cookie)).body
            assert "<script>" not in body
            assert "&lt;script&gt;" in body

    play(script, page)


class Rules(HTMLParser):
    """Collects what a strict policy and a screen reader would object to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "style" or "style" in given:
            self.found.append(f"inline style on {tag}")
        if tag == "script" and not given.get("src"):
            self.found.append("inline script")
        self.found += [f"handler {name}" for name in given if name.startswith("on")]
        for name in ("src", "href", "action"):
            value = given.get(name) or "/"
            if not value.startswith(("/", "#")) or value.startswith("//"):
                self.found.append(f"leaves the house: {value}")
        for name in ("aria-labelledby",):
            if given.get(name) and f'id="{given[name]}"' not in self.rawdata:
                self.found.append(f"{name} names nothing: {given[name]}")
        if given.get("id"):
            self.ids.append(given["id"] or "")


@pytest.mark.parametrize(
    "page", [story.before(), story.during(), story.after(), story.empty(), story.large(300)]
)
def test_pages_need_nothing_inline_and_nothing_from_outside(page: FleetPage) -> None:
    rules = Rules()
    rules.feed(render.fleet(Version(1, page, ()), Lens()))
    assert rules.found == []
    assert len(rules.ids) == len(set(rules.ids)), "an id twice"


def test_three_thousand_servers_in_a_fifth_of_a_second() -> None:
    page = story.large(3_000)
    version = Version(1, page, ())
    render.fleet(version, Lens())
    took = []
    for _ in range(5):
        start = time.perf_counter()
        body = render.fleet(version, Lens())
        took.append(time.perf_counter() - start)
    assert min(took) < 0.2, took
    assert len(body) < 700_000
    assert body.count("<i data-tier=") == 3_000


# --- Events --------------------------------------------------------------------------------------
def test_events_carry_versions_and_end_with_the_session() -> None:
    async def script(door: Door) -> None:
        token = (await door.enter()).partition("=")[2]
        pages = _pages(door)
        stream = pages._stream(token)
        assert await anext(stream) == b"retry: 2000\n\n"
        assert await anext(stream) == b"event: fleet\nid: 1\ndata: 1\n\n"
        assert door.board.streams == 1
        door.stage.turn(story.during())
        door.board._take()
        assert await anext(stream) == b"event: fleet\nid: 2\ndata: 2\n\n"
        door.login.leave(token)
        assert [chunk async for chunk in stream] == []
        assert door.board.streams == 0

    play(script)


def test_streams_are_capped() -> None:
    async def script(door: Door) -> None:
        cookie = await door.enter()
        door.board.streams = PAGE_STREAMS_MAX
        assert (await door.ask("GET", "/fleet/events", cookie=cookie)).status == 503

    play(script)


def _pages(door: Door):  # type: ignore[no-untyped-def]
    from holdfast.web.fleet import _Pages

    return _Pages(door.board, door.login)


# --- Assets --------------------------------------------------------------------------------------
def test_assets_are_a_closed_set() -> None:
    async def script(door: Door) -> None:
        for name in static.assets():
            answer = await door.ask("GET", f"/assets/{name}?{static.stamp()}")
            assert answer.status == 200
            assert "immutable" in answer.headers["cache-control"]
        for name in ("..%2ffleet.py", "../fleet.py", "nothing.js", "."):
            assert (await door.ask("GET", f"/assets/{name}")).status == 404

    play(script)


# --- A large fleet -------------------------------------------------------------------------------
def test_a_large_fleet_is_answered_quickly_and_in_part() -> None:
    """3,000 servers, 60,000 slots: each page in 200 ms of processor time, with few tiles."""

    async def script(door: Door) -> None:
        cookie = await door.enter()
        for path in ("/", "/fleet/live", "/?provider=elm&region=us", "/?find=elm", "/fleet.json"):
            times = []
            for _ in range(5):
                start = cpu_s()
                answer = await door.ask("GET", path, cookie=cookie)
                times.append(cpu_s() - start)
                assert answer.status == 200
            assert sorted(times)[2] < 0.2, (path, times)
            assert answer.body.count('class="tile"') <= PAGE_FOUND_MAX

    large = story.large()
    lines = tuple(
        msgspec.structs.replace(large.slots[n % 3_000], id=f"{n:032x}") for n in range(60_000)
    )
    play(script, msgspec.structs.replace(large, slots=lines))


def test_what_is_searched_for_is_found_in_whatever_is_said_of_it() -> None:
    async def script(door: Door) -> None:
        cookie = await door.enter()

        async def found(words: str) -> int:
            answer = await door.ask("GET", f"/?find={quote(words)}", cookie=cookie)
            assert answer.status == 200
            return answer.body.count('class="tile"')

        assert await found("relay-eu-0010") == 1
        assert await found("RELAY-EU-0010 elm") + await found("relay-eu-0010 alder") == 1
        assert await found("127.1.0.7:4433") == 1
        assert 0 < await found("black us") <= PAGE_FOUND_MAX
        assert await found("elm") == PAGE_FOUND_MAX
        assert await found("nothing of ours") == 0
        answer = await door.ask("GET", f"/?find={quote('<script>x' + 'y' * 500)}", cookie=cookie)
        assert "<script>x" not in answer.body
        assert "y" * 100 not in answer.body

    play(script, story.large())
