"""What the Envoy of an entry and of a core runs with, as files that it watches.

Theory of operation. `bootstrap.json` is read once and names the others: listeners, clusters, and,
through them, routes (the secret paths), endpoints (the cores of a lane) and secrets (certificate,
key, whom to believe). Each of those is replaced by a rename, which Envoy notices; streams that are
under way keep what they began with. So renewal, rotation of paths and revocation restart nothing.

Who is believed on the hop from entry to core: a certificate of this network, not on the revocation
list, whose URI names exactly one of the nodes that headquarters listed for this cell. To everybody
else both look like the same web server (`cover`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from holdfast.access import files
from holdfast.access.cover import cover_routes
from holdfast.access.xray_config import LOOPBACK, PATH, SERVICE
from holdfast.limits.access import (
    CLIENT_WINDOW,
    CORE_HEALTH_FAILURES,
    CORE_HEALTH_PERIOD_S,
    CORE_HEALTH_TIMEOUT_S,
    ENVOY_CONNECTIONS_MAX,
    HOP_WINDOW,
    LOCAL_WINDOW,
    PANIC_PERCENT,
    PROXY_BUFFER_BYTES,
    Window,
)
from holdfast.limits.front import FRONT_CALL_REAL_S, FRONT_COPY_REAL_S, FRONT_STREAM_REAL_S
from holdfast.logic.access.choice import Target
from holdfast.logic.access.model import PathEpoch
from holdfast.wire.access import Lane
from holdfast.wire.address import split_address

Config = dict[str, Any]
LISTENERS: Final = "listeners.json"
CLUSTERS: Final = "clusters.json"
ROUTES: Final = "routes.json"
IDENTITY: Final = "identity.json"
PUBLIC: Final = "public.json"
"""What clients are shown: the owner's public certificate, or the node's own."""
TRUST: Final = "trust.json"
GROUPS: Final = ("X25519MLKEM768",)
"""Of the hop: nothing that a recording could be opened with later."""
FRONT: Final = "front"
LANE_HEADER: Final = "x-lane"
HEALTH_PATH: Final = "/.well-known/health"
_H2: Final = {
    "max_concurrent_streams": 4096,
    "use_oghttp2_codec": True,
}
"""The other codec, nghttp2, ends a connection after a thousand streams that were cut, and 33 more a
second. A tunnel's streams are a person's connections, which browsers cut; all else on it went too.
Envoy's own guard against floods of resets counts only requests that were not even finished."""
_TYPE: Final = "type.googleapis.com/envoy."
_TLS: Final = f"{_TYPE}extensions.transport_sockets.tls.v3."
_HTTP: Final = f"{_TYPE}extensions.upstreams.http.v3.HttpProtocolOptions"


class Front(NamedTuple):
    """The agent's loopback port for calls to headquarters, and the paths that lead there."""

    paths: tuple[str, ...]
    port: int


def endpoints_file(label: str) -> str:
    """The file with the cores of a lane."""
    return f"lane-{label}.json"


def bootstrap(name: str) -> Config:
    """What Envoy is started with."""
    return {
        "node": {"id": name, "cluster": "access"},
        "admin": {"address": {"pipe": {"path": files.ADMIN, "mode": 0o600}}},
        "dynamic_resources": {
            "lds_config": _watched(LISTENERS),
            "cds_config": _watched(CLUSTERS),
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_TYPE}extensions.resource_monitors.downstream_connections."
                        "v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": ENVOY_CONNECTIONS_MAX,
                    },
                }
            ]
        },
    }


def resources(items: Iterable[Config]) -> Config:
    """The body of a watched file."""
    return {"resources": list(items)}


# --- Secrets -------------------------------------------------------------------------------------
def identity(chain: str, key: str, name: str = "identity") -> Config:
    """Who we are: paths of the chain and the key, in PEM. The file is rewritten at each renewal."""
    return {
        "@type": f"{_TLS}Secret",
        "name": name,
        "tls_certificate": {
            "certificate_chain": {"filename": chain},
            "private_key": {"filename": key},
        },
    }


def trust(roots: str, uris: Sequence[str], crls: str, *, lenient: bool) -> Config:
    """Whom to believe: chains to `roots` (PEM text) whose SAN URI is one of `uris`.

    `lenient` (the listening side): others are let in as strangers, who see the cover site.
    """
    context: Config = {
        "trusted_ca": {"inline_string": roots},
        "match_typed_subject_alt_names": [
            {"san_type": "URI", "matcher": {"exact": uri}} for uri in (uris or ("holdfast://none",))
        ],
    }
    if crls:
        context["crl"] = {"inline_string": crls}
        context["only_verify_leaf_cert_crl"] = True
    if lenient:
        context["trust_chain_verification"] = "ACCEPT_UNTRUSTED"
    return {"@type": f"{_TLS}Secret", "name": "trust", "validation_context": context}


