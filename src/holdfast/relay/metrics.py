"""Figures of one server in Prometheus' text format: counts and sums, never a tag, slot or name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from holdfast.logic.fleet.model import Load
from holdfast.relay.desk import Desk

_TEXTS: Final = {
    "uptime_seconds": "Since this process began to serve.",
    "sessions": "Open sessions.",
    "groups": "Groups with blobs here.",
    "blobs": "Blobs held.",
    "stored_bytes": "Bytes of blobs held.",
    "free_bytes": "Room left for blobs.",
    "requests_per_second": "Requests a second.",
    "commit_p99_seconds": "99th percentile of the last commits.",
    "writable": "1 while it takes blobs.",
    "filled": "1 once it is level with its peers.",
    "slots": "Slots it serves.",
    "watchers": "Clients that wait for news.",
    "rotten_blobs": "Blobs whose bytes no longer fit their name.",
    "revocations_version": "Newest revocation list.",
}


def metrics_text(desk: Desk, load: Load, filled: bool, uptime_s: float) -> str:
    """The page for /metrics."""
    store = desk.store.figures()
    gauges: dict[str, float] = {
        "uptime_seconds": uptime_s,
        "sessions": load.sessions,
        "groups": load.groups,
        "blobs": load.blobs,
        "stored_bytes": load.stored_bytes,
        "free_bytes": load.free_bytes,
        "requests_per_second": load.requests_per_s,
        "commit_p99_seconds": load.commit_p99_ms / 1e3,
        "writable": load.writable,
        "filled": filled,
        "slots": len(desk.seats),
        "watchers": len(desk.watchers),
        "rotten_blobs": store.rotten,
        "revocations_version": desk.revocations.version.n,
    }
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(gauges, dict(desk.counts)))
    return generate_latest(registry).decode()


class _Page(Collector):
    def __init__(self, gauges: Mapping[str, float], counts: Mapping[str, int]) -> None:
        self._gauges = gauges
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        for name, value in self._gauges.items():
            yield GaugeMetricFamily(f"holdfast_relay_{name}", _TEXTS[name], value=value)
        events = CounterMetricFamily("holdfast_relay_events", "What happened.", labels=["event"])
        for event, count in sorted(self._counts.items()):
            events.add_metric([event], count)
        yield events
