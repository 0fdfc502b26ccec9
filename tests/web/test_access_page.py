"""The operator's page of the access layer: a real headquarters, a real browser (seed 000)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from playwright.async_api import Browser, expect
from starlette.applications import Starlette
from tests.hq.headquarters import Operator, run
from tests.hq.test_access import World
from tests.web.test_browser import SCREENS, SIZES, browser

from holdfast.cli.hq_serve import web_page
from holdfast.hq.access_admin import AccessState, StandingOrder
from holdfast.hq.brain_view import FleetView, ServerView
from holdfast.hq.main import Headquarters
from holdfast.logic.access.model import Cell, CellState, Core, Entry, ExitPolicy, Member, Standing
from holdfast.logic.access.subscription import Usage
from holdfast.logic.fleet.model import Load, Role, Tier
from holdfast.logic.fleet.rows import ServerState, TokenRow
from holdfast.rim.loopback_server import LoopbackServer
from holdfast.web.access import MEMBERS_SHOWN_MAX, Shown, page_of

NOW = 1_795_700_000.0
CALM = "Every cell is well"
ENTRY = Entry("entry-eu-001", b"e" * 32, "c1", "eu", "ada", ("127.0.0.1:443",))
CORE = Core("core-eu-001", b"c" * 32, "c1", "eu", "ada", ("127.0.0.1:444",), load=0.4)
CELL = Cell("c1", "c1.example.net", "core.example.net", (), NOW)


def shown(**changes: object) -> Shown:
    state = AccessState(
        cells=(CELL,),
        entries=(ENTRY,),
        cores=(CORE,),
        members=(),
        devices=(),
        usage={},
        verdicts={"c1": "fine"},
    )
    gone = changes.pop("gone", "")
    servers = tuple(server(node.name, node.name == gone) for node in (ENTRY, CORE))
    view = FleetView(1, NOW, "", "", 1, 1.0, servers, (), (), (), None, (), (), 3, 3)
    return Shown(msgspec.structs.replace(state, **changes), view, (), NOW)


def server(name: str, silent: bool) -> ServerView:
    return ServerView(
        name=name,
        role=Role(name.split("-")[0]),
        region="eu",
        provider="home",
        owner="ada",
        state=ServerState.ACTIVE,
        tier=Tier.GREEN,
        tier_at=NOW,
        first_failed_at=0.0,
        node="",
        addresses=(),
        seated_at=NOW,
        filled=True,
        draining=False,
        silent=silent,
        slots=0,
        groups=0,
        witnesses=0,
        load=Load(),
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, CALM),
        ({"cells": ()}, "There is no cell yet"),
        ({"verdicts": {"c1": "name-blocked"}}, "Look at c1"),
        ({"cells": (msgspec.structs.replace(CELL, state=CellState.ISOLATED),)}, "Look at c1"),
        (
            {"cells": (msgspec.structs.replace(CELL, state=CellState.RETIRED),)},
            "Every cell is well",
        ),
        ({"gone": ENTRY.name}, "Look at c1"),
        ({"gone": CORE.name}, "Look at c1"),
        ({"cores": (msgspec.structs.replace(CORE, draining=True),)}, "Look at c1"),
    ],
)
def test_the_worst_that_is_true_comes_first(changes: dict[str, object], words: str) -> None:
    assert page_of(shown(**changes)).title == words


def test_quotas_and_limits_are_said_in_words() -> None:
    policy = ExitPolicy(reserve_bytes=10_000_000_000)
    core = msgspec.structs.replace(CORE, policy=policy, reserve_used=2_500_000_000, total_used=5)
    members = (Member("a" * 16, quota_bytes=1_000), Member("b" * 16))
    usage = {"a" * 16: Usage(400, 550)}
    page = page_of(shown(cores=(core,), members=members, usage=usage))
    (line,) = [node for node in page.cells[0].nodes if node.role == "core"]
    assert (line.reserve, line.total) == ("2.5 GB of 10 GB", "5 B of no limit")
    first, second = page.members
    assert (first.used, first.share) == ("950 B of 1.0 kB", 0.95)
    assert (second.used, second.share) == ("0 B of no limit", -1.0)


def test_a_crowd_of_members_is_cut_and_counted() -> None:
    members = tuple(Member(f"{n:016d}") for n in range(MEMBERS_SHOWN_MAX + 7))
    page = page_of(shown(members=members))
    assert (len(page.members), page.members_left) == (MEMBERS_SHOWN_MAX, 7)


def test_only_tokens_of_nodes_to_be_that_are_still_good_are_shown() -> None:
    good = TokenRow(Role.CORE, "core-eu-002", "eu", "", "bob", "c1", NOW + 60)
    late = msgspec.structs.replace(good, expires_at=NOW - 1)
    pool = msgspec.structs.replace(good, cell="")
    page = page_of(msgspec.structs.replace(shown(), tokens=(good, late, pool)))
    assert page.tokens == (good,)


@pytest.mark.browser
@pytest.mark.system
def test_an_operator_sees_cells_members_and_tokens_and_nobody_else_does(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        world = World(hq, operator)
        await world.found()
        member = await world.member(owner="ada", quota_bytes=1_000)
        made = await world.device(member)
        other = await world.member()
        order = StandingOrder(Standing.SUSPENDED)
        path = f"/access/members/{other.id}/standing"
        await operator.call("POST", path, order, msgspec.Raw)
        await world.report(world.entry, 1, **{made.device: (300, 650)})
        await operator.token(role=Role.CORE, owner="carol", cell="c1")
        mounted = web_page(hq)
        assert mounted.link is not None
        server = LoopbackServer(Starlette(routes=list(mounted.routes)))
        await server.start("127.0.0.1", 0)
        try:
            async with browser() as chromium:
                for size in SIZES:
                    code = mounted.link().rpartition("/")[2]
                    await look(chromium, size, f"http://{server.address}", code, member.id)
        finally:
            await server.stop()

    run(scenario, tmp_path)


async def look(chromium: Browser, size: str, url: str, code: str, member: str) -> None:
    width, height = SIZES[size]
    context = await chromium.new_context(viewport={"width": width, "height": height})
    page = await context.new_page()
    stranger = await page.goto(f"{url}/access")
    assert stranger is not None
    assert stranger.status == 401
    assert "entry-eu-001" not in await page.content()
    await page.goto(f"{url}/{code}")
    await page.wait_for_url(f"{url}/")
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    await page.goto(f"{url}/access")
    for place, words in (
        ("#cells", "entry-eu-001"),
        ("#cells", "bob"),
        ("#members", member[:8]),
        ("#members", "950 B of 1.0 kB"),
        ("#members", "suspended"),
        ("#tokens", "carol"),
    ):
        await expect(page.locator(place)).to_contain_text(words)
    before = await page.locator(".note").first.inner_text()
    await expect(page.locator(".note").first).not_to_have_text(before, timeout=15_000)
    assert not wrong, wrong
    SCREENS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SCREENS / f"access-{size}.png", full_page=True)
    await context.close()