# --- Entry ---------------------------------------------------------------------------------------
def entry_listeners(
    host: str,
    port: int,
    domain: str,
    lanes: Mapping[str, int],
    core_domain: str,
    front: Front | None = None,
) -> list[Config]:
    """The clients' port, and a loopback port for each lane (label -> port)."""
    public = {
        "@type": f"{_TYPE}config.listener.v3.Listener",
        "name": "clients",
        "address": _address(host, port),
        "listener_filters": [_TLS_INSPECTOR],
        "listener_filters_timeout": "10s",
        "per_connection_buffer_limit_bytes": PROXY_BUFFER_BYTES,
        "filter_chains": [
            {
                "filter_chain_match": {"server_names": [domain]},
                "filters": [_http("paths", {"rds": _rds("paths")})],
                "transport_socket": _server_tls(),
                "transport_socket_connect_timeout": "10s",
            }
        ],
        "default_filter_chain": {
            "filters": [_http("cover", {"route_config": _routes("cover", _front_routes(front))})],
            "transport_socket": _server_tls(),
            "transport_socket_connect_timeout": "10s",
        },
    }
    return [public, *(_lane_listener(label, port, core_domain) for label, port in lanes.items())]


def entry_routes(epochs: Sequence[PathEpoch], front: Front | None = None) -> Config:
    """The routes file: every served epoch's two paths, the front, then the cover site."""
    routes: list[Config] = _front_routes(front)
    for epoch in epochs:
        routes.append(_to("xray-grpc", f"/{epoch.service_name()}/", f"/{SERVICE}/"))
        routes.append(_to("xray-xhttp", epoch.path(), PATH))
    kind = {"@type": f"{_TYPE}config.route.v3.RouteConfiguration"}
    return kind | _routes("paths", routes)


def entry_clusters(
    lanes: Iterable[str], core_domain: str, front: Front | None = None
) -> list[Config]:
    """The two inbounds of Xray, the cores of each lane, and our agent."""
    return [
        _local("xray-grpc", _pipe(files.XRAY_GRPC), h2=True),
        _local("xray-xhttp", _pipe(files.XRAY_XHTTP), h2=True),
        *(_lane_cluster(label, core_domain) for label in lanes),
        *_front_clusters(front),
    ]


def lane_endpoints(lane: Lane) -> Config:
    """The cores of a lane, by priority and weight."""
    levels: dict[int, list[Target]] = {}
    for target in lane.targets:
        levels.setdefault(target.priority, []).append(target)
    return {
        "@type": f"{_TYPE}config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": f"lane-{lane.label}",
        "endpoints": [
            {
                "priority": priority,
                "locality": {"zone": str(priority)},
                "lb_endpoints": [
                    {
                        "endpoint": {"address": _address(*split_address(target.address))},
                        "load_balancing_weight": target.weight,
                    }
                    for target in targets
                ],
            }
            for priority, targets in sorted(levels.items())
        ],
    }


def _lane_listener(label: str, port: int, core_domain: str) -> Config:
    proxy = {
        "@type": f"{_TYPE}extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": f"lane-{label}",
        "cluster": f"lane-{label}",
        "idle_timeout": "3600s",
        "max_connect_attempts": 4,
        "tunneling_config": {
            "hostname": f"{core_domain}:443",
            "headers_to_add": [{"header": {"key": LANE_HEADER, "value": label}}],
        },
    }
    return {
        "@type": f"{_TYPE}config.listener.v3.Listener",
        "name": f"lane-{label}",
        "address": _address(LOOPBACK, port),
        "per_connection_buffer_limit_bytes": PROXY_BUFFER_BYTES,
        "filter_chains": [{"filters": [{"name": "tcp", "typed_config": proxy}]}],
    }


