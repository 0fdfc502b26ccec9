"""What an entry's and a core's Xray run with. Users and lanes of an entry change through its API.

Entry: VLESS over gRPC and XHTTP on Unix sockets (Envoy ends TLS and knows the secret paths, so
paths turn without Xray noticing), one outbound for each lane to the local Envoy. Core: VLESS on a
loopback port behind Envoy, out to the internet as the owner's policy allows.

The credential between entry and core is a constant: who may speak there from outside is decided by
the certificates of the two Envoys, and a second secret would only look like security. Programs on
the core's own machine are not kept from its Xray (THREATS).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from holdfast.access import files
from holdfast.logic.access.model import ExitPolicy
from holdfast.wire.access import User

LOOPBACK: Final = "127.0.0.1"
"""Xray dials no Unix socket, and writes 8 KiB at a time to one that carries plain VLESS: between it
and the local Envoy are ports here (ADR 0049)."""
HOP_CREDENTIAL: Final = "00000000-0000-4000-8000-000000000001"
SERVICE: Final = "hop"
"""The gRPC service behind Envoy, whatever clients call it."""
PATH: Final = "/hop/"
"""The XHTTP path behind Envoy."""
GRPC_TAG: Final = "grpc"
XHTTP_TAG: Final = "xhttp"
BLOCKED: Final = "blocked"
IDLE_S: Final = 300

Config = dict[str, Any]


def entry_config(users: Iterable[User], lanes: Mapping[str, int]) -> Config:
    """The configuration an entry's Xray starts with: the users and lanes known by then.

    `lanes`: label -> loopback port of the local Envoy's listener.
    """
    clients = [{"id": user.credential, "email": email_of(user), "level": 0} for user in users]
    return {
        "log": {"loglevel": "warning", "access": "none"},
        "api": {"tag": "api", "listen": files.XRAY_API, "services": _SERVICES},
        "stats": {},
        "policy": _POLICY,
        "inbounds": [
            _vless_in(GRPC_TAG, files.XRAY_GRPC, clients, _GRPC),
            _vless_in(XHTTP_TAG, files.XRAY_XHTTP, clients, _XHTTP),
        ],
        "outbounds": [
            {"tag": BLOCKED, "protocol": "blackhole"},
            *(lane_outbound(label, port) for label, port in lanes.items()),
        ],
        "routing": {
            "domainStrategy": "AsIs",
            "rules": [lane_rule(label) for label in lanes],
        },
    }


def core_config(policy: ExitPolicy, port: int) -> Config:
    """The configuration of a core's Xray: what its owner allows and nothing private. It listens on
    loopback `port`."""
    return {
        "log": {"loglevel": "warning", "access": "none"},
        "api": {"tag": "api", "listen": files.XRAY_API, "services": ["StatsService"]},
        "stats": {},
        "policy": _POLICY,
        "inbounds": [
            {
                **_vless_in(
                    "hop",
                    LOOPBACK,
                    [{"id": HOP_CREDENTIAL, "email": "hop", "level": 0}],
                    {"network": "raw"},
                ),
                "port": port,
            }
        ],
        "outbounds": [
            {"tag": "out", "protocol": "freedom", "settings": {"finalRules": exit_rules(policy)}},
            {"tag": BLOCKED, "protocol": "blackhole"},
        ],
        "routing": {"domainStrategy": "AsIs", "rules": _domain_rules(policy)},
    }


def exit_rules(policy: ExitPolicy) -> list[Config]:
    """The last word on every address after it was resolved, so no name leads where an address may
    not: private ranges first, the owner's denials next, then what is allowed."""
    rules: list[Config] = [{"action": "block", "ip": list(PRIVATE), "blockDelay": "0-0"}]
    if policy.networks_denied:
        denied = list(policy.networks_denied)
        rules.append({"action": "block", "ip": denied, "blockDelay": "0-0"})
    if policy.ports_denied:
        port = ",".join(map(str, policy.ports_denied))
        rules.append({"action": "block", "port": port, "blockDelay": "0-0"})
    if policy.ports:
        rules.append({"action": "allow", "port": ",".join(map(str, policy.ports))})
        rules.append({"action": "block", "blockDelay": "0-0"})
    else:
        rules.append({"action": "allow"})
    return rules


def lane_outbound(label: str, port: int) -> Config:
    """VLESS to the local Envoy's listener of this lane."""
    return {
        "tag": f"lane-{label}",
        "protocol": "vless",
        "settings": {
            "address": LOOPBACK,
            "port": port,
            "id": HOP_CREDENTIAL,
            "encryption": "none",
        },
        "streamSettings": {"network": "raw"},
    }


def lane_rule(label: str) -> Config:
    """Devices of a lane leave by its outbound."""
    return {
        "ruleTag": f"lane-{label}",
        "user": [f"regexp:@{label}$"],
        "outboundTag": f"lane-{label}",
    }


def email_of(user: User) -> str:
    """Xray's name for a device: its counters and its lane hang on it."""
    return f"{user.device}@{user.lane}"


def _domain_rules(policy: ExitPolicy) -> list[Config]:
    if not policy.domains_denied:
        return []
    domains = [f"domain:{name}" for name in policy.domains_denied]
    return [{"domain": domains, "outboundTag": BLOCKED}]


def _vless_in(tag: str, listen: str, clients: list[Config], stream: Config) -> Config:
    return {
        "tag": tag,
        "listen": listen,
        "protocol": "vless",
        "settings": {"clients": clients, "decryption": "none"},
        "streamSettings": stream,
    }


_SERVICES: Final = ["HandlerService", "RoutingService", "StatsService"]
_FORWARDED: Final[Config] = {"sockopt": {"trustedXForwardedFor": ["X-Forwarded-For"]}}
"""Envoy writes it anew; by it an excluded device's connections are found."""
_GRPC: Final[Config] = {
    "network": "grpc",
    "grpcSettings": {"serviceName": SERVICE},
    **_FORWARDED,
}
_XHTTP: Final[Config] = {
    "network": "xhttp",
    "xhttpSettings": {"path": PATH, "mode": "auto"},
    **_FORWARDED,
}
_POLICY: Final[Config] = {
    "levels": {
        "0": {
            "connIdle": IDLE_S,
            "handshake": 8,
            "statsUserUplink": True,
            "statsUserDownlink": True,
            "statsUserOnline": True,
        }
    },
}
PRIVATE: Final = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
    "::/127",
    "64:ff9b::/96",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
)
"""Never left for, whatever the owner allows: loopback, links, carriers, multicast (RFC 6890)."""
