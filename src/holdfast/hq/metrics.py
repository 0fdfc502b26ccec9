"""Figures of the fleet for Prometheus: what heartbeats, rows and alerts say, as they stand.

Nodes speak outbound only, so headquarters is scraped for all of them: `GET /metrics` on the
operator's port, with the key of anybody who may look (a participant's is enough). Labels are
roles, tiers, states, kinds and logical names of servers, all bounded; no member, device, slot or
tag is ever one. A server's own counters are on a socket of its directory (`relay.metrics`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from holdfast import __version__
from holdfast.hq.brain_view import FleetView, ServerView
from holdfast.limits.operating import METRIC_SERVERS_MAX
from holdfast.logic.fleet.alarm import AlertRow
from holdfast.logic.fleet.alerts import Kind, Severity
from holdfast.logic.fleet.model import Role, Tier
from holdfast.logic.fleet.rows import ServerState

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Figures(msgspec.Struct, frozen=True):
    """What a scrape shows, taken on the event loop at one moment. Times are Unix seconds."""

    leading: bool
    term: int
    view: FleetView
    alerts: tuple[AlertRow, ...] = ()
    intermediate_expires_at: float = 0.0
    audit_sequence: int = 0
    log_size: int = 0
    cosigned_size: int = 0
    nodes: int = 0
    snapshots: Mapping[str, float] = {}
    """Shelf -> when it was last put on."""


def exposition(figures: Figures) -> bytes:
    """The page, in Prometheus' text format. Takes a third of a second for 3,000 servers: call it
    on a thread."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(figures))
    return generate_latest(registry)


class _Page(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        figures = self._figures
        yield from _headquarters(figures)
        yield from _fleet(figures.view)
        yield from _alerts(figures.alerts)
        servers = [s for s in figures.view.servers if s.state is ServerState.ACTIVE]
        if len(servers) <= METRIC_SERVERS_MAX:
            yield from _servers(servers)


# --- Families ------------------------------------------------------------------------------------
def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"holdfast_{name}", text, value=value)


def _labelled(
    name: str, text: str, label: str, values: Iterable[tuple[str, float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"holdfast_{name}", text, labels=[label])
    for key, value in values:
        family.add_metric([key], value)
    return family


def _headquarters(figures: Figures) -> Iterator[Metric]:
    build = GaugeMetricFamily("holdfast_build_info", "Version that runs.", labels=["version"])
    build.add_metric([__version__], 1)
    yield build
    yield _gauge("hq_leading", "1 while this headquarters decides.", figures.leading)
    yield _gauge("hq_term", "Newest term.", figures.term)
    frozen = figures.view.frozen
    yield _gauge("hq_frozen", "1 while headquarters suspects itself and orders nothing.", frozen)
    text = "When headquarters' certificate ends, Unix time."
    yield _gauge("hq_intermediate_expires_timestamp_seconds", text, figures.intermediate_expires_at)
    yield _gauge("nodes", "Nodes that are members.", figures.nodes)
    yield _gauge("log_leaves", "Leaves of the transparency log.", figures.log_size)
    text = "Leaves that the best cosigned checkpoint covers."
    yield _gauge("log_cosigned_leaves", text, figures.cosigned_size)
    lines = CounterMetricFamily("holdfast_audit_lines", "Lines of the audit log.")
    lines.add_metric([], figures.audit_sequence)
    yield lines
    text = "When a snapshot was last put there, Unix time."
    shelves = sorted(figures.snapshots.items())
    yield _labelled("snapshot_timestamp_seconds", text, "shelf", shelves)


def _fleet(view: FleetView) -> Iterator[Metric]:
    active = [server for server in view.servers if server.state is ServerState.ACTIVE]
    tiers = Counter((server.role, server.tier) for server in active)
    family = GaugeMetricFamily("holdfast_servers", "Servers with a node.", labels=["role", "tier"])
    for role in (Role.RELAY, Role.REPLICA, Role.ENTRY, Role.CORE):
        for tier in Tier:
            family.add_metric([role, tier], tiers[role, tier])
    yield family
    states = Counter(server.state for server in view.servers)
    text = "Logical servers, by whether they have a machine."
    yield _labelled("logical_servers", text, "state", [(s, states[s]) for s in ServerState])
    for name, text, count in (
        ("servers_silent", "Servers whose heartbeat is missed.", sum(s.silent for s in active)),
        ("servers_draining", "Servers that take no new group.", sum(s.draining for s in active)),
        ("servers_filling", "Servers not level with their peers.", _filling(active)),
        ("slots", "Slots.", len(view.slots)),
        ("groups", "Groups in all slots.", sum(slot.groups for slot in view.slots)),
        ("slot_relays_min", "Relays of the poorest slot.", view.relays_min),
        ("slot_replicas_min", "Filled replicas of the poorest slot.", view.replicas_min),
        ("diversity_debt_seats", "Seats that share a failure domain.", len(view.debts)),
    ):
        yield _gauge(name, text, count)
    text = "Slots by copies that serve: the lesser of relays and filled replicas."
    copies = Counter(min(s.relays, s.replicas) for s in view.slots)
    yield _labelled("slots_copies", text, "copies", [(str(n), copies[n]) for n in range(4)])
    states_of = Counter(provider.state for provider in view.providers)
    text = "Hosting providers by state."
    yield _labelled("providers", text, "state", [(s, states_of[s]) for s in ("up", "lost")])
    actions = Counter(intent.action for intent in view.intents)
    text = "Machines being ordered or given back."
    yield _labelled("intents_open", text, "action", [(a, actions[a]) for a in ("spawn", "reap")])


def _filling(servers: Iterable[ServerView]) -> int:
    return sum(server.role is Role.REPLICA and not server.filled for server in servers)


def _alerts(rows: tuple[AlertRow, ...]) -> Iterator[Metric]:
    """Open and not acknowledged; a series for each kind, so that 0 is seen as well."""
    kinds = Counter(row.kind for row in rows if not row.acknowledged_by)
    graves = Counter(row.severity for row in rows if not row.acknowledged_by)
    text = "Open alerts nobody has acknowledged."
    yield _labelled("alerts", text, "alert", [(kind, kinds[kind]) for kind in Kind])
    text = "The same by severity."
    yield _labelled("alerts_by_severity", text, "severity", [(s, graves[s]) for s in Severity])


_OF_A_SERVER: Final[tuple[tuple[str, str, Any], ...]] = (
    ("up", "1 while heartbeats come.", lambda s: not s.silent),
    ("sessions", "Open sessions.", lambda s: s.load.sessions),
    ("stored_bytes", "Bytes of blobs held.", lambda s: s.load.stored_bytes),
    ("free_bytes", "Room left for blobs.", lambda s: s.load.free_bytes),
    ("requests_per_second", "Requests a second.", lambda s: s.load.requests_per_s),
    ("commit_p99_seconds", "99th percentile of commits.", lambda s: s.load.commit_p99_ms / 1e3),
    ("busy_ratio", "Share of the machine's processors in use.", lambda s: s.load.busy),
    ("sent_bytes_per_second", "The machine's traffic out.", lambda s: s.load.sent_bytes_per_s),
    ("received_bytes_per_second", "Traffic in.", lambda s: s.load.received_bytes_per_s),
)


def _servers(servers: list[ServerView]) -> Iterator[Metric]:
    """What each server's last heartbeat said, by its logical name and role."""
    for name, text, value in _OF_A_SERVER:
        family = GaugeMetricFamily(f"holdfast_server_{name}", text, labels=["server", "role"])
        for server in servers:
            family.add_metric([server.name, server.role], float(value(server)))
        yield family