def _lane_cluster(label: str, core_domain: str) -> Config:
    return {
        "@type": f"{_TYPE}config.cluster.v3.Cluster",
        "name": f"lane-{label}",
        "type": "EDS",
        "eds_cluster_config": {"eds_config": _watched(endpoints_file(label))},
        "connect_timeout": "2s",
        "per_connection_buffer_limit_bytes": PROXY_BUFFER_BYTES,
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": _UNBOUNDED,
        "common_lb_config": {"healthy_panic_threshold": {"value": PANIC_PERCENT}},
        "ignore_health_on_host_removal": True,
        "health_checks": [
            {
                "timeout": f"{CORE_HEALTH_TIMEOUT_S}s",
                "interval": f"{CORE_HEALTH_PERIOD_S}s",
                "no_traffic_interval": f"{CORE_HEALTH_PERIOD_S}s",
                "unhealthy_threshold": CORE_HEALTH_FAILURES,
                "healthy_threshold": 1,
                "reuse_connection": True,
                "http_health_check": {
                    "host": core_domain,
                    "path": HEALTH_PATH,
                    "codec_client_type": "HTTP2",
                },
            }
        ],
        "outlier_detection": {
            "consecutive_5xx": 3,
            "consecutive_gateway_failure": 3,
            "enforcing_consecutive_gateway_failure": 100,
            "interval": "1s",
            "base_ejection_time": "2s",
            "max_ejection_time": "30s",
            "max_ejection_percent": 100,
        },
        "transport_socket": {
            "name": "tls",
            "typed_config": {
                "@type": f"{_TLS}UpstreamTlsContext",
                "sni": core_domain,
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    "tls_params": {
                        "tls_minimum_protocol_version": "TLSv1_3",
                        "tls_maximum_protocol_version": "TLSv1_3",
                        "ecdh_curves": list(GROUPS),
                    },
                    "tls_certificate_sds_secret_configs": [_sds("identity", IDENTITY)],
                    "validation_context_sds_secret_config": _sds("trust", TRUST),
                },
            },
        },
        "typed_extension_protocol_options": {_HTTP_NAME: _h2_options(HOP_WINDOW)},
    }


# --- Core ----------------------------------------------------------------------------------------
def core_listeners(host: str, port: int, lane: str, front: Front | None = None) -> list[Config]:
    """The entries' port: tunnels for entries of the cell, the cover site for everybody else."""
    known = {"presented": True, "validated": True}
    tunnels = []
    for cluster, headers in (
        ("own", [{"name": LANE_HEADER, "string_match": {"exact": lane}}]),
        ("reserve", []),
    ):
        tunnels.append(
            {
                "match": {"connect_matcher": {}, "tls_context": known, "headers": headers},
                "route": {
                    "cluster": cluster,
                    "timeout": "0s",
                    "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
                },
            }
        )
    health = {
        "match": {"path": HEALTH_PATH, "tls_context": known},
        "direct_response": {"status": 200},
    }
    http = _http(
        "entries",
        {"route_config": _routes("entries", [*tunnels, health, *_front_routes(front)])},
        HOP_WINDOW,
    )
    http["typed_config"]["upgrade_configs"] = [{"upgrade_type": "CONNECT"}]
    http["typed_config"]["http2_protocol_options"]["allow_connect"] = True
    return [
        {
            "@type": f"{_TYPE}config.listener.v3.Listener",
            "name": "entries",
            "address": _address(host, port),
            "listener_filters": [_TLS_INSPECTOR],
            "listener_filters_timeout": "10s",
            "per_connection_buffer_limit_bytes": PROXY_BUFFER_BYTES,
            "filter_chains": [
                {
                    "filters": [http],
                    "transport_socket": _server_tls(mutual=True),
                    "transport_socket_connect_timeout": "10s",
                }
            ],
        }
    ]


def core_clusters(xray_port: int, front: Front | None = None) -> list[Config]:
    """The owner's way to Xray, the way of all others, and our agent."""
    return [
        _local("own", _address(LOOPBACK, xray_port), h2=False),
        _local("reserve", _pipe(files.GATE), h2=False),
        *_front_clusters(front),
    ]


