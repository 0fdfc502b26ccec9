"""A day as one picture: redundancy over time, tiers over time, how long healing took. Plain SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from holdfast.sim.world.day import Day

WIDTH: Final = 960
HEIGHT: Final = 200
LEFT: Final = 70
TOP: Final = 34
GAP: Final = 60
COLOURS: Final = {
    "3": "#2b8a3e",
    "2": "#f2b134",
    "1": "#d9480f",
    "0": "#8b0000",
    "yellow": "#f2b134",
    "orange": "#e8590c",
    "red": "#c92a2a",
    "black": "#212529",
    "debt": "#1864ab",
    "heal": "#1864ab",
}
Points = Sequence[tuple[float, float]]


class Picture:
    """Charts under each other."""

    def __init__(self, title: str) -> None:
        self._parts: list[str] = [_text(LEFT, 20, title, size=15, weight="bold")]
        self._y = TOP

    def areas(self, title: str, layers: Sequence[tuple[str, Points]]) -> None:
        """Layers stacked upon each other; all have the same x."""
        xs = [x for x, _ in layers[0][1]]
        below = [0.0] * len(xs)
        top = max((sum(points[i][1] for _, points in layers) for i in range(len(xs))), default=1.0)
        self._axes(title, xs, top)
        for name, points in layers:
            above = [low + value for low, (_, value) in zip(below, points, strict=True)]
            outline = [self._at(x, y, xs, top) for x, y in zip(xs, above, strict=True)]
            outline += [self._at(x, y, xs, top) for x, y in zip(xs, below, strict=True)][::-1]
            corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in outline)
            self._parts.append(f'<polygon points="{corners}" fill="{COLOURS[name]}"/>')
            below = above
        self._legend([name for name, _ in layers])
        self._y += HEIGHT + GAP

    def lines(self, title: str, lines: Sequence[tuple[str, Points]]) -> None:
        """Lines over the same x."""
        xs = [x for x, _ in lines[0][1]]
        top = max((value for _, points in lines for _, value in points), default=1.0) or 1.0
        self._axes(title, xs, top)
        for name, points in lines:
            path = " ".join(
                f"{a:.1f},{b:.1f}" for a, b in (self._at(x, y, xs, top) for x, y in points)
            )
            style = f'fill="none" stroke="{COLOURS[name]}" stroke-width="1.6"'
            self._parts.append(f'<polyline points="{path}" {style}/>')
        self._legend([name for name, _ in lines])
        self._y += HEIGHT + GAP

    def bars(self, title: str, values: Sequence[float], width: float) -> None:
        """A histogram of seconds, in steps of `width`."""
        counts: dict[int, int] = {}
        for value in values:
            counts[int(value // width)] = counts.get(int(value // width), 0) + 1
        last = max(counts, default=0) + 1
        xs = [0.0, last * width / 3600.0]
        top = float(max(counts.values(), default=1))
        self._axes(title, xs, top, unit="s", scale=3600.0)
        for step, count in sorted(counts.items()):
            x, y = self._at(step * width / 3600.0, count, xs, top)
            right, floor = self._at((step + 1) * width / 3600.0, 0.0, xs, top)
            self._parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(1.0, right - x - 1):.1f}" '
                f'height="{floor - y:.1f}" fill="{COLOURS["heal"]}"/>'
            )
        self._y += HEIGHT + GAP

    def svg(self) -> str:
        """The whole picture."""
        size = f'width="{WIDTH + LEFT + 40}" height="{self._y}"'
        style = "font-family:system-ui,sans-serif;background:#fff"
        body = "\n".join(self._parts)
        return f'<svg xmlns="http://www.w3.org/2000/svg" {size} style="{style}">\n{body}\n</svg>\n'

    def _at(self, x: float, y: float, xs: Sequence[float], top: float) -> tuple[float, float]:
        span = (xs[-1] - xs[0]) or 1.0
        return LEFT + (x - xs[0]) / span * WIDTH, self._y + HEIGHT - y / (top or 1.0) * HEIGHT

    def _axes(
        self, title: str, xs: Sequence[float], top: float, unit: str = "h", scale: float = 1.0
    ) -> None:
        self._y += 10
        self._parts.append(_text(LEFT, self._y - 6, title, size=13, weight="bold"))
        floor = self._y + HEIGHT
        line = 'stroke="#adb5bd"'
        self._parts.append(
            f'<path d="M{LEFT} {self._y}V{floor}H{LEFT + WIDTH}" fill="none" {line}/>'
        )
        for part in range(5):
            value = top * part / 4
            y = floor - HEIGHT * part / 4
            self._parts.append(_text(LEFT - 6, y + 4, f"{value:,.0f}", anchor="end"))
        for part in range(9):
            x = xs[0] + (xs[-1] - xs[0]) * part / 8
            place = LEFT + WIDTH * part / 8
            self._parts.append(_text(place, floor + 16, f"{x * scale:.1f} {unit}", anchor="middle"))

    def _legend(self, names: Sequence[str]) -> None:
        x = LEFT + WIDTH - 110 * len(names)
        for name in names:
            y = self._y - 15
            self._parts.append(
                f'<rect x="{x}" y="{y}" width="10" height="10" fill="{COLOURS[name]}"/>'
            )
            self._parts.append(_text(x + 14, y + 9, name))
            x += 110


def draw_day(day: Day) -> str:
    """The picture of a day that has been run."""
    plan, series = day.plan, day.judge.series
    began = series[0][0]
    hours = [(at - began) / 3600.0 for at, *_ in series]
    picture = Picture(
        f"{plan.relays} servers, {plan.users:,} users, {plan.hours:g} hours, seed {plan.seed}"
    )
    picture.areas(
        "users by how many of their three relays answer",
        [
            (str(n), [(x, float(item[1][n])) for x, item in zip(hours, series, strict=True)])
            for n in (0, 1, 2, 3)
        ],
    )
    picture.lines("servers by tier, as headquarters sees them", _tiers(day, began, hours))
    debts = [(x, float(item[2])) for x, item in zip(hours, series, strict=True)]
    picture.lines("seats that owe diversity", [("debt", debts)])
    heals = heal_times(day)
    picture.bars(
        f"seconds from a failure to a seat that is filled again ({len(heals)})", heals, 30.0
    )
    return picture.svg()


def heal_times(day: Day) -> list[float]:
    """From the first failed probe to the new seat, of every seat that was RED or BLACK."""
    return [
        float(line.detail["failed_s"])
        for _, line in day.world.hq.audit
        if line.verb == "server.seated" and line.detail["was"] in ("red", "black")
    ]


def _tiers(day: Day, began: float, hours: Sequence[float]) -> list[tuple[str, Points]]:
    """How many servers are in each tier, at each hour of `hours`."""
    tiers = ("yellow", "orange", "red", "black")
    now: dict[str, str] = {}
    counts = dict.fromkeys(tiers, 0)
    lines: dict[str, list[tuple[float, float]]] = {tier: [] for tier in tiers}
    story = [
        (at, line.subject, line.verb.removeprefix("server.").replace("seated", "green"))
        for at, line in day.world.hq.audit
        if line.verb.removeprefix("server.") in (*tiers, "green", "seated")
    ]
    place = 0
    for hour in hours:
        while place < len(story) and (story[place][0] - began) / 3600.0 <= hour:
            _, name, tier = story[place]
            before = now.get(name, "green")
            if before in counts:
                counts[before] -= 1
            if tier in counts:
                counts[tier] += 1
            now[name] = tier
            place += 1
        for tier in tiers:
            lines[tier].append((hour, float(counts[tier])))
    return list(lines.items())


def _text(
    x: float, y: float, words: str, *, size: int = 11, anchor: str = "start", weight: str = "normal"
) -> str:
    look = f'font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" fill="#343a40"'
    escaped = words.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escaped}</text>'
