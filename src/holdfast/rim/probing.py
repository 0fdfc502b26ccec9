"""What a stranger tries on an address: right and wrong names, old TLS, garbage, stolen keys."""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path
from typing import Any, Final

import msgspec

_TIMEOUT_S: Final = 5.0
_READ_MAX: Final = 64 * 1024


class Seen(msgspec.Struct, frozen=True):
    """What an address answered. `outcome` is the status line, or how the connection ended."""

    outcome: str
    head: str = ""
    body: str = ""
    certificate: bytes = b""
    """DER of the leaf that was shown."""


def probe(
    address: tuple[str, int],
    name: str,
    *,
    path: str = "/",
    tls12: bool = False,
    credentials: tuple[Path, Path] | None = None,
) -> Seen:
    """One GET over TLS, believing any certificate. `credentials`: chain and key to show."""
    context = _context(credentials)
    if tls12:
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        with (
            socket.create_connection(address, _TIMEOUT_S) as raw,
            context.wrap_socket(raw, server_hostname=name or None) as conn,
        ):
            leaf = conn.getpeercert(binary_form=True) or b""
            request = f"GET {path} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n"
            conn.sendall(request.encode())
            data = _all(conn)
    except ssl.SSLError as error:
        return Seen(f"tls: {error.reason}")
    except OSError as error:
        return Seen(f"closed: {type(error).__name__}")
    head, _, body = data.partition(b"\r\n\r\n")
    text = head.decode("latin-1")
    return Seen(text.split("\r\n")[0], text, body.decode("latin-1"), leaf)


def babble(address: tuple[str, int], data: bytes) -> Seen:
    """Send bytes that are no TLS."""
    try:
        with socket.create_connection(address, _TIMEOUT_S) as conn:
            conn.sendall(data)
            return Seen("answered", body=_all(conn).hex())
    except OSError as error:
        return Seen(f"closed: {type(error).__name__}")


def tunnel(
    address: tuple[str, int],
    name: str,
    credentials: tuple[Path, Path] | None,
    first: bytes,
    *,
    lane: str = "x",
    wait_s: float = 3.0,
) -> bytes:
    """Play an entry: open a CONNECT stream, send `first`; what comes back, empty when nothing does.

    `credentials` are the chain and the key to show, whoever they belong to.
    """
    from h2.config import H2Configuration
    from h2.connection import H2Connection

    context = _context(credentials)
    context.set_alpn_protocols(["h2"])
    with (
        contextlib.suppress(OSError, ssl.SSLError),
        socket.create_connection(address, wait_s) as raw,
        context.wrap_socket(raw, server_hostname=name) as conn,
    ):
        if conn.selected_alpn_protocol() != "h2":
            return b""
        h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        h2.initiate_connection()
        headers = [(":method", "CONNECT"), (":authority", f"{name}:443"), ("x-lane", lane)]
        h2.send_headers(1, headers)
        h2.send_data(1, first)
        conn.sendall(h2.data_to_send())
        return _answer(conn, h2)
    return b""


def _answer(conn: ssl.SSLSocket, h2: Any) -> bytes:
    """All that comes back until the stream ends or falls silent."""
    from h2 import events

    body = b""
    while True:
        try:
            data = conn.recv(_READ_MAX)
        except TimeoutError:
            return body
        if not data:
            return body
        for event in h2.receive_data(data):
            if isinstance(event, events.ResponseReceived):
                if {str(k): str(v) for k, v in event.headers}.get(":status") != "200":
                    return b""
            elif isinstance(event, events.DataReceived):
                body += event.data
            elif isinstance(event, events.StreamReset | events.StreamEnded):
                return body
        conn.sendall(h2.data_to_send())


def _context(credentials: tuple[Path, Path] | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if credentials is not None:
        context.load_cert_chain(*map(str, credentials))
    return context


def _all(conn: socket.socket) -> bytes:
    data = b""
    while len(data) < _READ_MAX:
        with contextlib.suppress(TimeoutError):
            piece = conn.recv(_READ_MAX)
            data += piece
            if piece:
                continue
        break
    return data
