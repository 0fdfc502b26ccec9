"""Redundancy over time: the lowest number of relays and replicas over all slots.

A step series that only notes changes. When it grows past its cap, neighbours are merged and keep
the lower value: a dip may lose its exact shape, never its depth.
"""

from __future__ import annotations

import msgspec

from holdfast.limits import PAGE_HISTORY_MAX


class Point(msgspec.Struct, frozen=True):
    """From Unix time `at` on, the poorest slot had this many."""

    at: float
    relays: int
    replicas: int


def staircase(points: tuple[Point, ...], now: float, replicas: bool) -> str:
    """An SVG path of the series up to `now`, in a box of 100 by 3.3 with 0 at its bottom.

    For readers without scripts; the others see the same drawn with axes.
    """
    if not points:
        return ""
    start, end = points[0].at, max(now, points[-1].at + 1.0)
    path = ""
    for point in points:
        x = 100 * (point.at - start) / (end - start)
        y = 3.15 - (point.replicas if replicas else point.relays)
        path += f"H{x:.2f}V{y:.2f}" if path else f"M{x:.2f} {y:.2f}"
    return path + "H100"


class History:
    """Notes points in order of time; `points` are oldest first."""

    def __init__(self, points_max: int = PAGE_HISTORY_MAX) -> None:
        assert points_max >= 4
        self._points: list[Point] = []
        self._points_max = points_max

    @property
    def points(self) -> tuple[Point, ...]:
        return tuple(self._points)

    def note(self, at: float, lowest: tuple[int, int] | None) -> None:
        """Take what is true at `at`; a clock that stepped back is held at the last point."""
        if lowest is None:
            return
        point = Point(max(at, self._points[-1].at) if self._points else at, *lowest)
        if self._points and self._lowest() == lowest:
            return
        self._points.append(point)
        if len(self._points) > self._points_max:
            self._merge()

    def _lowest(self) -> tuple[int, int]:
        return self._points[-1].relays, self._points[-1].replicas

    def _merge(self) -> None:
        """Halve the older half."""
        half = len(self._points) // 2 & ~1
        old, new = self._points[:half], self._points[half:]
        pairs = zip(old[::2], old[1::2], strict=True)
        self._points = [
            Point(a.at, min(a.relays, b.relays), min(a.replicas, b.replicas)) for a, b in pairs
        ] + new
