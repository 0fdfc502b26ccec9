"""What the proxies are told: nothing private is left for, nobody unlisted is believed."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network

import pytest

from holdfast.access import envoy_config as envoy
from holdfast.access import proxies
from holdfast.access.cover import cover_routes
from holdfast.access.xray_config import PRIVATE, core_config, entry_config, exit_rules
from holdfast.limits.front import FRONT_COPY_REAL_S
from holdfast.logic.access.choice import Target
from holdfast.logic.access.model import ExitPolicy, PathEpoch
from holdfast.wire.access import Lane, User
from holdfast.wire.front import front_path

EPOCHS = (PathEpoch(1, b"11111111", 0.0), PathEpoch(2, b"22222222", 1.0))


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.9.8.7", "169.254.169.254", "192.168.1.1", "100.64.0.1", "::1", "fe80::1"],
)
def test_private_addresses_are_blocked_first(address: str) -> None:
    first = exit_rules(ExitPolicy())[0]
    assert first["action"] == "block"
    assert any(ip_address(address) in ip_network(net) for net in first["ip"])


def test_mail_is_blocked_unless_the_owner_says_otherwise() -> None:
    assert {"action": "block", "port": "25,465,587", "blockDelay": "0-0"} in exit_rules(
        ExitPolicy()
    )
    assert all("port" not in rule for rule in exit_rules(ExitPolicy(ports_denied=())))


def test_named_ports_only() -> None:
    rules = exit_rules(ExitPolicy(ports=(80, 443)))
    assert rules[-2:] == [
        {"action": "allow", "port": "80,443"},
        {"action": "block", "blockDelay": "0-0"},
    ]


def test_an_owner_cannot_open_private_ranges() -> None:
    policy = ExitPolicy(ports=(80,), networks_denied=("198.51.100.0/24",))
    assert exit_rules(policy)[0]["ip"] == list(PRIVATE)


def test_an_entry_leads_each_user_to_its_lane_and_nowhere_else() -> None:
    config = entry_config([User("d1", "id", "la")], {"la": 7001, "lb": 7002})
    assert config["outbounds"][0]["protocol"] == "blackhole"
    assert {rule["outboundTag"] for rule in config["routing"]["rules"]} == {"lane-la", "lane-lb"}
    assert config["inbounds"][0]["settings"]["clients"][0]["email"] == "d1@la"
    assert "freedom" not in json.dumps(config)


def test_no_log_of_who_went_where() -> None:
    for config in (entry_config([], {}), core_config(ExitPolicy(), 20_000)):
        assert config["log"]["access"] == "none"


def test_every_epoch_is_served_and_everything_else_is_the_cover_site() -> None:
    routes = envoy.entry_routes(EPOCHS)["virtual_hosts"][0]["routes"]
    prefixes = [route["match"].get("prefix", route["match"].get("path")) for route in routes]
    assert prefixes[:4] == [
        "/api.v2.rpc.3131313131313131/",
        "/assets/3131313131313131/",
        "/api.v2.rpc.3232323232323232/",
        "/assets/3232323232323232/",
    ]
    assert prefixes[-1] == "/"
    assert routes[-1]["direct_response"]["status"] == 404


def test_a_core_opens_tunnels_for_validated_certificates_only() -> None:
    text = envoy.core_listeners("0.0.0.0", 443, "la")[0]
    routes = text["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]
    for route in routes["virtual_hosts"][0]["routes"]:
        if "connect_matcher" in route["match"]:
            assert route["match"]["tls_context"] == {"presented": True, "validated": True}


def test_nobody_listed_means_nobody_believed() -> None:
    context = envoy.trust("roots", [], "", lenient=False)["validation_context"]
    assert context["match_typed_subject_alt_names"] == [
        {"san_type": "URI", "matcher": {"exact": "holdfast://none"}}
    ]
    assert "trust_chain_verification" not in context


def test_the_hop_is_post_quantum_and_shows_the_cells_name() -> None:
    cluster = envoy.entry_clusters(["la"], "core.example.net")[2]
    tls = cluster["transport_socket"]["typed_config"]
    assert tls["sni"] == "core.example.net"
    assert tls["common_tls_context"]["tls_params"] == {
        "tls_minimum_protocol_version": "TLSv1_3",
        "tls_maximum_protocol_version": "TLSv1_3",
        "ecdh_curves": ["X25519MLKEM768"],
    }


def test_cores_stand_by_priority_and_weight() -> None:
    lane = Lane(
        "la",
        (
            Target("core-1", b"1" * 32, "203.0.113.1:443", 0, 100, True),
            Target("core-2", b"2" * 32, "[2001:db8::2]:443", 1, 40, False),
        ),
    )
    found = envoy.lane_endpoints(lane)["endpoints"]
    assert [level["priority"] for level in found] == [0, 1]
    address = found[1]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    assert address == {"address": "2001:db8::2", "port_value": 443}


def test_the_front_is_one_secret_path_before_the_cover_site() -> None:
    """On every port, under every name; for a guess there is the cover site (ADR 0044)."""
    front = envoy.Front((front_path(b"f" * 32),), 17_000)
    entry = envoy.entry_listeners("0.0.0.0", 443, "c1.example", {}, "core.example", front)[0]
    cover = entry["default_filter_chain"]["filters"][0]["typed_config"]["route_config"]
    core = envoy.core_listeners("0.0.0.0", 443, "la", front)[0]
    entries = core["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]
    for config in (envoy.entry_routes(EPOCHS, front), cover, entries):
        routes = config["virtual_hosts"][0]["routes"]
        led = [r for r in routes if r.get("route", {}).get("cluster") == envoy.FRONT]
        assert [r["match"] for r in led] == [{"prefix": front.paths[0] + "/"}]
        whole_s = led[0]["route"]["max_stream_duration"]["max_stream_duration"]
        assert float(whole_s.rstrip("s")) >= FRONT_COPY_REAL_S, "a body that drips has an end"
        assert routes[-3:] == cover_routes()
        assert routes.index(led[0]) < len(routes) - 3
    assert len(front.paths[0]) == 33
    assert front_path(b"g" * 32) != front.paths[0]
    (cluster,) = [c for c in envoy.core_clusters(20_000, front) if c["name"] == envoy.FRONT]
    (end,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    where = end["endpoint"]["address"]["socket_address"]
    assert where == {"address": "127.0.0.1", "port_value": 17_000}
    assert envoy.FRONT not in str(envoy.entry_routes(EPOCHS)) + str(envoy.core_clusters(20_000))


def test_a_cores_proxies_meet_at_one_loopback_port() -> None:
    (inbound,) = core_config(ExitPolicy(), 20_001)["inbounds"]
    assert (inbound["listen"], inbound["port"]) == ("127.0.0.1", 20_001)
    (own,) = [c for c in envoy.core_clusters(20_001) if c["name"] == "own"]
    (where,) = own["load_assignment"]["endpoints"][0]["lb_endpoints"]
    address = where["endpoint"]["address"]["socket_address"]
    assert (address["address"], address["port_value"]) == ("127.0.0.1", 20_001)


@pytest.mark.parametrize(("allowed", "processors"), [(1, 1), (2, 1), (3, 1), (4, 2), (16, 14)])
def test_xray_has_what_envoy_leaves(
    monkeypatch: pytest.MonkeyPatch, allowed: int, processors: int
) -> None:
    monkeypatch.delenv("GOMAXPROCS", raising=False)
    monkeypatch.setattr(proxies, "cpus", lambda: allowed)
    assert proxies.xray_variables() == {"GOMAXPROCS": str(processors)}
    monkeypatch.setenv("GOMAXPROCS", "5")
    assert proxies.xray_variables() == {}, "an operator's word stands"
