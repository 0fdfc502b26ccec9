"""Pages from templates. Values go in escaped; templates decide how things look and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import msgspec
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from holdfast.hq.brain_view import TimelineEntry
from holdfast.hq.brain_words import Kind
from holdfast.limits import PAGE_TIMELINE_MAX, RELAYS_PER_SLOT, REPLICAS_PER_SLOT
from holdfast.web import copies, static, words
from holdfast.web.board import Version
from holdfast.web.grid import Lens, grid, tier_counts
from holdfast.web.history import Point, staircase
from holdfast.web.model import ServerTile

if TYPE_CHECKING:
    import jinja2

_TEMPLATES: Final = Path(__file__).parent / "templates"


def clock_time(at: float) -> str:
    """`14:02:31`, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def iso_time(at: float) -> str:
    """`2026-11-21T14:02:31Z`, for the `datetime` attribute."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def day(at: float) -> str:
    """`21 November 2026`, UTC."""
    then = datetime.fromtimestamp(at, UTC)
    return f"{then.day} {then:%B %Y}"


def marks(servers: Iterable[ServerTile]) -> Markup:
    """A mark for each server: thousands of them, so no template is asked for each."""
    found = (
        f'<i data-tier="{escape(words.state_word(server))}" title="{escape(server.name)}"></i>'
        for server in servers
    )
    return Markup("".join(found))


@cache
def _environment() -> jinja2.Environment:
    import jinja2  # slow to load, and a headquarters starts before anybody looks

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(
        clock=clock_time,
        iso=iso_time,
        day=day,
        size=words.size,
        word=words.state_word,
        spawn_word=words.spawn_word,
        marks=marks,
    )
    environment.globals.update(
        count=words.count,
        stamp=static.stamp(),
        of_relays=RELAYS_PER_SLOT,
        of_replicas=REPLICAS_PER_SLOT,
    )
    return environment


def fleet(version: Version, lens: Lens, *, whole: bool = True) -> str:
    """The fleet page; `whole=False` gives only the part that lives."""
    page = version.page
    entries = [e for e in page.timeline if lens.kind is None or e.kind is lens.kind]
    template = _environment().get_template("fleet.html" if whole else "live.html")
    return template.render(
        page=page,
        number=version.number,
        lens=lens,
        headline=words.headline(page),
        figures=copies.figures(page),
        grid=grid(page, lens),
        tiers=tier_counts(page),
        levels=copies.levels(page),
        lowest=copies.lowest(page),
        owing_slots=len({debt.slot for debt in page.debts}),
        debtors=copies.debtors(page),
        series=series(version.history, page.at),
        relays_path=staircase(version.history, page.at, replicas=False),
        replicas_path=staircase(version.history, page.at, replicas=True),
        dips=version.history[:-13:-1],
        entries=entries[:PAGE_TIMELINE_MAX],
        kinds=_kinds(page.timeline, lens),
        url=lambda **changes: url(lens, **changes),
    )


def series(points: tuple[Point, ...], now: float) -> str:
    """The chart's data as JSON: [[times], [relays], [replicas]], ending now."""
    shown = list(points)
    if shown and now > shown[-1].at:
        shown.append(msgspec.structs.replace(shown[-1], at=now))
    columns = ([p.at for p in shown], [p.relays for p in shown], [p.replicas for p in shown])
    return msgspec.json.encode(columns).decode()


def _kinds(
    timeline: tuple[TimelineEntry, ...], lens: Lens
) -> list[tuple[str, Kind | None, int, bool]]:
    """(label, kind, entries, current) of each filter."""
    found: list[tuple[str, Kind | None, int, bool]] = [
        ("All", None, len(timeline), lens.kind is None)
    ]
    for kind in Kind:
        number = sum(1 for entry in timeline if entry.kind is kind)
        found.append((kind.capitalize(), kind, number, lens.kind is kind))
    return found


def url(lens: Lens, path: str = "/", **changes: str | Kind | None) -> str:
    """The address of `path` under `lens` with some of its fields changed."""
    fields = msgspec.structs.asdict(lens) | changes
    asked = {name: str(value) for name, value in fields.items() if value}
    return path + ("?" + urlencode(asked) if asked else "")


def page(template: str, **values: object) -> str:
    """A page of a device."""
    return _environment().get_template(template).render(**values)


def notice(status: int, title: str, text: str, command: str = "") -> HTMLResponse:
    """A page with one thing to say."""
    template = _environment().get_template("notice.html")
    return HTMLResponse(template.render(title=title, text=text, command=command), status)


def welcome() -> HTMLResponse:
    """The page between the login link and the fleet.

    It is not a redirect: a browser that followed the link from another site would not send a
    `SameSite=Strict` cookie along a redirect, but does on a step this page takes itself.
    """
    return HTMLResponse(_environment().get_template("welcome.html").render())
