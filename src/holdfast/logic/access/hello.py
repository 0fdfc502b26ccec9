"""What anybody on the path reads of a TLS connection: the ClientHello (RFC 8446 §4.1.2).

`read_hello` gives the name that is asked for and a fingerprint in the manner of JA4: version,
cipher suites, extensions and groups, without what is random in every hello.
"""

from __future__ import annotations

import struct

import msgspec

from holdfast.crypto.pure import sha256

_HANDSHAKE = 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_GROUPS = 10
_ALPN = 16


class Hello(msgspec.Struct, frozen=True):
    """One ClientHello as an observer sorts it. `groups` are the key exchanges it offers."""

    name: str
    fingerprint: str
    groups: tuple[int, ...]
    alpn: tuple[str, ...]


def read_hello(data: bytes) -> Hello | None:
    """The ClientHello at the start of a TCP stream; None when there is none, or not all of it."""
    try:
        return _read(data)
    except (struct.error, IndexError, UnicodeDecodeError):
        return None


def _read(data: bytes) -> Hello | None:
    if len(data) < 9 or data[0] != _HANDSHAKE or data[5] != _CLIENT_HELLO:
        return None
    size = int.from_bytes(data[6:9], "big")
    body = data[9 : 9 + size]
    if len(body) < size:
        return None
    version = body[:2]
    at = 34 + 1 + body[34]
    (length,) = struct.unpack_from(">H", body, at)
    suites = body[at + 2 : at + 2 + length]
    at += 2 + length
    at += 1 + body[at]
    (length,) = struct.unpack_from(">H", body, at)
    rest = body[at + 2 : at + 2 + length]
    extensions: list[tuple[int, bytes]] = []
    at = 0
    while at < len(rest):
        kind, length = struct.unpack_from(">HH", rest, at)
        extensions.append((kind, rest[at + 4 : at + 4 + length]))
        at += 4 + length
    found = dict(extensions)
    kinds = b"".join(struct.pack(">H", kind) for kind, _ in extensions)
    groups = found.get(_GROUPS, b"\0\0")
    alpn = _names(found.get(_ALPN, b"\0\0"))
    material = b"|".join((version, suites, kinds, groups, ",".join(alpn).encode()))
    return Hello(
        name=_server_name(found.get(_SERVER_NAME, b"")),
        fingerprint=sha256(material).hex()[:24],
        groups=struct.unpack(f">{(len(groups) - 2) // 2}H", groups[2:]),
        alpn=alpn,
    )


def _server_name(data: bytes) -> str:
    if len(data) < 5:
        return ""
    (length,) = struct.unpack_from(">H", data, 3)
    return data[5 : 5 + length].decode("ascii")


def _names(data: bytes) -> tuple[str, ...]:
    names, at = [], 2
    while at < len(data):
        names.append(data[at + 1 : at + 1 + data[at]].decode("ascii"))
        at += 1 + data[at]
    return tuple(names)
