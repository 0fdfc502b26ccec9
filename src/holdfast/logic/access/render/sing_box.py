"""sing-box profiles. Its decoder refuses unknown fields and duplicate tags, so the version counts.

Two dialects hold from 1.10 to 1.14: up to 1.11 DNS servers are URLs, DNS is an outbound and
sniffing belongs to the inbound; from 1.12 servers are typed and both are rule actions. 1.13 turned
the old words into errors (outbound `dns`, inbound `sniff`). Never written: `block`, `geoip`,
`geosite`, `inet4_address`, `flow`. XHTTP is not spoken.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from holdfast.logic.access.model import Transport
from holdfast.logic.access.render.negotiate import Client
from holdfast.logic.access.subscription import Endpoint, SubscriptionView

Config = dict[str, Any]
SELECTOR: Final = "proxy"
FASTEST: Final = "auto"
DIRECT: Final = "direct"
RESOLVER: Final = "9.9.9.9"
"""Quad9, asked through the tunnel."""
PROBE_URL: Final = "https://www.gstatic.com/generate_204"
TUN_ADDRESSES: Final = ("172.19.0.1/30", "fdfe:dcba:9876::1/126")


def sing_box(view: SubscriptionView, client: Client) -> str:
    """A whole profile: everything through the fastest server, private ranges direct."""
    lines = [line for line in view.endpoints if line.transport is Transport.GRPC]
    names = [line.name for line in lines]
    outbounds: list[Config] = [
        {"type": "selector", "tag": SELECTOR, "outbounds": [FASTEST, *names], "default": FASTEST},
        {"type": "urltest", "tag": FASTEST, "outbounds": names, "url": PROBE_URL},
        *(_outbound(view, line) for line in lines),
        {"type": "direct", "tag": DIRECT},
    ]
    profile = _legacy(outbounds) if client.sing_box_legacy else _current(outbounds)
    return msgspec.json.encode(profile).decode()


def _outbound(view: SubscriptionView, line: Endpoint) -> Config:
    tls: Config = {
        "enabled": True,
        "server_name": line.sni,
        "alpn": list(line.alpn),
        "utls": {"enabled": True, "fingerprint": line.fingerprint},
    }
    if view.roots:
        tls["certificate"] = view.roots.strip().splitlines()
    return {
        "type": "vless",
        "tag": line.name,
        "server": line.host,
        "server_port": line.port,
        "uuid": view.credential,
        "packet_encoding": "xudp",
        "tls": tls,
        "transport": {"type": "grpc", "service_name": line.path},
    }


def _tun() -> Config:
    return {
        "type": "tun",
        "tag": "tun",
        "address": list(TUN_ADDRESSES),
        "auto_route": True,
        "strict_route": True,
    }


def _current(outbounds: list[Config]) -> Config:
    """1.12 and later."""
    return {
        "log": {"level": "warn"},
        "dns": {
            "servers": [
                {"tag": "remote", "type": "tls", "server": RESOLVER, "detour": SELECTOR},
                {"tag": "local", "type": "local"},
            ],
            "final": "remote",
        },
        "inbounds": [_tun()],
        "outbounds": outbounds,
        "route": {
            "rules": [
                {"action": "sniff"},
                {"protocol": "dns", "action": "hijack-dns"},
                {"ip_is_private": True, "outbound": DIRECT},
            ],
            "final": SELECTOR,
            "default_domain_resolver": "local",
            "auto_detect_interface": True,
        },
    }


def _legacy(outbounds: list[Config]) -> Config:
    """1.10 and 1.11."""
    return {
        "log": {"level": "warn"},
        "dns": {
            "servers": [
                {"tag": "remote", "address": f"tls://{RESOLVER}", "detour": SELECTOR},
                {"tag": "local", "address": "local", "detour": DIRECT},
            ],
            "rules": [{"outbound": "any", "server": "local"}],
            "final": "remote",
        },
        "inbounds": [{**_tun(), "sniff": True}],
        "outbounds": [*outbounds, {"type": "dns", "tag": "dns-out"}],
        "route": {
            "rules": [
                {"protocol": "dns", "outbound": "dns-out"},
                {"ip_is_private": True, "outbound": DIRECT},
            ],
            "final": SELECTOR,
            "auto_detect_interface": True,
        },
    }
