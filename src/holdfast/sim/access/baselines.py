"""What the access layer is measured against: plain Xray servers, as people run them today.

One hop: a client's VLESS over gRPC or XHTTP in TLS ends at one Xray, which leaves for the internet.
Two hops: the same to a first Xray, which passes everything to a second. `plain` hops have no TLS
between the two servers at all: less than anybody should run, so the hardest to compare with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from holdfast.logic.access.model import Transport

Config = dict[str, Any]
CREDENTIAL: Final = "11111111-2222-4333-8444-555555555555"
SERVICE: Final = "baseline"
PATH: Final = "/baseline/"
_STREAMS: Final[dict[Transport, Config]] = {
    Transport.GRPC: {"network": "grpc", "grpcSettings": {"serviceName": SERVICE}},
    Transport.XHTTP: {
        "network": "xhttp",
        "xhttpSettings": {"path": PATH, "mode": "stream-one"},
    },
}
"""The mode of a client's XHTTP is what subscriptions say (`logic.access.xray_json`)."""


def server(
    host: str, port: int, chain: Path, key: Path, outbound: Config, transport: Transport
) -> Config:
    """An Xray that ends clients' TLS and sends everything to `outbound`."""
    return {
        "log": {"loglevel": "warning", "access": "none"},
        "inbounds": [
            {
                "listen": host,
                "port": port,
                "protocol": "vless",
                "settings": {"clients": [{"id": CREDENTIAL}], "decryption": "none"},
                "streamSettings": {
                    **_STREAMS[transport],
                    "security": "tls",
                    "tlsSettings": {
                        "alpn": ["h2"],
                        "certificates": [{"certificateFile": str(chain), "keyFile": str(key)}],
                    },
                },
            }
        ],
        "outbounds": [outbound],
    }


def plain_server(host: str, port: int, outbound: Config, transport: Transport) -> Config:
    """The second of two hops without any TLS between them."""
    return {
        "log": {"loglevel": "warning", "access": "none"},
        "inbounds": [
            {
                "listen": host,
                "port": port,
                "protocol": "vless",
                "settings": {"clients": [{"id": CREDENTIAL}], "decryption": "none"},
                "streamSettings": _STREAMS[transport],
            }
        ],
        "outbounds": [outbound],
    }


def freedom() -> Config:
    """Out to the internet."""
    return {"protocol": "freedom", "settings": {"finalRules": [{"action": "allow"}]}}


def to_plain(host: str, port: int, transport: Transport) -> Config:
    """On to the second server, without TLS."""
    return {
        "protocol": "vless",
        "settings": {"address": host, "port": port, "id": CREDENTIAL, "encryption": "none"},
        "streamSettings": _STREAMS[transport],
    }


def client(
    socks_port: int, host: str, port: int, sni: str, roots: str, transport: Transport
) -> Config:
    """A client of a baseline: the same as a subscription gives, but for path and id."""
    return {
        "log": {"loglevel": "warning", "access": "none"},
        "inbounds": [
            {
                "listen": "127.0.0.1",
                "port": socks_port,
                "protocol": "socks",
                "settings": {"udp": True},
            }
        ],
        "outbounds": [to_tls(host, port, sni, roots, transport)],
    }


def to_tls(host: str, port: int, sni: str, roots: str, transport: Transport) -> Config:
    """On to a server that ends TLS under `sni`."""
    return {
        "protocol": "vless",
        "settings": {"address": host, "port": port, "id": CREDENTIAL, "encryption": "none"},
        "streamSettings": {
            **_STREAMS[transport],
            "security": "tls",
            "tlsSettings": {
                "serverName": sni,
                "alpn": ["h2"],
                "fingerprint": "chrome",
                "certificates": [{"usage": "verify", "certificate": roots.strip().splitlines()}],
                "disableSystemRoot": True,
            },
        },
    }
