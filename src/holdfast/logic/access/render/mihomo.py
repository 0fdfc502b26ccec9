"""mihomo (Clash Meta) profiles.

YAML 1.2 is a superset of JSON, so every scalar and every list of scalars is written as JSON, in
block style around it: nothing needs YAML's quoting rules. Keys as in VlessOption
(adapter/outbound/vless.go): `tls` and `udp` explicit, no `mode`, no `authority`, names unique.
mihomo has no certificate authority for one proxy: with the network's own roots it cannot verify.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.logic.access.model import Transport
from holdfast.logic.access.render.negotiate import Client
from holdfast.logic.access.subscription import Endpoint, SubscriptionView

GROUP: Final = "proxy"
FASTEST: Final = "auto"
PROBE_URL: Final = "https://www.gstatic.com/generate_204"
PROBE_S: Final = 300


def mihomo(view: SubscriptionView, _client: Client) -> str:
    """A whole profile."""
    lines = [line for line in view.endpoints if line.transport is Transport.GRPC]
    names = [line.name for line in lines]
    text = ["mixed-port: 7890", "mode: rule", "log-level: warning", "proxies:"]
    for line in lines:
        text += _proxy(view.credential, line)
    text += [
        "proxy-groups:",
        f"  - name: {_json(GROUP)}",
        "    type: select",
        f"    proxies: {_json([FASTEST, *names])}",
        f"  - name: {_json(FASTEST)}",
        "    type: url-test",
        f"    proxies: {_json(names)}",
        f"    url: {_json(PROBE_URL)}",
        f"    interval: {PROBE_S}",
        "rules:",
        f"  - {_json('MATCH,' + GROUP)}",
        "",
    ]
    return "\n".join(text)


def _proxy(credential: str, line: Endpoint) -> list[str]:
    return [
        f"  - name: {_json(line.name)}",
        "    type: vless",
        f"    server: {_json(line.host)}",
        f"    port: {line.port}",
        f"    uuid: {_json(credential)}",
        "    network: grpc",
        "    tls: true",
        "    udp: true",
        f"    servername: {_json(line.sni)}",
        f"    client-fingerprint: {_json(line.fingerprint)}",
        f"    alpn: {_json(list(line.alpn))}",
        "    packet-encoding: xudp",
        "    grpc-opts:",
        f"      grpc-service-name: {_json(line.path)}",
    ]


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
