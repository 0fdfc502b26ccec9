"""From HQ's own view to the page: a provider is really lost, by the machine's reckoning."""

from __future__ import annotations

from itertools import groupby

import msgspec
from tests.logic.fleet_world import World
from tests.web.real import RealFleet

from holdfast.logic.fleet import events
from holdfast.logic.fleet.model import Tier
from holdfast.logic.fleet.rows import FreezeRow
from holdfast.rim.clock import ManualClock
from holdfast.web.board import Version
from holdfast.web.grid import Lens, grid
from holdfast.web.render import fleet as render_fleet
from holdfast.web.source import FleetPages, page_of
from holdfast.web.words import Tone, headline

STEPS_MAX = 400


def test_a_loss_as_hq_shows_it() -> None:
    """Seed 004 §4.1-4.4: calm, watched, failing, lost, whole again elsewhere, in this order."""
    real = RealFleet()
    page = page_of(real.view())
    assert headline(page).title == "All 12 servers answer."
    assert {line.name for line in page.providers} == set(real.world.providers)
    lost = real.world.providers[0]
    real.world.lose(lost)
    healed = f"Provider {lost} is lost; its work goes on elsewhere."
    pages = [page]
    while headline(page).title != healed:
        assert len(pages) < STEPS_MAX, headline(page)
        real.run(10)
        page = page_of(real.view())
        pages.append(page)
    tones = [tone for tone, _ in groupby(headline(page).tone for page in pages)]
    assert tones == [Tone.CALM, Tone.WATCH, Tone.FAILING, Tone.LOST, Tone.WATCH]
    titles = {headline(page).title for page in pages}
    assert f"HQ is watching 4 servers at {lost}." in titles
    assert f"Provider {lost} is lost." in titles
    assert max(len(page.spawns) for page in pages) == 4
    assert lost not in {spawn.provider for page in pages for spawn in page.spawns}
    assert page.debts, "two providers cannot be diverse for three"
    assert all(slot.whole for slot in page.slots)
    assert {server.tier for server in page.servers} == {Tier.GREEN}
    assert {str(entry.kind) for entry in page.timeline} == {"saw", "decided", "did"}


def test_a_replacement_is_drawn_where_it_will_stand() -> None:
    real = RealFleet()
    lost = real.world.providers[0]
    real.world.lose(lost)
    page = page_of(real.view())
    while not page.spawns:
        real.run(10)
        page = page_of(real.view())
    cells = [cell for row in grid(page, Lens()).rows for cell in row.cells]
    assert sum(len(cell.spawns) for cell in cells) == len(page.spawns)
    body = render_fleet(Version(1, page, ()), Lens())
    assert all(f'id="c-{spawn.id}"' in body for spawn in page.spawns)


def test_a_launch_shows_each_seat_once() -> None:
    """A first machine is its seat's own tile; it is not drawn a second time as a replacement."""

    real = RealFleet()
    real.world = World()
    real.world.step(events.Launch(real.world.providers, real.world.regions))
    real.run(5)
    page = page_of(real.view())
    assert len(page.servers) == 12
    assert page.spawns == ()
    assert headline(page).title == "No server answers yet."
    assert "12 servers are starting for the first time." in headline(page).details


def test_freeze_in_words() -> None:
    view = RealFleet().view()
    frozen = msgspec.structs.replace(view, freeze=FreezeRow(5.0, 8, 12, ("birch", "amber")))
    page = page_of(frozen)
    assert page.frozen
    text = " ".join(headline(page).details)
    assert "8 of 12 servers on amber and birch seem dead at once, so HQ suspects itself." in text


def test_the_same_view_is_the_same_page_but_for_the_time() -> None:
    clock = ManualClock()
    real = RealFleet()
    pages = FleetPages(real, clock)
    first = pages.page()
    clock.advance(7)
    second = pages.page()
    assert second.servers is first.servers
    assert second.at == first.at + 7
    real.run(60)
    assert pages.page().servers is not first.servers
