"""Figures of one server in Prometheus' text format: counts and sums, never a tag, slot or name."""

from __future__ import annotations

from holdfast.logic.fleet.model import Load
from holdfast.relay.desk import Desk


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
        "commit_p99_milliseconds": load.commit_p99_ms,
        "writable": load.writable,
        "filled": filled,
        "slots": len(desk.seats),
        "watchers": len(desk.watchers),
        "rotten_blobs": store.rotten,
        "revocations_version": desk.revocations.version.n,
    }
    lines = []
    for name, value in gauges.items():
        lines.append(f"# TYPE holdfast_relay_{name} gauge")
        lines.append(f"holdfast_relay_{name} {float(value):g}")
    lines.append("# TYPE holdfast_relay_events_total counter")
    for event, count in sorted(desk.counts.items()):
        lines.append(f'holdfast_relay_events_total{{event="{event}"}} {count}')
    return "\n".join(lines) + "\n"