# --- Parts ---------------------------------------------------------------------------------------
def _http(name: str, routes: Config, window: Window = CLIENT_WINDOW) -> Config:
    manager = {
        "@type": f"{_TYPE}extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "server_name": "nginx",
        "stream_idle_timeout": "3600s",
        "request_headers_timeout": "10s",
        "max_request_headers_kb": 32,
        "generate_request_id": False,
        "use_remote_address": True,
        "normalize_path": True,
        "common_http_protocol_options": {"idle_timeout": "3600s", "max_headers_count": 64},
        "http2_protocol_options": _h2(window),
        "http_filters": [
            {
                "name": "router",
                "typed_config": {
                    "@type": f"{_TYPE}extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            }
        ],
        **routes,
    }
    return {"name": "http", "typed_config": manager}


def _routes(name: str, routes: list[Config]) -> Config:
    return {
        "name": name,
        "virtual_hosts": [
            {"name": "any", "domains": ["*"], "routes": [*routes, *cover_routes()]},
        ],
        "validate_clusters": False,
    }


def _front_routes(front: Front | None) -> list[Config]:
    """To our agent. `timeout` begins when the request is complete, so it ends no body that drips:
    the agent does that, and `max_stream_duration` ends whatever else is left."""
    if front is None:
        return []
    return [
        {
            "match": {"prefix": f"{path}/"},
            "route": {
                "cluster": FRONT,
                "prefix_rewrite": "/",
                "timeout": f"{FRONT_COPY_REAL_S:.0f}s",
                "idle_timeout": f"{2 * FRONT_CALL_REAL_S:.0f}s",
                "max_stream_duration": {"max_stream_duration": f"{FRONT_STREAM_REAL_S:.0f}s"},
            },
        }
        for path in front.paths
    ]


def _front_clusters(front: Front | None) -> list[Config]:
    if front is None:
        return []
    endpoint = {"endpoint": {"address": _address(LOOPBACK, front.port)}}
    return [
        {
            "@type": f"{_TYPE}config.cluster.v3.Cluster",
            "name": FRONT,
            "type": "STATIC",
            "connect_timeout": "2s",
            "per_connection_buffer_limit_bytes": PROXY_BUFFER_BYTES,
            "load_assignment": {
                "cluster_name": FRONT,
                "endpoints": [{"lb_endpoints": [endpoint]}],
            },
        }
    ]


def _to(cluster: str, prefix: str, rewritten: str) -> Config:
    return {
        "match": {"prefix": prefix},
        "route": {
            "cluster": cluster,
            "prefix_rewrite": rewritten,
            "timeout": "0s",
            "idle_timeout": "3600s",
        },
    }


def _local(name: str, address: Config, *, h2: bool) -> Config:
    cluster: Config = {
        "@type": f"{_TYPE}config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "per_connection_buffer_limit_bytes": PROXY_BUFFER_BYTES,
        "circuit_breakers": _UNBOUNDED,
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    if h2:
        cluster["typed_extension_protocol_options"] = {_HTTP_NAME: _h2_options(LOCAL_WINDOW)}
    return cluster


def _h2(window: Window) -> Config:
    return {
        **_H2,
        "initial_stream_window_size": window.stream_bytes,
        "initial_connection_window_size": window.connection_bytes,
    }


def _h2_options(window: Window) -> Config:
    return {
        "@type": _HTTP,
        "explicit_http_config": {"http2_protocol_options": _h2(window)},
    }


def _server_tls(*, mutual: bool = False) -> Config:
    shown = _sds("identity", IDENTITY) if mutual else _sds("public", PUBLIC)
    common: Config = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_2",
            "ecdh_curves": ["X25519MLKEM768", "X25519", "P-256"],
        },
        "tls_certificate_sds_secret_configs": [shown],
    }
    if mutual:
        common["validation_context_sds_secret_config"] = _sds("trust", TRUST)
    context: Config = {"@type": f"{_TLS}DownstreamTlsContext", "common_tls_context": common}
    if mutual:
        context["require_client_certificate"] = False
        context["disable_stateless_session_resumption"] = True
        context["disable_stateful_session_resumption"] = True
    return {"name": "tls", "typed_config": context}


def _address(host: str, port: int) -> Config:
    return {"socket_address": {"address": host, "port_value": port}}


def _pipe(path: str) -> Config:
    return {"pipe": {"path": path}}


def _watched(name: str) -> Config:
    return {
        "path_config_source": {
            "path": f"{files.HERE}/{name}",
            "watched_directory": {"path": files.HERE},
        },
        "resource_api_version": "V3",
    }


def _sds(name: str, file: str) -> Config:
    return {"name": name, "sds_config": _watched(file)}


def _rds(name: str) -> Config:
    return {"route_config_name": name, "config_source": _watched(ROUTES)}


_UNBOUNDED: Final[Config] = {
    "thresholds": [
        {
            "priority": priority,
            "max_connections": 65_536,
            "max_requests": 65_536,
            "max_pending_requests": 65_536,
            "max_retries": 1_024,
        }
        for priority in ("DEFAULT", "HIGH")
    ]
}
"""Envoy's own 1,024 at once are fewer than one entry's clients; descriptors bound it instead."""
_HTTP_NAME: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TLS_INSPECTOR: Final[Config] = {
    "name": "tls",
    "typed_config": {"@type": f"{_TYPE}extensions.filters.listener.tls_inspector.v3.TlsInspector"},
}
