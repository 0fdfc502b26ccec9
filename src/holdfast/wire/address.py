"""`host:port`, IPv6 hosts in brackets: the one text form of an address."""

from __future__ import annotations

from holdfast.errors import PeerFault

ADDRESS_LETTERS_MAX = 261
"""A DNS name of 253, a colon, a port, a pair of brackets."""


def split_address(text: str) -> tuple[str, int]:
    """(host without brackets, port). Raises PeerFault."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if (
        not colon
        or len(text) > ADDRESS_LETTERS_MAX
        or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536)
    ):
        raise PeerFault(f"not an address of the form host:port: {text[:80]!r}")
    host = host[1:-1] if bracketed else host
    if not host or not host.isprintable() or " " in host or bracketed != (":" in host):
        raise PeerFault(f"not an address of the form host:port: {text[:80]!r}")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """Inverse of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
