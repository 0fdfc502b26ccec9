"""A client's Xray, configured by nothing but its subscription.

All entries of one transport and port are one outbound whose name resolves to all their addresses:
Xray dials them in a race, so an entry that is gone costs a quarter of a second and no user sees it.
"""

from __future__ import annotations

from typing import Any, Final

from holdfast.logic.access.model import Transport
from holdfast.logic.access.subscription import Endpoint, SubscriptionView

RACE_MS: Final = 250
"""Before the next address is tried too (RFC 8305 recommends this delay)."""
Config = dict[str, Any]


def xray_json(
    view: SubscriptionView, *, socks_port: int, transport: Transport = Transport.GRPC
) -> Config:
    """A whole configuration: SOCKS with UDP on loopback, everything through the subscription."""
    lines = [line for line in view.endpoints if line.transport is transport]
    groups: dict[tuple[str, int], list[Endpoint]] = {}
    for line in lines:
        groups.setdefault((line.sni, line.port), []).append(line)
    hosts = {sni: sorted({line.host for line in group}) for (sni, _), group in groups.items()}
    return {
        "log": {"loglevel": "warning", "access": "none"},
        "dns": {"hosts": hosts, "servers": [], "queryStrategy": "UseIP"},
        "inbounds": [
            {
                "tag": "socks",
                "listen": "127.0.0.1",
                "port": socks_port,
                "protocol": "socks",
                "settings": {"udp": True},
            }
        ],
        "outbounds": [_outbound(view, group[0]) for group in groups.values()],
    }


def _outbound(view: SubscriptionView, line: Endpoint) -> Config:
    settings: Config = {"address": line.sni, "port": line.port, "id": view.credential}
    settings["encryption"] = "none"
    tls: Config = {
        "serverName": line.sni,
        "alpn": list(line.alpn),
        "fingerprint": line.fingerprint,
    }
    if view.roots:
        tls["certificates"] = [
            {"usage": "verify", "certificate": view.roots.strip().splitlines()},
        ]
        tls["disableSystemRoot"] = True
    stream: Config = {
        "network": line.transport.value,
        "security": "tls",
        "tlsSettings": tls,
        "sockopt": {
            "domainStrategy": "ForceIP",
            "happyEyeballs": {"tryDelayMs": RACE_MS, "maxConcurrentTry": 4},
        },
    }
    if line.transport is Transport.GRPC:
        stream["grpcSettings"] = {"serviceName": line.path}
    else:
        stream["xhttpSettings"] = {"path": line.path, "mode": "stream-one"}
    return {"tag": line.name, "protocol": "vless", "settings": settings, "streamSettings": stream}
