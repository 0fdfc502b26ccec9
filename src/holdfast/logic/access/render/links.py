"""VLESS share links (XTLS/Xray-core discussion 716): one line for each server.

`vless://<uuid>@<host>:<port>?<parameters>#<name>`, IPv6 in brackets, the port always there, no key
twice. v2rayNG parses with `java.net.URI` and splits each parameter on `=`, so whatever is not
unreserved is percent-encoded, spaces as %20: a `+` would stay a plus. `allowInsecure` is never
written: Xray 26.7 refuses it.
"""

from __future__ import annotations

from typing import Final

from holdfast.logic.access.model import Transport
from holdfast.logic.access.render.negotiate import Client
from holdfast.logic.access.subscription import Endpoint, SubscriptionView

_PLAIN: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.!~*'()"
)
"""What ECMAScript's encodeURIComponent leaves as it is."""


def encode(text: str) -> str:
    """encodeURIComponent."""
    return "".join(chr(b) if b in _PLAIN else f"%{b:02X}" for b in text.encode())


def links(view: SubscriptionView, _client: Client) -> str:
    """All lines, joined by newlines."""
    return "\n".join(link(view.credential, line) for line in view.endpoints)


def link(credential: str, line: Endpoint) -> str:
    """One server."""
    host = f"[{line.host}]" if ":" in line.host else line.host
    fields = [("encryption", "none"), ("security", "tls"), ("type", line.transport.value)]
    if line.transport is Transport.GRPC:
        fields += [("serviceName", line.path), ("mode", "gun")]
    else:
        fields += [("path", line.path), ("mode", "stream-one")]
    fields += [("sni", line.sni), ("fp", line.fingerprint), ("alpn", ",".join(line.alpn))]
    assert len(dict(fields)) == len(fields), "a duplicate key is not a share link"
    query = "&".join(f"{key}={encode(value)}" for key, value in fields)
    return f"vless://{credential}@{host}:{line.port}?{query}#{encode(line.name)}"
