"""Reading a ClientHello as an observer does."""

from __future__ import annotations

import ssl

from hypothesis import given
from hypothesis import strategies as st

from holdfast.logic.access.hello import read_hello


def a_hello(name: str, alpn: tuple[str, ...] = ("h2",)) -> bytes:
    """What OpenSSL says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(list(alpn))
    out = ssl.MemoryBIO()
    conn = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    try:
        conn.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def test_name_and_fingerprint() -> None:
    one, two = read_hello(a_hello("one.example")), read_hello(a_hello("two.example"))
    assert one is not None
    assert two is not None
    assert (one.name, two.name) == ("one.example", "two.example")
    assert one.fingerprint == two.fingerprint
    assert one.alpn == ("h2",)
    assert one.groups


def test_another_client_has_another_fingerprint() -> None:
    one, two = read_hello(a_hello("x.example")), read_hello(a_hello("x.example", ("http/1.1",)))
    assert one is not None
    assert two is not None
    assert one.fingerprint != two.fingerprint


@given(st.binary(max_size=200))
def test_garbage_is_no_hello(data: bytes) -> None:
    assert read_hello(b"\x16\x03\x01" + data) is None or len(data) > 40


def test_a_hello_that_is_cut_is_none() -> None:
    whole = a_hello("x.example")
    assert all(read_hello(whole[:size]) is None for size in range(0, len(whole), 7))
